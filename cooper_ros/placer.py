"""In which frame geometry is published: ``target_frame`` where there is a transform, else the optical frame."""

from __future__ import annotations

import importlib
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, Union

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time
from std_msgs.msg import Header

from cooper_model.placement import RigidTransform, placed
from cooper_model.types import Answer, DepthMap, Frame, SceneObject
from cooper_ros.conversions import header_of
from cooper_ros.encodings import ConversionError
from cooper_ros.inference import Perceived
from cooper_ros.readings import transform_from_message
from cooper_ros.transform_tree import NoTransform, TransformTree

LATE_SECONDS = 0.2
"""How long a transform is waited for that is still on its way."""

_POLL_SECONDS = 0.01
_THROTTLE_SECONDS = 10.0
_DEPTH = 100


class Transforms(Protocol):
    """What knows the frames of the robot."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        """Return what brings points of ``source`` into ``target``; raises :class:`NoTransform`."""

    def destroy(self) -> None:
        """End the subscriptions."""


class _Buffer:
    """tf2_ros, as a ROS installation has it."""

    def __init__(self, node: Node, tf2_ros: Any) -> None:
        self._tf2 = tf2_ros
        self._buffer = tf2_ros.Buffer()
        self._listener = tf2_ros.TransformListener(self._buffer, node)

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        try:
            found = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
        except self._tf2.TransformException as error:
            raise NoTransform(str(error), late=isinstance(error, self._tf2.ExtrapolationException)) from error
        return transform_from_message(found.transform)

    def destroy(self) -> None:
        self._listener.unregister()


class _Listener:
    """The topics themselves."""

    def __init__(self, node: Node, message_type: type) -> None:
        self._node = node
        self._tree = TransformTree()
        self.lookup = self._tree.lookup
        group = MutuallyExclusiveCallbackGroup()
        latched = QoSProfile(depth=_DEPTH, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._subscriptions = [
            node.create_subscription(message_type, topic, callback, quality, callback_group=group)
            for topic, callback, quality in (
                ('/tf', self._on_moving, QoSProfile(depth=_DEPTH)),
                ('/tf_static', self._on_static, latched),
            )
        ]

    def _on_moving(self, message: Any) -> None:
        self._add(message, static=False)

    def _on_static(self, message: Any) -> None:
        self._add(message, static=True)

    def _add(self, message: Any, *, static: bool) -> None:
        for each in message.transforms:
            try:
                self._tree.add(each, static=static)
            except ConversionError as error:
                text = f'{each.header.frame_id!r} to {each.child_frame_id!r}: {error}'
                self._node.get_logger().warning(text, throttle_duration_sec=_THROTTLE_SECONDS)

    def destroy(self) -> None:
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


class _Nothing:
    """No way to hear of transforms."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        raise NoTransform('neither tf2_ros nor tf2_msgs is installed; run make, or source a ROS installation')

    def destroy(self) -> None:
        """There is nothing to end."""


def transforms(node: Node) -> Transforms:
    """Return the best that is installed: tf2_ros, the topics alone, or nothing."""
    try:
        return _Buffer(node, importlib.import_module('tf2_ros'))
    except ImportError:
        pass
    try:
        return _Listener(node, importlib.import_module('tf2_msgs.msg').TFMessage)
    except ImportError:
        return _Nothing()


@dataclass(frozen=True)
class Place:
    """Where the geometry of one camera image stands.

    :param header: stamp of the image, and the frame
    :param transform: from the camera's optical frame; None where that is the frame
    """

    header: Header
    transform: RigidTransform | None = None

    def objects(self, seen: Union[Perceived, Answer], frame: Frame) -> tuple[SceneObject, ...]:
        """Return the objects of what was seen in a frame, in this place."""
        if self.transform is None or not seen.objects:
            return seen.objects
        return placed(seen.objects, self.transform, seen.depth, seen.segmentation, frame.intrinsics)


