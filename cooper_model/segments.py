"""From the colours of a segmentation picture to classes and instances.

Every pixel takes the nearest colour of the code, once with its neighbours' votes, so that noise does not
speckle; a pixel that has exactly a code's colour never changes. Connected pixels of one class and one blue
level form a part. Where blue tells the place of an instance, a part that lies elsewhere than its blue says is
a piece of a larger instance (something stands before it), and parts whose blues lean towards each other are
one instance that the model drew across the border of two levels.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from cooper_model.config import ColourCodeConfig

_PLACE_TOLERANCE = 0.25
_LEAN = 0.4


@dataclass
class _Part:
    """Connected pixels of one class and level. ``lean`` is the mean blue less the level's blue."""

    kind: int
    level: int
    area: float
    sum_x: float
    lean: float
    owner: int


@lru_cache(maxsize=8)
def _class_costs(code: ColourCodeConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nearest class, confidence and costs of every ``red * 256 + green``, computed once a code."""
    centers = np.asarray([*code.red_green, code.background], np.float32)
    if len(centers) == 1:
        return np.zeros(65536, np.uint8), np.ones(65536, np.float32), np.zeros((65536, 1), np.float32)
    red_green = np.stack(np.divmod(np.arange(65536), 256), axis=1).astype(np.float32)
    squared = ((red_green[:, None] - centers) ** 2).sum(-1)
    two = np.sqrt(np.partition(squared, 1, axis=1)[:, :2])
    between = ((centers[:, None] - centers) ** 2).sum(-1) + np.diag(np.full(len(centers), np.inf))
    confidence = (two[:, 1] - two[:, 0]) / np.maximum(two.sum(1), 1e-6)
    return squared.argmin(1).astype(np.uint8), confidence, squared / max(float(between.min()), 1.0)


@lru_cache(maxsize=8)
def _level_costs(blue: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest level and the costs of every value of blue."""
    levels = np.asarray(blue, np.float32)
    squared = (np.arange(256, dtype=np.float32)[:, None] - levels) ** 2
    return squared.argmin(1).astype(np.uint8), squared / max(float(np.diff(np.sort(levels)).min()), 1.0) ** 2


def nearest_class(colours: np.ndarray, code: ColourCodeConfig) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's class index (``len(code.names)`` is background) and confidence, ``(h, w)`` each.

    Confidence is the margin between the nearest and the second nearest colour: 1 on a colour of the code, 0
    halfway.

    :param colours: ``(h, w, 3)`` uint8
    """
    nearest, confidence, costs = _class_costs(code)
    index = colours[..., 0].astype(np.int32) * 256 + colours[..., 1]
    return _vote(nearest[index], costs, index), confidence[index]


def label_instances(
    kinds: np.ndarray, blue: np.ndarray, code: ColourCodeConfig, min_area: int, by_place: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return class labels ``(h, w)`` and instance numbers ``(h, w)``, 0 where there is no object.

    :param kinds: ``(h, w)`` uint8 class index, ``len(code.names)`` for background
    :param blue: ``(h, w)`` uint8
    :param by_place: whether blue tells the place of an instance; otherwise one class and blue is one instance
    """
    background = len(code.names)
    levels = np.asarray(code.blue or (0,), np.float32)
    level = np.zeros_like(kinds)
    if len(levels) > 1:
        nearest, costs = _level_costs(code.blue)
        level = _vote(nearest[blue], costs, blue)
    parts_map, parts = _parts(kinds, level, background, len(levels), min_area)
    _measure(parts_map, parts, blue, levels)
    if by_place:
        _join_by_place(parts_map, parts, levels)
    else:
        _join_equal(parts)
    objects = sorted(
        {part.owner for part in parts if part.kind != background},
        key=lambda i: (parts[i].kind, parts[i].sum_x / parts[i].area),
    )
    number = {owner: n for n, owner in enumerate(objects, 1)}
    table = np.asarray([0, *(number.get(part.owner, 0) for part in parts)])
    kind_of = np.asarray([background, *(parts[owner].kind for owner in objects)])
    instances = table[parts_map]
    return kind_of[instances], instances


def _vote(choice: np.ndarray, costs: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the choice ``(h, w)`` uint8 after one round of votes of the eight neighbours.

    A colour as far away as the code's closest two are apart (cost 1) outweighs all eight votes, so that only
    what is neither on a colour of the code nor among its like need be looked at.

    :param costs: ``(colours, choices)``, indexed by ``index`` of shape ``(h, w)``
    """
    cross = np.ones((3, 3), np.uint8)
    open_ = cv2.dilate(choice, cross) != cv2.erode(choice, cross)
    rows, columns = np.nonzero(open_)
    if not len(rows):
        return choice
    padded = cv2.copyMakeBorder(choice, 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    count = costs.shape[1]
    first = np.arange(len(rows)) * count
    ballots = [
        first + padded[rows + dy, columns + dx] for dy in range(3) for dx in range(3) if (dy, dx) != (1, 1)
    ]
    votes = np.bincount(np.concatenate(ballots), minlength=len(rows) * count).reshape(-1, count)
    voted = choice.copy()
    voted[rows, columns] = (costs[index[rows, columns]] * np.float32(8) - votes).argmin(1)
    return voted


def _parts(
    kinds: np.ndarray, level: np.ndarray, background: int, levels: int, min_area: int
) -> tuple[np.ndarray, list[_Part]]:
    """Cut into parts; too small ones fall to what is around them. Part ``i`` is ``i + 1`` in the map."""
    keys = np.where(kinds == background, 0, level).astype(np.uint16)
    keys += kinds.astype(np.uint16) * np.uint16(levels)
    counts = np.bincount(keys.ravel())
    parts_map = np.zeros(keys.shape, np.uint16)
    parts: list[_Part] = []
    for key in np.flatnonzero(counts >= min_area).tolist():
        mask = (keys == key).view(np.uint8)
        left, top, width, height = cv2.boundingRect(mask)
        window = np.s_[top : top + height, left : left + width]
        count, numbered, stats, _ = cv2.connectedComponentsWithStats(mask[window], connectivity=8)
        table = np.zeros(count, np.uint16)
        for number in range(1, count):
            if stats[number, cv2.CC_STAT_AREA] >= min_area:
                parts.append(_Part(key // levels, key % levels, 0.0, 0.0, 0.0, len(parts)))
                table[number] = len(parts)
        parts_map[window] += table[numbered]
    for _ in range(min_area if parts else 0):
        holes = parts_map == 0
        if not holes.any():
            break
        np.copyto(parts_map, cv2.dilate(parts_map, np.ones((3, 3), np.uint8)), where=holes)
    return parts_map, parts


def _measure(parts_map: np.ndarray, parts: list[_Part], blue: np.ndarray, levels: np.ndarray) -> None:
    flat = parts_map.ravel()
    columns = np.broadcast_to((np.arange(blue.shape[1]) + 0.5) / blue.shape[1], blue.shape).ravel()
    area = np.bincount(flat, minlength=len(parts) + 1)
    sum_x = np.bincount(flat, columns, minlength=len(parts) + 1)
    sum_blue = np.bincount(flat, blue.ravel(), minlength=len(parts) + 1)
    for i, part in enumerate(parts, 1):
        part.area, part.sum_x = float(area[i]), float(sum_x[i])
        part.lean = float(sum_blue[i] / area[i] - levels[part.level])


def _in_place(sum_x: float, area: float, level: int, levels: int) -> bool:
    place = sum_x / area * levels
    return level - _PLACE_TOLERANCE <= place <= level + 1 + _PLACE_TOLERANCE


def _join_by_place(parts_map: np.ndarray, parts: list[_Part], levels: np.ndarray) -> None:
    """Join pieces that only together lie where blue says, then touching parts that lean to each other."""
    touching = _touching(parts_map)
    count = len(levels)
    for i in sorted(range(len(parts)), key=lambda i: parts[i].area):
        piece = parts[parts[i].owner]
        if piece is not parts[i] or _in_place(piece.sum_x, piece.area, piece.level, count):
            continue
        fitting = [
            j
            for j, other in enumerate(parts)
            if other.owner == j != i
            and other.kind == piece.kind
            and (other.level == piece.level or (abs(other.level - piece.level) == 1 and (i, j) in touching))
            and _in_place(
                piece.sum_x + other.sum_x,
                piece.area + other.area,
                other.level if other.area > piece.area else piece.level,
                count,
            )
        ]
        if fitting:
            here = piece.sum_x / piece.area
            _join(parts, i, min(fitting, key=lambda j: abs(parts[j].sum_x / parts[j].area - here)))
    for i, j in sorted(touching):
        one, other = parts[i], parts[j]
        if (
            i < j
            and one.kind == other.kind
            and abs(one.level - other.level) == 1
            and one.owner != other.owner
        ):
            step = float(levels[other.level] - levels[one.level])
            if (one.lean - other.lean) / step > _LEAN:
                _join(parts, one.owner, other.owner)


def _join_equal(parts: list[_Part]) -> None:
    first: dict[tuple[int, int], int] = {}
    for i, part in enumerate(parts):
        owner = first.setdefault((part.kind, part.level), i)
        if owner != i:
            _join(parts, i, owner)


def _join(parts: list[_Part], i: int, j: int) -> None:
    """Make the larger of two owners the owner of both."""
    small, large = sorted((i, j), key=lambda k: parts[k].area)
    parts[large].area += parts[small].area
    parts[large].sum_x += parts[small].sum_x
    for part in parts:
        if part.owner == small:
            part.owner = large


def _touching(parts_map: np.ndarray) -> set[tuple[int, int]]:
    """Return the pairs of parts that share an edge of a pixel, both ways round."""
    pairs = set()
    for one, other in ((parts_map[:, 1:], parts_map[:, :-1]), (parts_map[1:], parts_map[:-1])):
        differ = (one != other) & (one > 0) & (other > 0)
        coded = np.unique(one[differ].astype(np.int64) << 16 | other[differ])
        pairs.update((int(c >> 16) - 1, int(c & 0xFFFF) - 1) for c in coded)
    return pairs | {(j, i) for i, j in pairs}
