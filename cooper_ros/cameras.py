"""The cameras that the node looks through. Each has its topics below its name; one without a name has them as they are.

What belongs to one camera alone is here: its subscriptions, its recent frames, and what is published about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

from cooper_model.types import Frame, Modality
from cooper_ros.frames import FrameStore
from cooper_ros.inference import Perceived
from cooper_ros.parameters import Parameters
from cooper_ros.placer import Place, Placer
from cooper_ros.publishers import Publishers
from cooper_ros.recording.messages import Asked
from cooper_ros.silence import why_silent
from cooper_ros.topics import INPUTS, message_of, of_camera, transported


class UnknownCamera(LookupError):
    """No camera of the node has this name; the text says which have."""


class Camera:
    """One camera: what comes from it, and what is said about its frames.

    :ivar frames: recent frames, and what became of all
    :param name: empty for the only camera of a node
    """

    def __init__(self, node: LifecycleNode, settings: Parameters, name: str) -> None:
        self.name = name
        self._node = node
        self._settings = settings
        self._group = MutuallyExclusiveCallbackGroup()
        self._subscriptions: list[Any] = []
        self._outputs: Publishers | None = None
        resolve = node.resolve_topic_name
        self.frames = FrameStore(resolve(self._image), resolve(self._topic('camera_info')), node.get_logger().warning)

    def _topic(self, role: str) -> str:
        return of_camera(INPUTS[role], self.name)

    @property
    def _image(self) -> str:
        return transported(self._node, self._topic('image'), self._settings['image_transport'])

    # Life

    def offer(self, placer: Placer) -> None:
        """Offer the topics that are published."""
        self._outputs = Publishers(self._node, placer, self.name)

    def subscribe(self, on_image: Callable[[str], None]) -> None:
        """Listen to the camera.

        :param on_image: told the camera's name after each image
        """

        def take(message: Any) -> None:
            self.frames.add_image(message)
            on_image(self.name)

        reliable = self._settings['image_reliability'] == 'reliable'
        reliability = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        quality = QoSProfile(depth=1, reliability=reliability)
        subscribe = partial(self._node.create_subscription, qos_profile=quality, callback_group=self._group)
        self.frames.image_topic = self._node.resolve_topic_name(self._image)
        image = partial(subscribe, message_of(self._settings['image_transport']), self._image, take)
        try:
            subscription = image(event_callbacks=_loss_events(self.frames.add_lost))
        except UnsupportedEventTypeError:
            subscription = image()
        depth_transport = self._settings['depth_transport']
        depth = transported(self._node, self._topic('depth'), depth_transport)
        self._subscriptions = [
            subscription,
            subscribe(CameraInfo, self._topic('camera_info'), self.frames.add_camera_info),
            subscribe(message_of(depth_transport), depth, self.frames.companions.add_depth),
        ]

    def silence(self) -> str:
        """Return why no image came yet, and the remedy."""
        topic = self._node.resolve_topic_name(self._topic('image'))
        reliable = self._settings['image_reliability'] == 'reliable'
        return why_silent(self._node, topic, self._settings['image_transport'], reliable)

    def unsubscribe(self) -> None:
        """Leave the camera alone and forget its frames."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions.clear()
        self.frames.clear()

    def withdraw(self) -> None:
        """Offer no topics any more."""
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None

    # Frames in, messages out

    def newest(self) -> Frame:
        """Return the newest frame, unless it is older than max_image_age; raises as ``FrameStore.newest``."""
        return self.frames.newest(self._settings['max_image_age'])

    def wanted(self) -> frozenset[Modality]:
        """Return the maps of this camera's frames that somebody listens to."""
        if self._outputs is None:
            return frozenset()
        points, markers = self._settings['publish_points'], self._settings['publish_markers']
        return self._outputs.wanted(points=points, markers=markers)

    def publish(self, perceived: Perceived) -> None:
        """Publish what was seen in a frame of this camera."""
        if self._outputs is not None and self._subscriptions:
            points, markers = self._settings['publish_points'], self._settings['publish_markers']
            self._outputs.publish(perceived, points=points, markers=markers)

    def show(self, asked: Asked, place: Place) -> None:
        """Tell of a question about this camera, and show the answer among its markers."""
        if self._outputs is not None and self._subscriptions:
            self._outputs.publish_answer(asked, place, markers=self._settings['publish_markers'])


class Cameras:
    """The cameras that the parameter ``cameras`` names, in its order. Iterating gives each :class:`Camera`."""

    def __init__(self, node: LifecycleNode, settings: Parameters) -> None:
        self._node = node
        self._settings = settings
        self._by_name: dict[str, Camera] = {}
        self._follow_setting()

    def __iter__(self) -> Iterator[Camera]:
        return iter(tuple(self._by_name.values()))

    def __getitem__(self, name: str) -> Camera:
        """Return a camera; an empty name stands for the only or first one.

        :raises UnknownCamera: there is none of that name
        """
        cameras = self._by_name
        camera = cameras.get(name) if name else next(iter(cameras.values()))
        if camera is None:
            known = 'only one without a name; leave the name empty' if '' in cameras else ', '.join(cameras)
            raise UnknownCamera(f'no camera {name!r}; the node has {known} (parameter cameras)')
        return camera

    def offer(self, placer: Placer) -> None:
        """Take over the parameter ``cameras`` and offer what is published of each."""
        self._follow_setting()
        for camera in self:
            camera.offer(placer)

    def subscribe(self, on_image: Callable[[str], None]) -> None:
        """Listen to all cameras.

        :param on_image: told the camera's name after each image
        """
        for camera in self:
            camera.subscribe(on_image)

    def unsubscribe(self) -> None:
        """Leave all cameras alone and forget their frames."""
        for camera in self:
            camera.unsubscribe()

    def withdraw(self) -> None:
        """Offer no topics any more."""
        for camera in self:
            camera.withdraw()

    def _follow_setting(self) -> None:
        # A camera that stays keeps its counts.
        old, names = self._by_name, self._settings['cameras']
        self._by_name = {name: old.get(name) or Camera(self._node, self._settings, name) for name in names}


def _loss_events(count: Callable[[int], None]) -> SubscriptionEventCallbacks:
    """Return subscription events that tell how many messages the middleware lost."""
    return SubscriptionEventCallbacks(message_lost=lambda info: count(info.total_count_change))
