"""A typed client of a running cooper node: questions by service or action, relations, enabling."""

from __future__ import annotations

import math
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import rclpy
from action_msgs.msg import GoalStatus
from lifecycle_msgs.srv import GetState
from rclpy.action import ActionClient
from rclpy.client import Client
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.task import Future
from std_msgs.msg import Header
from std_srvs.srv import SetBool

from cooper_model.types import MODES, Evidence, Relation, SceneObject
from cooper_msgs.action import Ask
from cooper_msgs.srv import GetRelations, Query
from cooper_ros.conversions import image_message, stamp_from_ns, stamp_to_ns
from cooper_ros.encodings import colour_from_image
from cooper_ros.transport import make_room_for_images


class ClientError(RuntimeError):
    """The node did not do what was asked; the text says what and the remedy."""


class NodeUnreachable(ClientError):
    """No node serves the name that was looked for."""


class NoReply(ClientError):
    """The node is there but did not reply in time."""


@dataclass(frozen=True)
class Question:
    """One question.

    :param text: the question
    :param choices: possible answers, empty for a free answer
    :param mode: auto, direct, text or perception; empty = the node's default
    :param stamp_ns: of the camera frame to ask about [ns]; 0 = the newest
    :param camera: name of the camera to ask about, of a node with several; empty = the first
    :param image: ``(height, width, 3)`` uint8 RGB to ask about instead of the camera
    :raises ValueError: the mode is unknown
    """

    text: str
    choices: tuple[str, ...] = ()
    mode: str = ''
    stamp_ns: int = 0
    image: np.ndarray | None = None
    camera: str = ''

    def __post_init__(self) -> None:
        if self.mode and self.mode not in MODES:
            raise ValueError(f'mode {self.mode!r} is unknown; expected one of {", ".join(MODES)}')


@dataclass(frozen=True)
class Feedback:
    """What the node tells while it works.

    :param image: ``(height, width, 3)`` uint8 RGB where one was finished
    :param camera: name of the camera that was asked; empty where the only one has none
    """

    stage: str
    text: str
    image: np.ndarray | None
    camera: str = ''


@dataclass(frozen=True)
class Reply:
    """The outcome of one question.

    :param success: False where the node could not answer; ``message`` then says why
    :param value, unit: where the answer is a number
    :param confidence: 0..1
    :param depth_color, segmentation: ``(height, width, 3)`` uint8 RGB where they were generated
    :param stamp_ns, frame_id: header of the camera image used
    :param seconds: from asking to having the reply
    :param camera: name of the camera that was asked; empty where the only one has none
    """

    success: bool
    message: str
    query_id: str
    answer: str
    value: float | None
    unit: str
    confidence: float
    thoughts: tuple[str, ...]
    depth_color: np.ndarray | None
    segmentation: np.ndarray | None
    objects: tuple[SceneObject, ...]
    relations: tuple[Relation, ...]
    stamp_ns: int
    frame_id: str
    seconds: float
    camera: str = ''


@dataclass(frozen=True)
class Scene:
    """Objects and relations of one frame."""

    objects: tuple[SceneObject, ...]
    relations: tuple[Relation, ...]
    stamp_ns: int
    frame_id: str


