"""A tree of frames from ``/tf`` and ``/tf_static``, for environments without tf2_ros."""

from __future__ import annotations

import threading
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Any

import cv2

from cooper_model.placement import RigidTransform
from cooper_ros.readings import NANOSECONDS, stamp_to_ns, transform_from_message

HISTORY_NS = 10 * NANOSECONDS


class NoTransform(LookupError):
    """There is no transform at the time asked for; the text says why.

    :param late: whether messages that are still on their way may bring it
    """

    def __init__(self, text: str, *, late: bool = False) -> None:
        super().__init__(text)
        self.late = late


@dataclass
class _Edge:
    """Transforms from a frame to its parent, in the order of their times [ns]; a static one has no times."""

    parent: str
    static: RigidTransform | None = None
    times: list[int] = field(default_factory=list)
    transforms: list[RigidTransform] = field(default_factory=list)

    def add(self, stamp_ns: int, transform: RigidTransform) -> None:
        if self.times and stamp_ns < self.times[-1] - HISTORY_NS:
            # Time has jumped back, as it does when a bag begins again.
            self.times.clear()
            self.transforms.clear()
        place = bisect_left(self.times, stamp_ns)
        if place < len(self.times) and self.times[place] == stamp_ns:
            self.transforms[place] = transform
            return
        self.times.insert(place, stamp_ns)
        self.transforms.insert(place, transform)
        old = bisect_left(self.times, self.times[-1] - HISTORY_NS)
        del self.times[:old], self.transforms[:old]

    def at(self, stamp_ns: int) -> RigidTransform:
        """Return the transform at a time, between the two around it.

        :raises NoTransform: the time lies before the first or after the last
        """
        if self.static is not None:
            return self.static
        place = bisect_left(self.times, stamp_ns)
        if place < len(self.times) and self.times[place] == stamp_ns:
            return self.transforms[place]
        if place == len(self.times):
            seconds = (stamp_ns - self.times[-1]) / NANOSECONDS
            raise NoTransform(f'the newest transform to {self.parent!r} is {seconds:.3f} s too old', late=True)
        if place == 0:
            seconds = (self.times[0] - stamp_ns) / NANOSECONDS
            raise NoTransform(f'the oldest transform to {self.parent!r} is {seconds:.3f} s too new')
        share = (stamp_ns - self.times[place - 1]) / (self.times[place] - self.times[place - 1])
        return _between(self.transforms[place - 1], self.transforms[place], share)


def _between(one: RigidTransform, other: RigidTransform, share: float) -> RigidTransform:
    """Return the transform a share of the way, at constant speed of turning (spherical linear interpolation)."""
    turn, _ = cv2.Rodrigues(one.rotation.T @ other.rotation)
    part, _ = cv2.Rodrigues(turn * share)
    return RigidTransform(one.rotation @ part, (1 - share) * one.translation + share * other.translation)


class TransformTree:
    """What was heard of the frames in the last ten seconds. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._edges: dict[str, _Edge] = {}

    def add(self, message: Any, *, static: bool) -> None:
        """Take a ``geometry_msgs/TransformStamped``.

        :raises ConversionError: it is no rotation or not finite
        """
        transform = transform_from_message(message.transform)
        child, parent = message.child_frame_id.lstrip('/'), message.header.frame_id.lstrip('/')
        with self._lock:
            edge = self._edges.get(child)
            if edge is None or edge.parent != parent:
                edge = self._edges[child] = _Edge(parent)
            if static:
                edge.static = transform
            else:
                edge.add(stamp_to_ns(message.header.stamp), transform)

    def lookup(self, target: str, source: str, stamp_ns: int) -> RigidTransform:
        """Return the transform that brings points of the frame ``source`` into ``target``.

        :raises NoTransform: the two are not connected at that time
        """
        target, source = target.lstrip('/'), source.lstrip('/')
        with self._lock:
            above_source, above_target = self._ancestry(source), self._ancestry(target)
            common = next((frame for frame in above_source if frame in above_target), None)
            if common is None:
                raise NoTransform(
                    f'nothing on /tf and /tf_static connects {source!r} ({" < ".join(above_source)}) '
                    f'with {target!r} ({" < ".join(above_target)})'
                )
            down = self._up(above_target, common, stamp_ns).inverse()
            return down @ self._up(above_source, common, stamp_ns)

    def _ancestry(self, frame: str) -> list[str]:
        """Return a frame, its parent and so on; a circle ends where it closes."""
        chain = [frame]
        while (edge := self._edges.get(chain[-1])) is not None and edge.parent not in chain:
            chain.append(edge.parent)
        return chain

    def _up(self, chain: list[str], ancestor: str, stamp_ns: int) -> RigidTransform:
        found = RigidTransform.identity()
        for frame in chain[: chain.index(ancestor)]:
            found = self._edges[frame].at(stamp_ns) @ found
        return found
