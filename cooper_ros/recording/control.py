"""Turning the recording of a running node on and off, and telling it of corrections."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from std_msgs.msg import Header

from cooper_msgs.srv import Correct
from cooper_ros.client import ClientError, CooperClient, NoReply
from cooper_ros.conversions import image_message
from cooper_ros.recording.corrections import Correction


@dataclass(frozen=True)
class RecordingStatus:
    """What the node says of its recording.

    :param bag: the bag that is being written; empty where none is
    :param problem: why it stopped
    :param counts: questions, frames, corrections and drops since the node started
    """

    bag: str
    problem: str
    counts: dict[str, int]


def set_recording(client: CooperClient, timeout: float, **values: Any) -> None:
    """Set parameters of the node, for example ``record='/data/today'``; an empty folder ends the recording.

    :raises ClientError: the node refused, or there is none
    """
    parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
    request = SetParameters.Request(parameters=parameters)
    for result in client.call(SetParameters, 'set_parameters', request, timeout).results:
        if not result.successful:
            raise ClientError(f'{client.target}: {result.reason}')


def recording_status(client: CooperClient, timeout: float) -> RecordingStatus:
    """Return the next status of the recording from ``/diagnostics``.

    :raises NoReply: none came within ``timeout`` seconds
    """
    name = f'{client.target.lstrip("/")}: recording'
    found: list[DiagnosticStatus] = []
    arrived = threading.Event()

    def take(message: DiagnosticArray) -> None:
        found.extend(each for each in message.status if each.name == name)
        if found:
            arrived.set()

    subscription = client.node.create_subscription(DiagnosticArray, '/diagnostics', take, 10)
    try:
        if not arrived.wait(timeout):
            raise NoReply(f'no word of {name} on /diagnostics within {timeout:g} s; start it with: cooper node')
    finally:
        client.node.destroy_subscription(subscription)
    values = {pair.key: pair.value for pair in found[0].values}
    counts = {name: int(values[name]) for name in ('questions', 'frames', 'corrections', 'dropped')}
    return RecordingStatus(values['bag'], values['problem'], counts)


def send_correction(client: CooperClient, correction: Correction, timeout: float) -> str:
    """Tell the node of a correction by ``~/correct``; return its warning, or an empty text.

    :raises ClientError: the node does not keep it; the text says why
    """
    request = Correct.Request(query_id=correction.query_id, answer=correction.answer, note=correction.note)
    request.useless, request.object = bool(correction.useless), correction.object
    if correction.mask is not None:
        request.mask = image_message(correction.mask.astype(np.uint8) * 255, 'mono8', Header())
    response = client.call(Correct, 'correct', request, timeout)
    if not response.success:
        raise ClientError(f'{client.target}/correct: {response.message}')
    return response.message