class CooperClient:
    """Talks to one cooper node from a context and thread of its own. A context manager.

    :param name: of the node
    :param namespace: of the node
    """

    def __init__(self, name: str = 'cooper', namespace: str = '/') -> None:
        make_room_for_images()
        self.target = f'{namespace.rstrip("/")}/{name}'
        self._context = rclpy.Context()
        self._context.init()
        self.node = Node('cooper_client', context=self._context, enable_rosout=False)
        self._query = self.node.create_client(Query, f'{self.target}/query')
        self._relations = self.node.create_client(GetRelations, f'{self.target}/get_relations')
        self._enable = self.node.create_client(SetBool, f'{self.target}/enable')
        self._state = self.node.create_client(GetState, f'{self.target}/get_state')
        self._ask = ActionClient(self.node, Ask, f'{self.target}/ask')
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, name='cooper-client', daemon=True)
        self._thread.start()

    def __enter__(self) -> CooperClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and leave ROS."""
        self._executor.shutdown()
        self._thread.join(timeout=10)
        self._ask.destroy()
        self.node.destroy_node()
        self._context.try_shutdown()

    def is_there(self, timeout: float = 1.0) -> bool:
        """Return whether the node's service is found within ``timeout`` seconds."""
        return self._query.wait_for_service(timeout_sec=timeout)

    def wait_until_there(self, timeout: float) -> None:
        """Wait for the node's service and action.

        :raises NodeUnreachable: they are not there after ``timeout`` seconds
        """
        self._require(self._query, timeout)
        self._require(self._ask, timeout)

    def query(self, question: Question, timeout: float = 60.0) -> Reply:
        """Ask by the service ``~/query`` and wait.

        :raises NodeUnreachable: there is no such node
        :raises NoReply: nothing came within ``timeout`` seconds
        """
        started = time.monotonic()
        self._require(self._query, timeout)
        response = self._wait(self._query.call_async(_filled(Query.Request(), question)), timeout, 'query')
        return _reply(response, time.monotonic() - started)

    def ask(
        self, question: Question, timeout: float = 60.0, on_feedback: Callable[[Feedback], None] | None = None
    ) -> Reply:
        """Ask by the action ``~/ask``; ``on_feedback`` is called from the client's thread. Cancels on time-out.

        :raises NodeUnreachable: there is no such node
        :raises NoReply: no result came within ``timeout`` seconds
        :raises ClientError: the node rejected the goal
        """
        started = time.monotonic()
        self._require(self._ask, timeout)
        listener = None
        if on_feedback is not None:
            listener = lambda message: on_feedback(_feedback(message.feedback))  # noqa: E731
        sent = self._ask.send_goal_async(_filled(Ask.Goal(), question), feedback_callback=listener)
        try:
            goal = self._wait(sent, timeout, 'ask')
            if not goal.accepted:
                raise ClientError(f'{self.target}/ask rejected the question; the log of the node says why')
            left = timeout - (time.monotonic() - started)
            outcome = self._wait(goal.get_result_async(), left, 'ask')
        except (NoReply, KeyboardInterrupt):
            # Nobody waits for the answer any more, so the model need not work on it.
            sent.add_done_callback(_cancel)
            raise
        reply = _reply(outcome.result, time.monotonic() - started)
        if outcome.status == GoalStatus.STATUS_SUCCEEDED or not reply.success:
            return reply
        raise ClientError(f'{self.target}/ask ended with goal status {outcome.status}: {reply.message}')

    def relations(
        self, subject: str = '', predicate: str = '', object: str = '', timeout: float = 30.0, camera: str = ''
    ) -> Scene:
        """Read relations of the newest perceived frame by ``~/get_relations``; an empty filter matches all.

        :param camera: name of the camera, of a node with several; empty = the first
        :raises NodeUnreachable: there is no such node
        :raises NoReply: nothing came within ``timeout`` seconds
        :raises ClientError: the node could not tell
        """
        self._require(self._relations, timeout)
        request = GetRelations.Request(subject=subject, predicate=predicate, object=object, camera=camera)
        response = self._wait(self._relations.call_async(request), timeout, 'get_relations')
        if not response.success:
            raise ClientError(f'{self.target}/get_relations: {response.message}')
        return Scene(
            tuple(_object(item) for item in response.objects),
            tuple(relation_from_message(item) for item in response.relations),
            stamp_to_ns(response.header.stamp),
            response.header.frame_id,
        )

    def state(self, timeout: float = 10.0) -> str:
        """Return the node's lifecycle state: unconfigured, configuring, inactive, active, ...

        :raises NodeUnreachable: there is no such node
        :raises NoReply: nothing came within ``timeout`` seconds
        """
        self._require(self._state, timeout)
        return self._wait(self._state.call_async(GetState.Request()), timeout, 'get_state').current_state.label

    def enable(self, on: bool, timeout: float = 10.0) -> None:
        """Switch continuous perception on or off by ``~/enable``.

        :raises NodeUnreachable: there is no such node
        :raises NoReply: nothing came within ``timeout`` seconds
        :raises ClientError: the node refused
        """
        self._require(self._enable, timeout)
        response = self._wait(self._enable.call_async(SetBool.Request(data=on)), timeout, 'enable')
        if not response.success:
            raise ClientError(f'{self.target}/enable: {response.message}')

    def call(self, kind: Any, name: str, request: Any, timeout: float = 10.0) -> Any:
        """Call any service of the node, for example ``correct``; return its response.

        :raises NodeUnreachable: there is no such node
        :raises NoReply: nothing came within ``timeout`` seconds
        """
        service = self.node.create_client(kind, f'{self.target}/{name}')
        try:
            self._require(service, timeout)
            return self._wait(service.call_async(request), timeout, name)
        finally:
            self.node.destroy_client(service)

    def _require(self, endpoint: Client | ActionClient, timeout: float) -> None:
        wait = endpoint.wait_for_server if isinstance(endpoint, ActionClient) else endpoint.wait_for_service
        if wait(timeout_sec=timeout):
            return
        seen = ', '.join(f'{space.rstrip("/")}/{name}' for name, space in self.node.get_node_names_and_namespaces())
        raise NodeUnreachable(
            f'no node {self.target} after {timeout:g} s; seen: {seen}. Start it with: cooper node; check its '
            f'name, its namespace and ROS_DOMAIN_ID ({self._context.get_domain_id()} here)'
        )

    def _wait(self, future: Future, timeout: float, what: str) -> Any:
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(max(0.0, timeout)):
            raise NoReply(
                f'{self.target}/{what} did not reply within {timeout:g} s; is a camera publishing, and is the node '
                'alive (/diagnostics)? A longer timeout may help on a slow machine'
            )
        if future.exception() is not None:
            raise ClientError(f'{self.target}/{what} failed: {future.exception()}') from future.exception()
        return future.result()

    def _spin(self) -> None:
        while self._context.ok():
            try:
                self._executor.spin()
                return
            except ExternalShutdownException:
                return
            except Exception as error:  # noqa: BLE001 - logged; replies are still to come
                self.node.get_logger().error(f'a callback failed: {error}\n{traceback.format_exc()}')


