"""From pixels with class and level to instances.

Connected pixels of one class and one level form a part. Small parts, and thin ones of doubtful colour (the
rims that blur leaves between two colours), fall to what is around them. Where blue tells how high an instance
lies in the picture, a part that lies higher or lower than its blue says is a piece of a larger instance that
something stands before, and touching parts whose blues lean towards each other are one instance that the
model drew across the border of two levels. Pieces side by side, each at the height that its blue says, look
like two instances and stay two.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cooper_model.colour_code import Pixels
from cooper_model.config import ColourCodeConfig

_PLACE_TOLERANCE = 0.25
_LEAN = 0.4
_RIM_SURE = 0.9
_RIM_INSIDE = 0.05


@dataclass
class _Part:
    """Connected pixels of one class and level.

    :param sum_y: sum over the pixels of their rows' places, 0 top .. 1 bottom
    :param lean: mean blue less the level's blue
    """

    kind: int
    level: int
    owner: int
    area: float = 0.0
    sum_y: float = 0.0
    lean: float = 0.0


def label_instances(
    pixels: Pixels, colours: np.ndarray, code: ColourCodeConfig, min_area: int, by_place: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return class index (``len(code.names)`` is background) and instance number (0 there), ``(h, w)`` each.

    Instances are numbered class by class, within a class from top to bottom.

    :param colours: ``(h, w, 3)`` uint8, from which ``pixels`` were read
    :param by_place: whether blue tells the height of an instance; otherwise a class and a blue make one
    """
    background = len(code.names)
    levels = np.asarray(code.blue or (0,), np.float32)
    blue = colours[..., 2]
    parts_map, parts = _parts(pixels, blue, code, min_area)
    _fill(parts_map, parts, colours, code)
    _measure(parts_map, parts, blue, levels)
    if by_place:
        _join_by_place(parts_map, parts, levels)
    else:
        _join_equal(parts)
    objects = sorted(
        {part.owner for part in parts if part.kind != background},
        key=lambda i: (parts[i].kind, parts[i].sum_y / parts[i].area),
    )
    number = {owner: n for n, owner in enumerate(objects, 1)}
    table = np.asarray([0, *(number.get(part.owner, 0) for part in parts)])
    kind_of = np.asarray([background, *(parts[owner].kind for owner in objects)])
    instances = table[parts_map]
    return kind_of[instances], instances


def _parts(
    pixels: Pixels, blue: np.ndarray, code: ColourCodeConfig, min_area: int
) -> tuple[np.ndarray, list[_Part]]:
    """Cut into parts. Part ``i`` is ``i + 1`` in the map; 0 is what belongs to none."""
    background, levels = len(code.names), np.asarray(code.blue or (0,), np.float32)
    keys = np.where(pixels.kinds == background, 0, pixels.level).astype(np.uint16)
    keys += pixels.kinds.astype(np.uint16) * np.uint16(len(levels))
    parts_map = np.zeros(keys.shape, np.uint16)
    parts: list[_Part] = []
    for key in np.flatnonzero(np.bincount(keys.ravel()) >= min_area).tolist():
        window, numbered, kept = _solid(keys == key, pixels.sure, min_area)
        table = np.zeros(numbered.max() + 1, np.uint16)
        for number in kept:
            parts.append(_Part(*divmod(key, len(levels)), owner=len(parts)))
            table[number] = len(parts)
        parts_map[window] += table[numbered]
    # Where blue is so noisy that no level holds together, an object keeps the level of its mean.
    for kind in np.flatnonzero(np.bincount(pixels.kinds.ravel()) >= min_area).tolist():
        window, numbered, kept = _solid(pixels.kinds == kind, np.zeros_like(pixels.sure), min_area)
        for number in kept:
            region = numbered == number
            if not parts_map[window][region].any():
                level = int(np.abs(levels - blue[window][region].mean()).argmin())
                parts.append(_Part(kind, level, owner=len(parts)))
                parts_map[window][region] = len(parts)
    return parts_map, parts


