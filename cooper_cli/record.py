"""``cooper record``: a running node's questions into bags."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cooper_cli import options
from cooper_cli.client import NODE, Namespace, NodeName, open_client
from cooper_cli.output import note, print_json, say

if TYPE_CHECKING:
    from cooper_ros.client import CooperClient
    from cooper_ros.recording.control import RecordingStatus


def record(
    folder: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Argument(help='Folder for the bags, on the machine of the node; none: tell what is recorded.'),
    ] = None,
    off: Annotated[bool, typer.Option('--off', help='End the recording.')] = False,
    seconds: Annotated[float, typer.Option(min=0.0, help='End the recording after so long; 0 = leave it on.')] = 0.0,
    rate: Annotated[
        Optional[float],  # noqa: UP045
        typer.Option(min=0.0, max=60.0, help="Frames a second between questions; default: the node's record_rate."),
    ] = None,
    topic: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(help='Record this topic too, beside /tf and /tf_static, as it comes; may be repeated.'),
    ] = None,
    repair: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar='BAG', help='Give a bag that was cut off its index back, without a node.'),
    ] = None,
    node: NodeName = NODE,
    namespace: Namespace = '',
    timeout: Annotated[float, typer.Option(min=0.1, help='Longest wait for the node in seconds.')] = 15.0,
    json: options.Json = False,
) -> None:
    """Record what a running node is asked: frame, generated images, thoughts, answer, timings, corrections."""
    if repair is not None:
        _repair(repair, json)
        return
    if off and folder is not None:
        raise ValueError(f'--off ends the recording, but {folder} begins one; give one of the two')
    from cooper_ros.parameters import TRANSFORMS
    from cooper_ros.recording.control import recording_status, set_recording

    with open_client(node, namespace) as client:
        if folder is not None:
            # Begun anew also where it had stopped by itself.
            set_recording(client, timeout, record='')
            _wait(client, timeout, begun=False)
            values = {'record': str(folder.expanduser().absolute())}
            values |= {'record_topics': [*TRANSFORMS, *topic]} if topic else {}
            values |= {'record_rate': rate} if rate is not None else {}
            set_recording(client, timeout, **values)
            state = _wait(client, timeout, begun=True)
            if seconds:
                note(f'recording into {state.bag} for {seconds:g} s')
                try:
                    time.sleep(seconds)
                finally:
                    set_recording(client, timeout, record='')
                    state = _wait(client, timeout, begun=False)
        elif off:
            set_recording(client, timeout, record='')
            state = _wait(client, timeout, begun=False)
        else:
            state = recording_status(client, timeout)
    _tell(state, json)


def _wait(client: CooperClient, timeout: float, *, begun: bool) -> RecordingStatus:
    from cooper_ros.recording.control import recording_status

    end = time.monotonic() + timeout
    while True:
        state = recording_status(client, timeout)
        if state.problem and begun:
            raise RuntimeError(f'the node cannot record: {state.problem}')
        if bool(state.bag) == begun and (begun or not state.problem):
            return state
        if time.monotonic() > end:
            raise RuntimeError(f'recording has not {"begun" if begun else "ended"} after {timeout:g} s')


def _tell(state: RecordingStatus, json: bool) -> None:
    if json:
        print_json({'bag': state.bag, 'problem': state.problem, **state.counts})
        return
    say(f'recording into {state.bag}' if state.bag else 'not recording')
    if state.problem:
        say(f'stopped: {state.problem}')
    say(', '.join(f'{name}: {count}' for name, count in state.counts.items()))


def _repair(bag: Path, json: bool) -> None:
    from cooper_ros.recording.repair import repair

    messages = repair(bag.absolute())
    if json:
        print_json({'bag': str(bag), 'messages': messages})
    else:
        say(f'{bag}: {messages} messages are whole; ros2 bag reads it now')
