"""Which way is up for a camera, from recorded transforms."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cooper_ros.harvest.streams import TF
from cooper_ros.readings import rotation_from_message, stamp_to_ns
from cooper_ros.salvage import Bag

# Frames whose z points up, by REP 105 and REP 103, the surest first: a robot's base tilts with it on a ramp.
LEVEL_FRAMES = ('map', 'odom', 'world', 'base_footprint', 'base_link', 'base')
Vector = tuple[float, float, float]


@dataclass
class _Edge:
    """Transforms from a child frame to its parent by time; static ones have time 0."""

    parent: str
    times: list[int] = field(default_factory=list)
    rotations: list[np.ndarray] = field(default_factory=list)

    def at(self, stamp_ns: int) -> np.ndarray:
        return self.rotations[max(0, bisect_right(self.times, stamp_ns) - 1)]


class Gravity:
    """Recorded rotations between frames.

    :param level: frame whose z points up, with or without a robot's prefix (``tb1/odom``); empty takes the first of
        ``LEVEL_FRAMES`` in the camera's ancestry
    """

    def __init__(self, bag: Bag, level: str = '') -> None:
        self._levels = (level,) if level else LEVEL_FRAMES
        self._edges: dict[str, _Edge] = {}
        for topic, _, message in bag.read(kinds=TF):
            for transform in message.transforms:
                self._add(transform, static=topic.endswith('tf_static'))
        for edge in self._edges.values():
            order = np.argsort(edge.times, kind='stable')
            edge.times = [edge.times[i] for i in order]
            edge.rotations = [edge.rotations[i] for i in order]

    def _add(self, transform: Any, *, static: bool) -> None:
        child, parent = transform.child_frame_id.lstrip('/'), transform.header.frame_id.lstrip('/')
        edge = self._edges.setdefault(child, _Edge(parent))
        edge.parent = parent
        edge.times.append(0 if static else stamp_to_ns(transform.header.stamp))
        edge.rotations.append(rotation_from_message(transform.transform.rotation))

    def up(self, frame_id: str, stamp_ns: int) -> tuple[Vector | None, str]:
        """Return the unit vector against gravity in a frame, or None with the reason.

        Of moving frames the last transform before the stamp is taken.
        """
        frame = frame_id.lstrip('/')
        rotations = {frame: np.eye(3)}
        while (edge := self._edges.get(frame)) is not None and edge.parent not in rotations:
            rotations[edge.parent] = edge.at(stamp_ns) @ rotations[frame]
            frame = edge.parent
        named = {name.rpartition('/')[2]: name for name in reversed(rotations)} | {name: name for name in rotations}
        level = next((named[name] for name in self._levels if name in named), None)
        if level is None:
            chain = ' < '.join(rotations)
            return None, f'no transform from {frame_id!r} to a level frame ({chain}); record /tf and /tf_static'
        return tuple(float(value) for value in rotations[level][2]), ''
