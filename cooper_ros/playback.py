"""Plays sources at their pace into an outlet of camera messages: recorded ones as they are, pictures stamped now."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from cooper_ros.camera_parameters import CameraParameters
from cooper_ros.recorded import camera_info_message, compressed_message, header_message, image_message
from cooper_ros.sources import Prefetch, Shot, SourceKind, shots_of

if TYPE_CHECKING:
    from cooper_ros.bags import CameraBag, Recorded

REPUBLISH_SECONDS = 0.5
LOOP_SECONDS = 0.1


class Outlet(Protocol):
    """Where messages go."""

    def publish(self, role: str, message: Any) -> None:
        """Send a message of role image, camera_info or depth."""

    def publish_shot(self, shot: Shot, *, new: bool) -> None:
        """Send a picture stamped now. ``new`` is False where the same shot was sent before."""

    def wait_for_subscribers(self, compressed: bool) -> None:
        """Return when as many subscribe as asked for."""

    def report(self, state: str) -> None:
        """Tell what the player is doing."""


@dataclass(frozen=True)
class BagPlayer:
    """Plays a bag at its recorded pace."""

    bag: CameraBag
    parameters: CameraParameters
    outlet: Outlet
    stop: threading.Event

    def play(self) -> None:
        """Play to the end, again and again where asked to loop, then hold the last image where asked to.

        :raises BagError: the bag is damaged further on
        """
        self.outlet.wait_for_subscribers(self.bag.topics.image.compressed)
        newest: dict[str, Any] = {}
        while True:
            self.outlet.report('playing')
            self._play_once(newest)
            # Without a pause, a bag of a single image would be published as fast as the machine can.
            if not self.parameters.loop or self.stop.wait(LOOP_SECONDS):
                break
        if self.parameters.hold_last and 'image' in newest:
            self._hold(newest)

    def _play_once(self, newest: dict[str, Any]) -> None:
        start, first_ns, timeless = time.monotonic(), None, None
        for recorded in self.bag.messages():
            if recorded.role == 'camera_info' and _is_timeless(recorded):
                timeless = recorded.message
                continue
            if recorded.role == 'depth' and not self.parameters.publish_depth:
                continue
            first_ns = recorded.time_ns if first_ns is None else first_ns
            due = start + (recorded.time_ns - first_ns) / 1e9 / self.parameters.speed
            if self.stop.wait(max(0.0, due - time.monotonic())):
                return
            if recorded.role == 'image' and timeless is not None:
                header = header_message(recorded.message.header)
                newest['camera_info'] = camera_info_message(timeless, header)
                self.outlet.publish('camera_info', newest['camera_info'])
            newest[recorded.role] = _converted(recorded)
            self.outlet.publish(recorded.role, newest[recorded.role])

    def _hold(self, newest: dict[str, Any]) -> None:
        """Publish the last messages again and again with their own stamps, for whoever comes late."""
        self.outlet.report('holding the last image')
        while not self.stop.wait(REPUBLISH_SECONDS):
            for role in ('depth', 'camera_info', 'image'):
                if role in newest:
                    self.outlet.publish(role, newest[role])


def _is_timeless(recorded: Recorded) -> bool:
    """Whether a camera info was written once, ahead of the images and with no time of its own (RealSense SDK)."""
    stamp = recorded.message.header.stamp
    return stamp.sec == 0 and stamp.nanosec == 0


def _converted(recorded: Recorded) -> Any:
    message = recorded.message
    if recorded.role == 'camera_info':
        return camera_info_message(message, header_message(message.header))
    if hasattr(message, 'format'):
        return compressed_message(message)
    return image_message(message)


@dataclass(frozen=True)
class ShotPlayer:
    """Plays pictures: each simulated scene for a while at the camera's rate, videos and folders picture by picture."""

    kind: SourceKind
    parameters: CameraParameters
    outlet: Outlet
    stop: threading.Event

    def play(self) -> None:
        """Play to the end, then hold the last picture where asked to.

        :raises SourceError: the source cannot be read
        """
        shots = Prefetch(self._make)
        try:
            last = next(shots)
            self.outlet.wait_for_subscribers(False)
            self.outlet.report('playing')
            due = self._show(last, time.monotonic())
            for last in shots:
                if self.stop.is_set():
                    return
                due = self._show(last, due)
            if self.parameters.hold_last:
                self.outlet.report('holding the last image')
                while not self.stop.wait(REPUBLISH_SECONDS):
                    self.outlet.publish_shot(last, new=False)
        finally:
            shots.close()

    def _show(self, shot: Shot, due: float) -> float:
        """Publish ``shot`` from the time ``due`` on for as long as it lasts; return when the next is due."""
        pause = 1 / self.parameters.rate if self.kind == 'sim' else shot.seconds / self.parameters.speed
        times = max(1, round(shot.seconds / pause)) if self.kind == 'sim' else 1
        shown = 0
        while shown < times:
            # A stall (a slow renderer) must not be followed by a burst.
            due = max(due, time.monotonic() - pause)
            if self.stop.wait(max(0.0, due - time.monotonic())):
                break
            self.outlet.publish_shot(shot, new=shown == 0)
            shown += 1
            due += pause
        return due

    def _make(self) -> Iterator[Shot]:
        wanted = self.parameters
        if self.kind == 'sim':
            # MuJoCo is needed for this source alone.
            from cooper_ros.simulation import simulated_shots

            yield from simulated_shots(wanted)
            return
        while True:
            yield from shots_of(self.kind, Path(wanted.source), 1 / wanted.rate, wanted.vertical_fov)
            if not wanted.loop:
                return
