"""The camera process: publishes simulated scenes, a bag, a video or a folder of images as a camera driver would.

Topics, all relative: ``image_raw`` (or ``image_raw/compressed`` where the bag holds compressed images),
``camera_info``, ``depth_registered/image_rect`` (or below it ``compressedDepth``, likewise); latched ``~/truth``
(std_msgs/String, JSON) says what a simulated picture shows, for checking answers; ``/diagnostics`` counts.
Publishers are reliable, which best-effort subscribers accept too (REP 2003). Of simulated scenes also
``mask/instances`` and ``mask/classes`` (mono8) where somebody subscribes, latched ``mask/label_names``
(std_msgs/String, JSON: name by number), and the camera's place on ``/tf``.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.logging import get_logger
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header, String

from cooper_ros.camera_parameters import CameraParameters, declare
from cooper_ros.conversions import camera_info_message, image_message, transform_message
from cooper_ros.playback import BagPlayer, ShotPlayer
from cooper_ros.sources import Shot, SourceError, kind_of
from cooper_ros.transport import make_room_for_images

try:
    from tf2_msgs.msg import TFMessage
except ImportError:  # an installation without it has no place to say where the camera is
    TFMessage = None

ACKNOWLEDGE_SECONDS = 2.0
MAP = 'map'


class CameraNode(Node):
    """Publishes one source. `play` runs it to its end in the calling thread, beside a spinning executor."""

    def __init__(self) -> None:
        super().__init__('camera')
        self.parameters: CameraParameters = declare(self)
        reliable = self.parameters.reliability == 'reliable'
        policy = ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT
        qos = QoSProfile(depth=10, reliability=policy)
        self._publishers_by_role = {
            'image': self.create_publisher(Image, 'image_raw', qos),
            'compressed': self.create_publisher(CompressedImage, 'image_raw/compressed', qos),
            'camera_info': self.create_publisher(CameraInfo, 'camera_info', qos),
            'depth': self.create_publisher(Image, 'depth_registered/image_rect', qos),
            'compressed depth': self.create_publisher(
                CompressedImage, 'depth_registered/image_rect/compressedDepth', qos
            ),
            'instances': self.create_publisher(Image, 'mask/instances', qos),
            'classes': self.create_publisher(Image, 'mask/classes', qos),
        }
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._truth = self.create_publisher(String, '~/truth', latched)
        self._names = self.create_publisher(
            String, 'mask/label_names', QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        )
        self._named: dict[int, str] = {}
        self._transforms = self.create_publisher(TFMessage, '/tf', 100) if TFMessage is not None else None
        self._diagnostics = self.create_publisher(DiagnosticArray, '/diagnostics', 10)
        self._stop = threading.Event()
        self._published = 0
        self._state = 'starting'
        self.create_timer(1.0, self.publish_diagnostics)

    def stop(self) -> None:
        """End `play` soon. May be called from a signal handler."""
        self._stop.set()

    def play(self) -> None:
        """Publish the source until it ends or `stop` is called.

        :raises SourceError: the source cannot be read
        """
        wanted = self.parameters
        kind = kind_of(wanted.source)
        self.get_logger().info(f'camera source {wanted.source!r} ({kind})')
        if kind == 'bag':
            self._play_bag()
        else:
            ShotPlayer(kind, wanted, self, self._stop).play()
        self.report('finished')
        # What is still on its way would be lost with its publisher.
        for publisher in (*self._publishers_by_role.values(), self._diagnostics):
            publisher.wait_for_all_acked(Duration(seconds=ACKNOWLEDGE_SECONDS))

    def _play_bag(self) -> None:
        try:
            # An extra: the camera's other sources do without.
            from cooper_ros.bags import CameraBag
        except ModuleNotFoundError as error:
            raise SourceError(f'bags need the package rosbags ({error}); run: pip install rosbags') from error
        wanted = self.parameters
        with CameraBag(wanted.source, wanted.image_topic, wanted.camera_info_topic, wanted.depth_topic) as bag:
            image, depth = bag.topics.image, bag.topics.depth
            self.get_logger().info(
                f'{image.count} images of {image.name}, camera info {bag.topics.camera_info or "none"}, '
                f'registered depth {depth.name if depth else "none"}'
            )
            BagPlayer(bag, wanted, self, self._stop).play()

    def publish(self, role: str, message: Any) -> None:
        """Publish a message of role image, camera_info or depth as it is."""
        if role == 'image':
            self._published += 1
        if isinstance(message, CompressedImage):
            role = {'image': 'compressed', 'depth': 'compressed depth'}[role]
        self._publishers_by_role[role].publish(message)

    def publish_shot(self, shot: Shot, *, new: bool) -> None:
        """Publish a picture with what is known about it, stamped now."""
        now = self.get_clock().now()
        header = Header(stamp=now.to_msg(), frame_id=self.parameters.frame_id)
        if new and shot.truth:
            # The picture holds from this stamp on, until the stamp of the next text.
            self._truth.publish(String(data=f'{{"stamp_ns": {now.nanoseconds}, "scene": {shot.truth}}}'))
        self._publish_surroundings(shot, header)
        if shot.depth is not None and self.parameters.publish_depth:
            self.publish('depth', image_message(shot.depth, '32FC1', header))
        if shot.intrinsics is not None:
            self.publish('camera_info', camera_info_message(shot.intrinsics, header))
        self.publish('image', image_message(shot.image, 'rgb8', header))

    def _publish_surroundings(self, shot: Shot, header: Header) -> None:
        """Publish what a robot's segmenter and localisation would say of a picture, where it is known."""
        if shot.masks is not None:
            if shot.masks.names != self._named:
                self._named = dict(shot.masks.names)
                self._names.publish(String(data=json.dumps(self._named)))
            for role in ('instances', 'classes'):
                if self._publishers_by_role[role].get_subscription_count():
                    self.publish(role, image_message(getattr(shot.masks, role), 'mono8', header))
        if shot.pose is not None and self._transforms is not None:
            self._transforms.publish(TFMessage(transforms=[transform_message(shot.pose, MAP, header)]))

    def wait_for_subscribers(self, compressed: bool) -> None:
        """Return when as many as the parameter says subscribe to the image topic, or the camera is stopped."""
        wanted = self.parameters.wait_for_subscribers
        publisher = self._publishers_by_role['compressed' if compressed else 'image']
        if wanted:
            self.report(f'waiting for {wanted} subscribers of {publisher.topic_name}')
        while publisher.get_subscription_count() < wanted and not self._stop.wait(0.05):
            pass

    def report(self, state: str) -> None:
        """Log and publish what the camera is doing."""
        self._state = state
        self.get_logger().info(f'{state}; {self._published} images published')
        self.publish_diagnostics()

    def publish_diagnostics(self) -> None:
        """Publish what was played so far."""
        values = {'source': self.parameters.source, 'state': self._state, 'images published': self._published}
        status = DiagnosticStatus(
            level=DiagnosticStatus.OK,
            name=f'{self.get_fully_qualified_name().lstrip("/")}: source',
            hardware_id=self.parameters.source,
            message=self._state,
            values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
        )
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def main(args: list[str] | None = None) -> int:
    """Run the camera until its source ends or a signal comes; return the exit status."""
    # Signals end the player first, so that nothing is published into a context that is shutting down.
    make_room_for_images()
    rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    try:
        node = CameraNode()
    except (InvalidParameterValueException, InvalidParameterTypeException) as error:
        get_logger('camera').error(str(error))
        rclpy.try_shutdown()
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: node.stop())
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    spinner = threading.Thread(target=_spin, args=(executor,), name='spin')
    spinner.start()
    status = 0
    try:
        node.play()
    except SourceError as error:
        node.get_logger().error(str(error))
        status = 1
    finally:
        executor.shutdown()
        spinner.join()
        node.destroy_node()
        rclpy.try_shutdown()
    return status


def _spin(executor: SingleThreadedExecutor) -> None:
    try:
        executor.spin()
    except ExternalShutdownException:
        pass


if __name__ == '__main__':
    sys.exit(main())
