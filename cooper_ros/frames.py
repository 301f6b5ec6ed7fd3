"""Recent camera messages, and the frame that a request means.

Messages are only stored when they arrive; they are decoded when somebody needs them. So a camera may be faster than the
model, and the newest frame always wins.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from cooper_model.types import CameraIntrinsics, Frame
from cooper_ros.conversions import NANOSECONDS, frame_from_message, intrinsics_from_message, stamp_to_ns
from cooper_ros.encodings import ConversionError, depth_from_image

HISTORY = 30
HISTORY_BYTES = 256 * 1024 * 1024
STAMP_TOLERANCE_NS = NANOSECONDS // 10
DEPTH_TOLERANCE_NS = NANOSECONDS // 20


class NoFrame(LookupError):
    """There is no frame to work on; the text says why and what to do."""


@dataclass
class Received:
    """A camera message as it came, and when (monotonic clock [s])."""

    message: Any
    arrival: float
    used: bool = False

    @property
    def stamp_ns(self) -> int:
        return stamp_to_ns(self.message.header.stamp)


@dataclass(frozen=True)
class FrameCounts:
    """How many frames arrived, and what became of them: ``received = used + dropped + (1 if one waits)``.

    :ivar undecodable: of those used, how many could not be decoded
    :ivar lost: how many the middleware lost before they arrived, where it can tell
    """

    received: int = 0
    used: int = 0
    dropped: int = 0
    undecodable: int = 0
    lost: int = 0


class FrameStore:
    """A short history of images, the camera's calibration, and depth images where there are any. Thread-safe.

    :ivar last_error: why the last undecodable frame could not be decoded

    :param image_topic, info_topic: where the messages come from, to be named in errors
    :param notify: told, once a change, why calibration or depth cannot be used
    :param clock: monotonic seconds
    """

    def __init__(
        self,
        image_topic: str,
        info_topic: str,
        notify: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.image_topic = image_topic
        self._info_topic = info_topic
        self._notify = notify
        self._clock = clock
        self._lock = threading.Lock()
        self._images: deque[Received] = deque(maxlen=HISTORY)
        self._depths: deque[Image] = deque(maxlen=HISTORY)
        self._info: CameraInfo | None = None
        self._counts = FrameCounts()
        self.last_error = ''
        self._notified: dict[str, str] = {}

    def add_image(self, message: Any) -> None:
        """Store an ``Image`` or ``CompressedImage``."""
        with self._lock:
            self._drop_waiting()
            self._counts = replace(self._counts, received=self._counts.received + 1)
            self._images.append(Received(message, self._clock()))
            _trim(self._images, lambda item: len(item.message.data))

    def add_depth(self, message: Image) -> None:
        """Store a depth image registered to the colour image."""
        with self._lock:
            self._depths.append(message)
            _trim(self._depths, lambda item: len(item.data))

    def add_camera_info(self, message: CameraInfo) -> None:
        """Store the calibration."""
        self._info = message

    def clear(self) -> None:
        """Forget all messages, but not the counts."""
        with self._lock:
            self._drop_waiting()
            self._images.clear()
            self._depths.clear()
            self._info = None

    def add_lost(self, count: int) -> None:
        """Count images that never arrived."""
        with self._lock:
            self._counts = replace(self._counts, lost=self._counts.lost + count)

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames so far."""
        return self._counts

    @property
    def camera_info(self) -> CameraInfo | None:
        """The newest calibration message."""
        return self._info

    def age(self) -> float | None:
        """Return the seconds since the newest frame arrived, None where there is none."""
        with self._lock:
            return self._clock() - self._images[-1].arrival if self._images else None

    def newest(self, max_age: float = 0.0) -> Frame:
        """Return the newest frame.

        :param max_age: oldest that it may be [s]; 0 takes any
        :raises NoFrame: none came, or it is too old
        :raises ConversionError: it cannot be decoded
        """
        with self._lock:
            if not self._images:
                raise NoFrame(
                    f'no camera image on {self.image_topic} yet; start a camera, or remap image_raw to its topic'
                )
            item = self._images[-1]
        age = self._clock() - item.arrival
        if 0 < max_age < age:
            raise NoFrame(
                f'the newest image on {self.image_topic} is {age:.1f} s old, more than max_image_age {max_age:g} s; '
                'check the camera, or raise max_image_age'
            )
        return self._take(item)

    def at(self, stamp_ns: int) -> Frame:
        """Return the frame whose stamp is nearest to ``stamp_ns``.

        :raises NoFrame: no frame is within 0.1 s
        :raises ConversionError: it cannot be decoded
        """
        with self._lock:
            item = min(self._images, key=lambda each: abs(each.stamp_ns - stamp_ns), default=None)
            count = len(self._images)
        if item is None:
            raise NoFrame(
                f'no camera image on {self.image_topic} yet, so none with stamp {stamp_ns / NANOSECONDS:.3f}; '
                'start a camera, or remap image_raw to its topic'
            )
        offset = (stamp_ns - item.stamp_ns) / NANOSECONDS
        if abs(offset) > STAMP_TOLERANCE_NS / NANOSECONDS:
            raise NoFrame(
                f'no image with stamp {stamp_ns / NANOSECONDS:.3f}: the nearest of the last {count} is '
                f'{abs(offset):.3f} s {"before" if offset > 0 else "after"} it; '
                'name one of the recent frames, or leave stamp zero for the newest'
            )
        return self._take(item)

    def attach(self, message: Image) -> Frame:
        """Return the frame of an image that came with a request.

        It has the camera's intrinsics only if it names the camera's frame and has the camera's size.

        :raises ConversionError: it cannot be decoded
        """
        info = self._info
        same = (
            info is not None
            and message.header.frame_id == info.header.frame_id != ''
            and (message.width, message.height) == (info.width, info.height)
        )
        return frame_from_message(message, self._intrinsics(message.width, message.height) if same else None)

    def _drop_waiting(self) -> None:
        if self._images and not self._images[-1].used:
            self._counts = replace(self._counts, dropped=self._counts.dropped + 1)

    def _take(self, item: Received) -> Frame:
        with self._lock:
            if not item.used:
                item.used = True
                counts = self._counts
                late = item is not (self._images[-1] if self._images else None)
                self._counts = replace(counts, used=counts.used + 1, dropped=counts.dropped - late)
        try:
            frame = frame_from_message(item.message)
        except ConversionError as error:
            with self._lock:
                self._counts = replace(self._counts, undecodable=self._counts.undecodable + 1)
                self.last_error = str(error)
            raise
        if not frame.frame_id:
            reason = 'images have no header.frame_id, so clouds and markers have no place; set it in the camera driver'
            self._notify_once('frame_id', reason)
        height, width = frame.image.shape[:2]
        return replace(frame, intrinsics=self._intrinsics(width, height), depth=self._depth(item, width, height))

    def _intrinsics(self, width: int, height: int) -> CameraIntrinsics | None:
        if self._info is None:
            reason = f'no message on {self._info_topic}, so objects have no metres; remap camera_info'
            self._notify_once('camera_info', reason)
            return None
        try:
            intrinsics = intrinsics_from_message(self._info, width, height)
        except ValueError as error:
            self._notify_once('camera_info', str(error))
            return None
        self._notified.pop('camera_info', None)
        return intrinsics

    def _depth(self, item: Received, width: int, height: int) -> np.ndarray | None:
        stamp = item.stamp_ns
        with self._lock:
            message = min(self._depths, key=lambda each: abs(stamp_to_ns(each.header.stamp) - stamp), default=None)
        if message is None or abs(stamp_to_ns(message.header.stamp) - stamp) > DEPTH_TOLERANCE_NS:
            return None
        try:
            depth = depth_from_image(message)
        except ConversionError as error:
            self._notify_once('depth', str(error))
            return None
        if abs(depth.shape[1] * height / (depth.shape[0] * width) - 1) > 0.02:
            self._notify_once(
                'depth',
                f'depth image of {depth.shape[1]} x {depth.shape[0]} pixels does not fit the image of '
                f'{width} x {height}; register depth to the colour image',
            )
            return None
        return cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST)

    def _notify_once(self, subject: str, reason: str) -> None:
        if reason != self._notified.get(subject):
            self._notified[subject] = reason
            self._notify(reason)


def _trim(messages: deque[Any], size: Callable[[Any], int]) -> None:
    """Drop the oldest messages while all of them together are too large."""
    total = sum(size(message) for message in messages)
    while len(messages) > 1 and total > HISTORY_BYTES:
        total -= size(messages.popleft())
