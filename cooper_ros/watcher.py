"""Watches a camera and a cooper node from outside: which images went in, what came out, and under which headers."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from cooper_ros.conversions import frame_from_message, stamp_to_ns
from cooper_ros.encodings import colour_from_image
from cooper_ros.topics import INPUTS, OUTPUTS, of_camera

KEPT_INPUTS = 60
INCOMPLETE = 5

Header = tuple[int, str]


@dataclass
class Picture:
    """A camera image and what the node made of it, ``(height, width, 3)`` uint8 RGB each."""

    stamp_ns: int
    camera: np.ndarray | None = None
    depth: np.ndarray | None = None
    overlay: np.ndarray | None = None

    @property
    def complete(self) -> bool:
        """Whether all three have come."""
        return self.camera is not None and self.depth is not None and self.overlay is not None


@dataclass
class Seen:
    """What came by, guarded by the watcher's lock."""

    inputs: OrderedDict[Header, Any] = field(default_factory=OrderedDict)
    input_messages: int = 0
    outputs: Counter[str] = field(default_factory=Counter)
    output_headers: dict[Header, set[str]] = field(default_factory=dict)
    pictures: OrderedDict[int, Picture] = field(default_factory=OrderedDict)
    statuses: dict[str, dict[str, str]] = field(default_factory=dict)
    truths: list[dict[str, Any]] = field(default_factory=list)


class Watcher:
    """Subscribes on ``node`` to the camera's images and to everything that the cooper node publishes.

    :param namespace: in which both are, without a slash at its end; empty for none
    :param compressed: whether the camera publishes compressed images
    :param picture_seconds: a set of pictures is kept every so often
    :param camera: name of the camera that is watched, of a node with several
    """

    def __init__(
        self, node: Node, namespace: str, compressed: bool, picture_seconds: float, camera: str = ''
    ) -> None:
        self._lock = threading.Lock()
        self._seen = Seen()
        self._picture_seconds = picture_seconds
        self._picture_due = 0.0
        self._prefix = f'{namespace}/'.lstrip('/')
        # Reliable and deep: what is missed here could not be checked.
        deep = QoSProfile(depth=100)
        kind, ending = (CompressedImage, '/compressed') if compressed else (Image, '')
        topic = of_camera(f'{INPUTS["image"]}{ending}', camera)
        node.create_subscription(kind, f'{namespace}/{topic}', self._on_input, deep)
        for name, output in OUTPUTS.items():
            published = f'{namespace}/cooper/{of_camera(name, camera)}'
            node.create_subscription(output, published, self._listener(name), deep)
        node.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, deep)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        node.create_subscription(String, f'{namespace}/{of_camera("camera/truth", camera)}', self._on_truth, latched)

    # What is asked of it

    @property
    def output_counts(self) -> dict[str, int]:
        """Messages by topic."""
        with self._lock:
            return {name: self._seen.outputs[name] for name in OUTPUTS}

    @property
    def input_count(self) -> int:
        """Images of different headers that the camera published."""
        with self._lock:
            return len(self._seen.inputs)

    def newest_stamp(self) -> int:
        """Return the stamp of the newest camera image [ns], 0 where none came."""
        with self._lock:
            return next(reversed(self._seen.inputs))[0] if self._seen.inputs else 0

    def foreign_headers(self) -> dict[Header, set[str]]:
        """Return the headers of published messages that no camera image had, with their topics."""
        with self._lock:
            seen = self._seen
            return {header: set(names) for header, names in seen.output_headers.items() if header not in seen.inputs}

    def perceived_headers(self) -> int:
        """Return the number of different camera images that something was published about."""
        with self._lock:
            return len(self._seen.output_headers)

    def status(self, name: str) -> dict[str, str]:
        """Return the newest diagnostics of a status such as ``cooper: model``, with level and message; or nothing."""
        with self._lock:
            return dict(self._seen.statuses.get(self._prefix + name, {}))

    def truth_at(self, stamp_ns: int) -> dict[str, Any] | None:
        """Return what is true of the simulated scene that a camera image of this stamp shows."""
        with self._lock:
            before = [truth for truth in self._seen.truths if truth['stamp_ns'] <= stamp_ns]
        return max(before, key=lambda truth: truth['stamp_ns'])['scene'] if before else None

    def pictures(self) -> list[Picture]:
        """Return the kept pictures in order."""
        with self._lock:
            return [picture for picture in self._seen.pictures.values() if picture.complete]

    def camera_image(self, stamp_ns: int) -> np.ndarray | None:
        """Return the camera image of a stamp as RGB; None where it is not kept any more."""
        with self._lock:
            messages = [message for (stamp, _), message in self._seen.inputs.items() if stamp == stamp_ns]
        return frame_from_message(messages[-1]).image if messages and messages[-1] is not None else None

    def wait_for(self, condition: Callable[[], Any], timeout: float, alive: Callable[[], None]) -> bool:
        """Wait until ``condition()`` is true, calling ``alive`` now and then; return whether it became true."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                return False
            alive()
            time.sleep(0.05)
        return True

    # What it hears

    def _on_input(self, message: Any) -> None:
        with self._lock:
            seen = self._seen
            seen.input_messages += 1
            seen.inputs[_header(message)] = message
            # Headers stay; of the images themselves only the newest.
            if len(seen.inputs) > KEPT_INPUTS:
                seen.inputs[list(seen.inputs)[-KEPT_INPUTS - 1]] = None

    def _listener(self, name: str) -> Callable[[Any], None]:
        def hear(message: Any) -> None:
            markers = message.markers if name == 'markers' else None
            holder = message if markers is None else next(iter(markers), None)
            with self._lock:
                self._seen.outputs[name] += 1
                # An empty array of markers has no header.
                if holder is not None:
                    self._seen.output_headers.setdefault(_header(holder), set()).add(name)
            if name in ('depth/color', 'segmentation/overlay'):
                self._keep_picture(name, message)

        return hear

    def _keep_picture(self, name: str, message: Image) -> None:
        """Collect the pictures of a frame; once one frame is complete, wait for the next to be due."""
        stamp = stamp_to_ns(message.header.stamp)
        kept = self._seen.pictures
        if stamp not in kept:
            if time.monotonic() < self._picture_due:
                return
            with self._lock:
                kept[stamp] = Picture(stamp)
                for other in [other for other, picture in kept.items() if not picture.complete][:-INCOMPLETE]:
                    del kept[other]
        picture = kept[stamp]
        if name == 'depth/color':
            picture.depth = colour_from_image(message)
        else:
            picture.overlay = colour_from_image(message)
        if picture.camera is None:
            picture.camera = self.camera_image(stamp)
        if picture.complete:
            self._picture_due = time.monotonic() + self._picture_seconds

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        with self._lock:
            for status in message.status:
                values = {pair.key: pair.value for pair in status.values}
                level = int.from_bytes(status.level, 'little')
                self._seen.statuses[status.name] = {**values, 'level': str(level), 'message': status.message}

    def _on_truth(self, message: String) -> None:
        with self._lock:
            self._seen.truths.append(json.loads(message.data))


def _header(message: Any) -> Header:
    return stamp_to_ns(message.header.stamp), message.header.frame_id
