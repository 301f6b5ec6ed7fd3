"""A node that shows in Rerun, live, what a camera and a cooper node publish, and saves it where that is wanted.

``python -m cooper_ros.viewer``, beside both and in the same namespace. Needs rerun-sdk (extra ``viewer``).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from typing import Any

import rerun as rr
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cooper_msgs.action import Ask
from cooper_msgs.msg import QueryRecord
from cooper_ros.conversions import frame_from_message
from cooper_ros.encodings import ConversionError, colour_from_image
from cooper_ros.placer import transforms
from cooper_ros.readings import intrinsics_from_message, stamp_to_ns
from cooper_ros.rerun_view import RerunView, blueprint
from cooper_ros.serving import run
from cooper_ros.topics import ANSWERS, INPUTS, OUTPUTS, of_camera
from cooper_ros.transform_tree import NoTransform

PORT = 9876
"""Where Rerun's own programs look for a recording that is being made."""

_THROTTLE_SECONDS = 10.0


class Viewer(Node):
    """Subscribes to everything and writes it into a recording.

    Parameters: ``target``, the name of the cooper node; ``camera``, of several; ``compressed``, whether its images
    are; ``save``, a file that takes the recording; ``show``: *window*, *serve*, *none*, or empty for a window where
    there is a screen, and to serve elsewhere.
    """

    def __init__(self) -> None:
        super().__init__('viewer')
        text = {name: self.declare_parameter(name, '').value for name in ('camera', 'save', 'show')}
        target = self.declare_parameter('target', 'cooper').value
        compressed = self.declare_parameter('compressed', False).value
        self._recording = rr.RecordingStream('cooper')
        self._open(text['save'], text['show'])
        self._view = RerunView(self._recording)
        self._transforms = transforms(self)
        self._optical = ''
        image = of_camera(INPUTS['image'], text['camera'])
        kind, image = (CompressedImage, f'{image}/compressed') if compressed else (Image, image)
        driver = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._listen(kind, image, self._on_image, driver)
        self._listen(CameraInfo, of_camera(INPUTS['camera_info'], text['camera']), self._on_camera_info, driver)
        for name, take in self._takers().items():
            self._listen(OUTPUTS[name], f'{target}/{of_camera(name, text["camera"])}', take)
        self._listen(QueryRecord, f'{target}/{of_camera(ANSWERS, text["camera"])}', self._view.answer)
        # What the action tells its asker can be heard by everybody.
        self._listen(Ask.Impl.FeedbackMessage, f'{target}/ask/_action/feedback', self._on_feedback)

    def _takers(self) -> dict[str, Callable[[Any], None]]:
        view = self._view
        return {
            'depth/image': view.depth,
            'depth/color': lambda message: view.picture('depth/color', colour_from_image(message), message.header),
            'segmentation/instances': view.instances,
            'segmentation/overlay': lambda message: view.picture(
                'segmentation/overlay', colour_from_image(message), message.header
            ),
            'points': self._on_points,
            'markers': view.markers,
            'scene': view.scene,
        }

    def _listen(
        self, kind: type, topic: str, take: Callable[[Any], None], quality: QoSProfile | int = 10
    ) -> None:
        def checked(message: Any) -> None:
            try:
                take(message)
            except ConversionError as error:
                self.get_logger().warning(f'{topic}: {error}', throttle_duration_sec=_THROTTLE_SECONDS)

        self.create_subscription(kind, topic, checked, quality)

    def _open(self, save: str, show: str) -> None:
        """Send the recording to a file, to a window, or to whoever connects."""
        sinks: list[Any] = [rr.FileSink(save)] if save else []
        show = show or ('window' if {'DISPLAY', 'WAYLAND_DISPLAY'} & set(os.environ) else 'serve')
        if show == 'window':
            rr.spawn(port=PORT, connect=False)
            sinks.append(rr.GrpcSink())
        elif show == 'serve' and _is_free(PORT):
            sinks.append(rr.GrpcServerSink('127.0.0.1', PORT))
            self.get_logger().info(f'look with: rerun --connect rerun+http://127.0.0.1:{PORT}/proxy')
        elif show == 'serve':
            self.get_logger().warning(f'port {PORT} is taken, so nobody can look on; end the other viewer')
        if sinks:
            self._recording.set_sinks(*sinks, default_blueprint=blueprint())

    def _on_image(self, message: Any) -> None:
        self._optical = message.header.frame_id
        self._view.picture('world/camera/image', frame_from_message(message).image, message.header)

    def _on_camera_info(self, message: CameraInfo) -> None:
        self._view.lens(intrinsics_from_message(message, message.width, message.height), message.header)

    def _on_points(self, message: Any) -> None:
        self._view.points(message)
        header, found = message.header, None
        if not self._optical:
            return
        if header.frame_id != self._optical:
            try:
                found = self._transforms.lookup(header.frame_id, self._optical, stamp_to_ns(header.stamp))
            except NoTransform as error:
                text = f'the camera is not placed: {error}'
                self.get_logger().warning(text, throttle_duration_sec=_THROTTLE_SECONDS)
                return
        self._view.pose(found, header)

    def _on_feedback(self, message: Any) -> None:
        self._view.thinking(message.feedback.stage, message.feedback.text)

    def close(self) -> None:
        """Write what is still to be written."""
        self._recording.flush()
        self._recording.disconnect()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(('127.0.0.1', port))
        except OSError:
            return False
    return True


def main(args: list[str] | None = None) -> None:
    """Show until interrupted."""
    run(Viewer, Viewer.close, 'viewer', 2, OSError, args)


if __name__ == '__main__':
    main()