def _cancel(sent: Future) -> None:
    goal = sent.result()
    if goal is not None and goal.accepted:
        goal.cancel_goal_async()


def _filled(request: Any, question: Question) -> Any:
    request.question = question.text
    request.choices = list(question.choices)
    request.mode = question.mode
    request.camera = question.camera
    request.stamp = stamp_from_ns(question.stamp_ns)
    if question.image is not None:
        request.image = image_message(question.image, 'rgb8', Header(stamp=request.stamp))
    return request


def _picture(message: Any) -> np.ndarray | None:
    return colour_from_image(message) if message.width and message.height else None


def _feedback(message: Any) -> Feedback:
    return Feedback(message.stage, message.text, _picture(message.image), message.camera)


def _reply(message: Any, seconds: float) -> Reply:
    return Reply(
        success=message.success,
        message=message.message,
        query_id=message.query_id,
        answer=message.answer,
        value=None if math.isnan(message.value) else message.value,
        unit=message.unit,
        confidence=message.confidence,
        thoughts=tuple(message.thoughts),
        depth_color=_picture(message.depth_color),
        segmentation=_picture(message.segmentation),
        objects=tuple(_object(item) for item in message.objects),
        relations=tuple(relation_from_message(item) for item in message.relations),
        stamp_ns=stamp_to_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        seconds=seconds,
        camera=message.camera,
    )


def _object(message: Any) -> SceneObject:
    box, center, size = message.box, message.center, message.size
    known = not math.isnan(message.depth)
    return SceneObject(
        id=message.id,
        name=message.name,
        confidence=message.confidence,
        box=(box.x_offset, box.y_offset, box.x_offset + box.width, box.y_offset + box.height),
        area=message.area,
        center=(center.x, center.y, center.z) if known else None,
        size=(size.x, size.y, size.z) if known else None,
        depth=message.depth if known else None,
        metric=message.metric,
    )


def relation_from_message(message: Any) -> Relation:
    """Return a ``cooper_msgs/Relation`` as it was before it was sent."""
    return Relation(
        subject_id=message.subject_id,
        subject=message.subject,
        predicate=message.predicate,
        object_id=message.object_id,
        object=message.object,
        distance=message.distance,
        confidence=message.confidence,
        evidence=(_evidence(message.subject_evidence), _evidence(message.object_evidence)),
    )


def _evidence(message: Any) -> Evidence:
    depth = None if math.isnan(message.depth) else message.depth
    return Evidence((message.x, message.y), message.pixels, depth, message.measured)
