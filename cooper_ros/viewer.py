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
from rerun.blueprint import Blueprint
from sensor_msgs.msg import CameraInfo

from cooper_model.placement import RigidTransform
from cooper_msgs.action import Ask
from cooper_msgs.msg import QueryRecord
from cooper_ros.conversions import frame_from_message
from cooper_ros.encodings import ConversionError, colour_from_image
from cooper_ros.placer import transforms
from cooper_ros.readings import intrinsics_from_message, stamp_to_ns
from cooper_ros.rerun_view import RerunView, blueprint
from cooper_ros.serving import run
from cooper_ros.topics import ANSWERS, INPUTS, OUTPUTS, message_of, of_camera, transported
from cooper_ros.transform_tree import NoTransform

PORT = 9876
"""Where Rerun's own programs look for a recording that is being made."""

_THROTTLE_SECONDS = 10.0


class Viewer(Node):
    """Subscribes to everything and writes it into a recording.

    Parameters: ``target``, the name of the cooper node; ``cameras``, the names of several; ``compressed``, whether
    their images are; ``save``, a file that takes the recording; ``show``: *window*, *serve*, *none*, or empty for a
    window where there is a screen, and to serve elsewhere.
    """

    def __init__(self) -> None:
        super().__init__('viewer')
        save, show = (self.declare_parameter(name, '').value for name in ('save', 'show'))
        target = self.declare_parameter('target', 'cooper').value
        cameras = self.declare_parameter('cameras', ['']).value
        compressed = self.declare_parameter('compressed', False).value
        self._recording = rr.RecordingStream('cooper')
        self._open(save, show, blueprint(cameras))
        self._transforms = transforms(self)
        self._shown = {name: self._show_camera(name, target, compressed) for name in cameras}
        # What the action tells its asker can be heard by everybody.
        self._listen(Ask.Impl.FeedbackMessage, f'{target}/ask/_action/feedback', self._on_feedback)

    def _show_camera(self, name: str, target: str, compressed: bool) -> _ShownCamera:
        shown = _ShownCamera(RerunView(self._recording, name), self)
        transport = 'compressed' if compressed else 'raw'
        image = transported(self, of_camera(INPUTS['image'], name), transport)
        driver = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._listen(message_of(transport), image, shown.on_image, driver)
        self._listen(CameraInfo, of_camera(INPUTS['camera_info'], name), shown.on_camera_info, driver)
        for topic, take in shown.takers().items():
            self._listen(OUTPUTS[topic], f'{target}/{of_camera(topic, name)}', take)
        self._listen(QueryRecord, f'{target}/{of_camera(ANSWERS, name)}', shown.view.answer)
        return shown

    def _listen(
        self, kind: type, topic: str, take: Callable[[Any], None], quality: QoSProfile | int = 10
    ) -> None:
        def checked(message: Any) -> None:
            try:
                take(message)
            except ConversionError as error:
                self.warn(f'{topic}: {error}')

        self.create_subscription(kind, topic, checked, quality)

    def _open(self, save: str, show: str, arrangement: Blueprint) -> None:
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
            self._recording.set_sinks(*sinks, default_blueprint=arrangement)

    def _on_feedback(self, message: Any) -> None:
        feedback = message.feedback
        if feedback.camera in self._shown:
            self._shown[feedback.camera].view.thinking(feedback.stage, feedback.text)

    def where(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        """Return what brings points of ``source`` into ``target`` at a time; raises :class:`NoTransform`."""
        return self._transforms.lookup(target, source, stamp_ns)

    def warn(self, text: str) -> None:
        """Log what cannot be shown, not too often."""
        self.get_logger().warning(text, throttle_duration_sec=_THROTTLE_SECONDS)

    def close(self) -> None:
        """Write what is still to be written."""
        self._recording.flush()
        self._recording.disconnect()


class _ShownCamera:
    """What is shown of one camera."""

    def __init__(self, view: RerunView, viewer: Viewer) -> None:
        self.view = view
        self._viewer = viewer
        self._optical = ''

    def takers(self) -> dict[str, Callable[[Any], None]]:
        """Return what takes the messages of each output."""
        view = self.view
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

    def on_image(self, message: Any) -> None:
        """Show the camera's image."""
        self._optical = message.header.frame_id
        self.view.picture('world/camera/image', frame_from_message(message).image, message.header)

    def on_camera_info(self, message: CameraInfo) -> None:
        """Show the camera itself."""
        self.view.lens(intrinsics_from_message(message, message.width, message.height), message.header)

    def _on_points(self, message: Any) -> None:
        self.view.points(message)
        header, found = message.header, None
        if not self._optical:
            return
        if header.frame_id != self._optical:
            try:
                found = self._viewer.where(header.frame_id, self._optical, stamp_to_ns(header.stamp))
            except NoTransform as error:
                self._viewer.warn(f'the camera is not placed: {error}')
                return
        self.view.pose(found, header)


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