def _solid(
    mask: np.ndarray, sure: np.ndarray, min_area: int
) -> tuple[tuple[slice, slice], np.ndarray, list[int]]:
    """Return the window of a mask, its components there, and which of them are neither small nor rims."""
    mask = mask.view(np.uint8)
    left, top, width, height = cv2.boundingRect(mask)
    window = np.s_[top : top + height, left : left + width]
    count, numbered, stats, _ = cv2.connectedComponentsWithStats(mask[window], connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA]
    inner = np.bincount(numbered[cv2.erode(mask, np.ones((3, 3), np.uint8))[window] > 0], minlength=count)
    total = np.bincount(numbered.ravel(), sure[window].ravel(), minlength=count)
    keep = (area >= min_area) & ((inner >= _RIM_INSIDE * area) | (total >= _RIM_SURE * area))
    return window, numbered, [n for n in range(1, count) if keep[n]]


def _fill(parts_map: np.ndarray, parts: list[_Part], colours: np.ndarray, code: ColourCodeConfig) -> None:
    """Give what belongs to no part to the neighbouring part of the nearest colour, from outside inwards."""
    if not parts:
        return
    blue = code.blue or (0,)
    empty = (*code.background, 0)
    objects = [(*pair, level) for pair in code.red_green for level in blue]
    kinds = [part.kind * len(blue) + part.level for part in parts]
    own = np.asarray([empty, *(objects[k] if k < len(objects) else empty for k in kinds)], np.float32)
    open_rows, open_columns = np.nonzero(parts_map == 0)
    while len(open_rows):
        padded = cv2.copyMakeBorder(parts_map, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        around = np.stack(
            [padded[open_rows + dy, open_columns + dx] for dy in range(3) for dx in range(3)], axis=1
        )
        away = ((own[around] - colours[open_rows, open_columns, None].astype(np.float32)) ** 2).sum(-1)
        away[around == 0] = np.inf
        best = away.argmin(1)
        reached = np.isfinite(away[np.arange(len(best)), best])
        parts_map[open_rows, open_columns] = around[np.arange(len(best)), best]
        open_rows, open_columns = open_rows[~reached], open_columns[~reached]


def _measure(parts_map: np.ndarray, parts: list[_Part], blue: np.ndarray, levels: np.ndarray) -> None:
    flat = parts_map.ravel()
    rows = np.broadcast_to((np.arange(blue.shape[0])[:, None] + 0.5) / blue.shape[0], blue.shape).ravel()
    area = np.bincount(flat, minlength=len(parts) + 1)
    sum_y = np.bincount(flat, rows, minlength=len(parts) + 1)
    sum_blue = np.bincount(flat, blue.ravel(), minlength=len(parts) + 1)
    for i, part in enumerate(parts, 1):
        part.area, part.sum_y = float(area[i]), float(sum_y[i])
        part.lean = float(sum_blue[i] / area[i] - levels[part.level])


def _in_place(sum_y: float, area: float, level: int, levels: int) -> bool:
    """Tell whether the centroid lies in the band of rows that ``level`` stands for, or nearly."""
    place = sum_y / area * levels
    return level - _PLACE_TOLERANCE <= place <= level + 1 + _PLACE_TOLERANCE


def _join_by_place(parts_map: np.ndarray, parts: list[_Part], levels: np.ndarray) -> None:
    """Join pieces that only together lie where blue says, then touching parts that lean to each other."""
    touching = _touching(parts_map)
    count = len(levels)
    for i in sorted(range(len(parts)), key=lambda i: parts[i].area):
        piece = parts[parts[i].owner]
        if piece is not parts[i] or _in_place(piece.sum_y, piece.area, piece.level, count):
            continue
        fitting = [
            j
            for j, other in enumerate(parts)
            if other.owner == j != i
            and other.kind == piece.kind
            and (other.level == piece.level or (abs(other.level - piece.level) == 1 and (i, j) in touching))
            and _in_place(
                piece.sum_y + other.sum_y,
                piece.area + other.area,
                other.level if other.area > piece.area else piece.level,
                count,
            )
        ]
        if fitting:
            here = piece.sum_y / piece.area
            _join(parts, i, min(fitting, key=lambda j: abs(parts[j].sum_y / parts[j].area - here)))
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
    parts[large].sum_y += parts[small].sum_y
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
