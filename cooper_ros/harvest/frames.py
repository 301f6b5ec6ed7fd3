"""New frames of a bag with all that belongs to them, matched by their stamps."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from cooper_model.types import CameraIntrinsics, Frame
from cooper_ros.bags import ImageTopic
from cooper_ros.encodings import ConversionError, colour_from_compressed, colour_from_image, labels_from_image
from cooper_ros.harvest.gravity import Gravity, Vector
from cooper_ros.harvest.novelty import DEFAULT, Novelty
from cooper_ros.harvest.pixels import read_depth
from cooper_ros.harvest.report import BagReport
from cooper_ros.harvest.streams import Streams, Wanted
from cooper_ros.readings import NANOSECONDS, intrinsics_from_message, stamp_to_ns
from cooper_ros.salvage import Bag

SAME_SHAPE = 0.02


@dataclass(frozen=True)
class Options:
    """What to take of a bag.

    :param novelty: see :class:`cooper_ros.harvest.novelty.Novelty`
    :param tolerance: largest distance in time of depth or mask from their image [s]
    :param level: frame whose z points up; empty searches
    :param useless: stamps of frames that nothing is to be learned from [ns]
    """

    wanted: Wanted = field(default_factory=Wanted)
    novelty: float = DEFAULT
    tolerance: float = 0.05
    level: str = ''
    useless: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Harvested:
    """One frame.

    :param frame: with measured depth and camera where there are such
    :param mask: ``(height, width)`` int32 of the mask topic
    :param classes: the same of the class topic, beside a mask of instances
    :param up: unit vector against gravity in the optical frame
    """

    frame: Frame
    mask: np.ndarray | None
    classes: np.ndarray | None
    up: Vector | None


@dataclass(frozen=True)
class _Moment:
    """When a message was stamped and recorded [ns]."""

    stamp: int
    logged: int


class Harvest:
    """Reads one bag.

    :param novelty: what was chosen before, from this bag and others
    """

    def __init__(
        self, bag: Bag, streams: Streams, options: Options, novelty: Novelty, report: BagReport
    ) -> None:
        self._bag, self._streams, self._options = bag, streams, options
        self._novelty, self._report = novelty, report
        self._gravity = Gravity(bag, options.level)
        self._infos = [message for _, _, message in bag.read((streams.camera_info,))] if streams.camera_info else []
        report.camera, report.tolerance = streams.camera, options.tolerance
        roles = {'image': streams.image, 'depth': streams.depth, 'mask': streams.mask, 'classes': streams.classes}
        self._roles = {role: topic for role, topic in roles.items() if topic is not None}
        report.topics = {role: topic.name for role, topic in self._roles.items()}
        report.topics.update({'camera_info': streams.camera_info} if streams.camera_info else {})
        report.unused = streams.unused

    def frames(self) -> Iterator[Harvested]:
        """Yield the frames that show something new, in the order of the bag."""
        chosen, delays = self._choose()
        moments = {role: self._moments(topic) for role, topic in self._roles.items() if role != 'image'}
        for role, found in moments.items():
            if found:
                delays[self._roles[role].name] = _delay(found)
        self._report.check_clocks(delays)
        parts = {image: self._match(image, moments) for image in chosen}
        self._tell_offsets(parts)
        yield from self._assemble(parts)
        self._report.problem(self._bag.damage)

    def _choose(self) -> tuple[list[_Moment], dict[str, float]]:
        """Return the images that are new, and how late images were recorded."""
        chosen, moments = [], []
        for _, logged, message in self._bag.read((self._streams.image.name,)):
            self._report.counts['images'] += 1
            moment = _Moment(stamp_to_ns(message.header.stamp), logged)
            moments.append(moment)
            try:
                image = _colours(message)
            except ConversionError as error:
                self._report.left_out[f'image: {error}'] += 1
                continue
            if moment.stamp in self._options.useless:
                self._report.left_out['called useless by a person'] += 1
            elif self._novelty.choose(image):
                chosen.append(moment)
            else:
                self._report.left_out['shows nothing new'] += 1
        self._report.counts['chosen'] += len(chosen)
        return chosen, {self._streams.image.name: _delay(moments)} if moments else {}

    def _moments(self, topic: ImageTopic) -> list[_Moment]:
        found = [
            _Moment(stamp_to_ns(message.header.stamp), logged) for _, logged, message in self._bag.read((topic.name,))
        ]
        return sorted(found, key=lambda moment: moment.stamp)

    def _match(self, image: _Moment, moments: dict[str, list[_Moment]]) -> dict[str, _Moment]:
        """Return the moments of the messages that belong to an image, by role."""
        found = {'image': image}
        for role, candidates in moments.items():
            place = bisect_left([each.stamp for each in candidates], image.stamp)
            near = candidates[max(0, place - 1) : place + 1]
            best = min(near, key=lambda each: abs(each.stamp - image.stamp), default=None)
            if best is None:
                self._report.left_out[f'{role}: no messages'] += 1
            elif abs(best.stamp - image.stamp) > self._options.tolerance * NANOSECONDS:
                self._report.left_out[f'{role}: none within the tolerance of {self._options.tolerance:g} s'] += 1
                self._report.counts[f'{role} missed by at least [ms]'] = max(
                    self._report.counts[f'{role} missed by at least [ms]'], abs(best.stamp - image.stamp) // 1_000_000
                )
            else:
                found[role] = best
        return found

    def _tell_offsets(self, parts: dict[_Moment, dict[str, _Moment]]) -> None:
        for role in self._roles:
            pairs = [(found[role].stamp - image.stamp) / NANOSECONDS for image, found in parts.items() if role in found]
            if role != 'image':
                self._report.add_offsets(role, pairs)

    def _assemble(self, parts: dict[_Moment, dict[str, _Moment]]) -> Iterator[Harvested]:
        """Read the matched messages in one pass and yield each frame when the last of its parts has come."""
        users: dict[tuple[str, int], list[tuple[_Moment, str]]] = {}
        for image, found in parts.items():
            for role, moment in found.items():
                users.setdefault((self._roles[role].name, moment.logged), []).append((image, role))
        held: dict[_Moment, dict[str, Any]] = {}
        for topic, logged, message in self._bag.read([each.name for each in self._roles.values()]):
            for image, role in users.pop((topic, logged), []):
                have = held.setdefault(image, {})
                have[role] = message
                if len(have) == len(parts[image]):
                    yield self._frame(held.pop(image))
        for have in held.values():
            if 'image' in have:
                yield self._frame(have)

    def _frame(self, messages: dict[str, Any]) -> Harvested:
        message = messages['image']
        image = _colours(message)
        size, header = image.shape[:2], message.header
        stamp = stamp_to_ns(header.stamp)
        depth = self._part('depth', messages, size)
        mask, classes = (self._part(role, messages, size) for role in ('mask', 'classes'))
        up, reason = self._gravity.up(header.frame_id, stamp)
        if up is None:
            self._report.left_out[f'up: {reason}'] += 1
        frame = Frame(image, self._intrinsics(stamp, *size), depth, stamp, header.frame_id)
        for name, value in (('depth', depth), ('mask', mask), ('camera', frame.intrinsics), ('up', up)):
            self._report.counts[f'with {name}'] += value is not None
        return Harvested(frame, mask, classes, up)

    def _part(self, role: str, messages: dict[str, Any], size: tuple[int, int]) -> np.ndarray | None:
        if role not in messages:
            return None
        try:
            if role == 'depth':
                depth = read_depth(messages[role])
                self._report.problem(depth.surprise and f'{self._roles[role].name}: {depth.surprise}')
                return _fitted(depth.metres, size, role)
            return _fitted(labels_from_image(messages[role]), size, role)
        except ConversionError as error:
            self._report.left_out[f'{role}: {error}'] += 1
            return None

    def _intrinsics(self, stamp: int, height: int, width: int) -> CameraIntrinsics | None:
        if not self._infos:
            self._report.left_out['camera: no camera_info'] += 1
            return None
        info = min(self._infos, key=lambda each: abs(stamp_to_ns(each.header.stamp) - stamp))
        try:
            return intrinsics_from_message(info, width, height)
        except ConversionError as error:
            self._report.left_out[f'camera: {error}'] += 1
            return None


def _colours(message: Any) -> np.ndarray:
    return colour_from_compressed(message) if hasattr(message, 'format') else colour_from_image(message)


def _fitted(pixels: np.ndarray, size: tuple[int, int], role: str) -> np.ndarray:
    """Return a map at the size of the image.

    :raises ConversionError: the two have different proportions
    """
    height, width = size
    if abs(pixels.shape[1] * height / (pixels.shape[0] * width) - 1) > SAME_SHAPE:
        raise ConversionError(
            f'{pixels.shape[1]} x {pixels.shape[0]} pixels do not fit the image of {width} x {height}; '
            f'register {role} to the image'
        )
    if pixels.shape == size:
        return pixels
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_NEAREST)


def _delay(moments: list[_Moment]) -> float:
    return float(np.median([each.logged - each.stamp for each in moments])) / NANOSECONDS
