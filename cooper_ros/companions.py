"""What comes beside a camera's image: its calibration, and depth measured by the robot."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Union

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from cooper_model.types import CameraIntrinsics
from cooper_ros.encodings import ConversionError
from cooper_ros.harvest.pixels import read_depth
from cooper_ros.readings import NANOSECONDS, intrinsics_from_message, stamp_to_ns

DepthMessage = Union[Image, CompressedImage]
HISTORY = 10
DEPTH_TOLERANCE_NS = NANOSECONDS // 20
CLOCKS_APART_NS = NANOSECONDS // 2
"""Depth further from the image than this is not merely slow: its clock is another."""


class Companions:
    """The newest calibration and a short history of depth images. Thread-safe.

    :param info_topic: where calibration comes from, to be named in messages
    :param notify: told, once a change, why calibration or depth cannot be used
    """

    def __init__(self, info_topic: str, notify: Callable[[str], None]) -> None:
        self.camera_info: CameraInfo | None = None
        self._info_topic = info_topic
        self._notify = notify
        self._notified: dict[str, str] = {}
        self._lock = threading.Lock()
        self._depths: deque[DepthMessage] = deque(maxlen=HISTORY)

    @property
    def warning(self) -> str:
        """Why the newest calibration asked for could not be used; empty where it could."""
        return self._notified.get('camera_info', '')

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong with what came last."""
        return tuple(self._notified.values())

    def add_depth(self, message: DepthMessage) -> None:
        """Store a depth image registered to the colour image."""
        with self._lock:
            self._depths.append(message)

    def clear(self) -> None:
        """Forget all messages."""
        self.camera_info = None
        with self._lock:
            self._depths.clear()

    def intrinsics(self, width: int, height: int) -> CameraIntrinsics | None:
        """Return the intrinsics of an image of ``width`` x ``height`` pixels, where the camera is calibrated."""
        info = self.camera_info
        if info is None:
            self.notify(
                'camera_info', f'no message on {self._info_topic}, so objects have no metres; remap camera_info'
            )
            return None
        try:
            intrinsics = intrinsics_from_message(info, width, height)
        except ValueError as error:
            self.notify('camera_info', str(error))
            return None
        self.notify('camera_info', '')
        return intrinsics

    def depth(self, stamp_ns: int, width: int, height: int) -> np.ndarray | None:
        """Return the depth measured at a time, ``(height, width)`` float32 [m], where there is any within 50 ms."""
        with self._lock:
            message = min(self._depths, key=lambda each: abs(stamp_to_ns(each.header.stamp) - stamp_ns), default=None)
        if message is None:
            return None
        offset = stamp_to_ns(message.header.stamp) - stamp_ns
        if abs(offset) > CLOCKS_APART_NS and 'depth clock' not in self._notified:
            self.notify(
                'depth clock',
                f'the depth image nearest to the camera image is {abs(offset) / NANOSECONDS:.2f} s '
                f'{"after" if offset > 0 else "before"} it, so depth is left out; synchronise the clocks of the two '
                'drivers, or see whether depth still comes',
            )
        if abs(offset) > DEPTH_TOLERANCE_NS:
            return None
        self.notify('depth clock', '')
        try:
            depth = self._metres(message, width, height)
        except ConversionError as error:
            self.notify('depth', str(error))
            return None
        return cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)

    def _metres(self, message: DepthMessage, width: int, height: int) -> np.ndarray:
        found = read_depth(message)
        depth = found.metres
        if abs(depth.shape[1] * height / (depth.shape[0] * width) - 1) > 0.02:
            raise ConversionError(
                f'depth image of {depth.shape[1]} x {depth.shape[0]} pixels does not fit the image of '
                f'{width} x {height}; register depth to the colour image'
            )
        self.notify('depth', found.surprise)
        return depth

    def notify(self, subject: str, reason: str) -> None:
        """Tell a reason, unless it was the last one told of that subject; an empty one takes it back."""
        if not reason:
            self._notified.pop(subject, None)
        elif reason != self._notified.get(subject):
            self._notified[subject] = reason
            self._notify(reason)