class Placer:
    """Finds the place of each image.

    :param target: frame that geometry is wanted in; empty for the camera's optical frame
    :param patience: how long a transform is waited for that is still on its way [s]
    """

    def __init__(self, node: Node, target: str, patience: float = LATE_SECONDS) -> None:
        self._problems: dict[str, str] = {}
        self._node = node
        self._target = target
        self._patience = patience
        self._transforms = transforms(node) if target else None
        self._last: tuple[str, int, Place] | None = None
        self._ended = threading.Event()
        self._thread = ThreadPoolExecutor(1, 'placer')
        self._waiting: Future[None] | None = None

    @property
    def problem(self) -> str:
        """Why the newest geometry of a camera is in its optical frame against the parameter's wish; or empty."""
        return '; '.join(list(self._problems.values()))

    def destroy(self) -> None:
        """End the subscriptions, and leave alone what still waits for its place."""
        self._ended.set()
        self._thread.shutdown(cancel_futures=True)
        if self._transforms is not None:
            self._transforms.destroy()

    def place(self, frame: Frame, depth: DepthMap | None) -> Place:
        """Return where the geometry of a frame stands; without metres it can only be the optical frame."""
        return self._wait(frame, depth, time.monotonic() + self._patience)

    def when_placed(self, frame: Frame, depth: DepthMap | None, use: Callable[[Place], None]) -> None:
        """Hand the place of a frame to ``use``: now where it is known, else later from a thread of the placer.

        So whoever asks need not wait. Frames keep the order in which one thread asks for their places.
        """
        place = None
        if self._waiting is None or self._waiting.done():
            place = self._try(frame, depth, final=False)
        if place is not None:
            use(place)
        else:
            self._waiting = self._thread.submit(self._later, frame, depth, time.monotonic() + self._patience, use)

    def _later(self, frame: Frame, depth: DepthMap | None, deadline: float, use: Callable[[Place], None]) -> None:
        place = self._wait(frame, depth, deadline)
        if self._ended.is_set():
            return
        try:
            use(place)
        except Exception as error:  # noqa: BLE001 - logged; nobody else would hear of it
            self._node.get_logger().error(f'publishing failed: {error}\n{traceback.format_exc()}')

    def _wait(self, frame: Frame, depth: DepthMap | None, deadline: float) -> Place:
        while True:
            final = self._ended.is_set() or time.monotonic() > deadline
            place = self._try(frame, depth, final=final)
            if place is not None:
                return place
            self._ended.wait(_POLL_SECONDS)

    def _try(self, frame: Frame, depth: DepthMap | None, *, final: bool) -> Place | None:
        """Return the place of a frame; None where its transform may still come, unless this try is the final one."""
        optical = Place(header_of(frame))
        metric = depth is not None and depth.metres is not None and frame.intrinsics is not None
        if self._transforms is None or not metric:
            return optical
        if self._last is not None and self._last[:2] == (frame.frame_id, frame.stamp_ns):
            return self._last[2]
        try:
            transform = self._lookup(frame)
        except (NoTransform, ConversionError) as error:
            if isinstance(error, NoTransform) and error.late and not final:
                return None
            problem = self._problems[frame.frame_id] = (
                f'no transform from {frame.frame_id!r} to target_frame {self._target!r} at the time of the image, so '
                f'points, markers and scene stay in {frame.frame_id!r}: {error}'
            )
            self._node.get_logger().warning(problem, throttle_duration_sec=_THROTTLE_SECONDS)
            return optical
        self._problems.pop(frame.frame_id, None)
        found = Place(Header(stamp=optical.header.stamp, frame_id=self._target), transform)
        self._last = (frame.frame_id, frame.stamp_ns, found)
        return found

    def _lookup(self, frame: Frame) -> RigidTransform:
        if not frame.stamp_ns:
            raise NoTransform('the image has no stamp; set header.stamp in the camera driver')
        return self._transforms.lookup(self._target, frame.frame_id, frame.stamp_ns)
