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

from sensor_msgs.msg import CameraInfo, Image

from cooper_model.types import Frame
from cooper_ros.companions import Companions
from cooper_ros.conversions import NANOSECONDS, frame_from_message, stamp_to_ns
from cooper_ros.encodings import ConversionError

HISTORY = 30
HISTORY_BYTES = 256 * 1024 * 1024
STAMP_TOLERANCE_NS = NANOSECONDS // 10


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
        self.companions = Companions(info_topic, notify)
        self._clock = clock
        self._lock = threading.Lock()
        self._images: deque[Received] = deque(maxlen=HISTORY)
        self._counts = FrameCounts()
        self.last_error = ''

    def add_image(self, message: Any) -> None:
        """Store an ``Image`` or ``CompressedImage``."""
        with self._lock:
            self._drop_waiting()
            self._counts = replace(self._counts, received=self._counts.received + 1)
            self._images.append(Received(message, self._clock()))
            self._trim()

    def add_camera_info(self, message: CameraInfo) -> None:
        """Store the calibration."""
        self.companions.camera_info = message

    def clear(self) -> None:
        """Forget all messages, but not the counts."""
        with self._lock:
            self._drop_waiting()
            self._images.clear()
        self.companions.clear()

    def add_lost(self, count: int) -> None:
        """Count images that never arrived."""
        with self._lock:
            self._counts = replace(self._counts, lost=self._counts.lost + count)

    @property
    def counts(self) -> FrameCounts:
        """What became of the frames so far."""
        return self._counts

    def age(self) -> float | None:
        """Return the seconds since the newest frame arrived, None where there is none."""
        with self._lock:
            return self._clock() - self._images[-1].arrival if self._images else None

    def delay(self, now_ns: int) -> float | None:
        """Return the seconds between the stamp of the newest frame and its arrival, None where there is none.

        :param now_ns: the time on the clock of this node
        """
        with self._lock:
            if not self._images:
                return None
            newest = self._images[-1]
            return (now_ns - newest.stamp_ns) / NANOSECONDS - (self._clock() - newest.arrival)

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
        info = self.companions.camera_info
        same = (
            info is not None
            and message.header.frame_id == info.header.frame_id != ''
            and (message.width, message.height) == (info.width, info.height)
        )
        return frame_from_message(message, self.companions.intrinsics(message.width, message.height) if same else None)

    def _trim(self) -> None:
        total = sum(len(item.message.data) for item in self._images)
        while len(self._images) > 1 and total > HISTORY_BYTES:
            total -= len(self._images.popleft().message.data)

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
        reason = 'images have no header.frame_id, so clouds and markers have no place; set it in the camera driver'
        self.companions.notify('frame_id', '' if frame.frame_id else reason)
        height, width = frame.image.shape[:2]
        depth = self.companions.depth(frame.stamp_ns, width, height)
        return replace(frame, intrinsics=self.companions.intrinsics(width, height), depth=depth)
