"""From a segmentation picture to instances.

Connected pixels of like colour form a part, which takes the class and the level of blue that its mean colour is nearest
to. Where blue tells how high an instance lies in the picture, a part that lies higher or lower than its blue says is a
piece of a larger instance that something stands before. Pieces side by side, each at the height that its blue says,
look like two instances and stay two.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cooper_model.colour_code import Pixels
from cooper_model.config import ColourCodeConfig
from cooper_model.regions import JoinRule, Regions, connected, dissolve, join_alike, thin

BORDER_WORTH = 2.0
"""Squared error that a pixel of border is worth. Colours are measured in the smallest step of the code."""

SAME = 0.55
"""Mean difference up to which two neighbours are one, in the same unit: colours of the code are 1 or more apart."""

_FIRM = 0.95
_RIM_SURE = 0.9
_PLACE_TOLERANCE = 0.25


@dataclass
class _Part:
    """A region of one class and level.

    :param sum_y: sum over the pixels of their rows' places, 0 top .. 1 bottom
    """

    kind: int
    level: int
    owner: int
    area: float
    sum_y: float


def label_instances(
    pixels: Pixels, colours: np.ndarray, code: ColourCodeConfig, min_area: int, by_place: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return class index (``len(code.names)`` is background) and instance number (0 there), ``(h, w)`` each.

    Instances are numbered class by class, within a class from top to bottom.

    :param colours: ``(h, w, 3)`` uint8, from which ``pixels`` were read
    :param by_place: whether blue tells the height of an instance; otherwise a class and a blue make one
    """
    background = len(code.names)
    parts_map, parts = _parts(pixels, colours, code, min_area)
    if by_place:
        _join_by_place(parts, len(code.blue))
    else:
        _join_equal(parts)
    objects = sorted(
        {part.owner for part in parts if part.kind != background},
        key=lambda i: (parts[i].kind, parts[i].sum_y / parts[i].area),
    )
    number = {owner: n for n, owner in enumerate(objects, 1)}
    table = np.asarray([number.get(part.owner, 0) for part in parts])
    kind_of = np.asarray([background, *(parts[owner].kind for owner in objects)])
    instances = table[parts_map]
    return kind_of[instances], instances


def _parts(
    pixels: Pixels, colours: np.ndarray, code: ColourCodeConfig, min_area: int
) -> tuple[np.ndarray, list[_Part]]:
    """Cut a picture into parts, numbered from 0 in the map ``(h, w)``."""
    background, levels = len(code.names), np.asarray(code.blue or (0,), np.float64)
    keys = pixels.kinds.astype(np.int32) * len(levels) + np.where(pixels.kinds == background, 0, pixels.level)
    step = _steps(code)
    scaled = colours / step
    regions = connected(keys, scaled)
    regions = join_alike(regions, _sure(regions, pixels) > _FIRM, JoinRule(BORDER_WORTH, SAME, min_area))
    rims = thin(regions) & (_sure(regions, pixels) < _RIM_SURE)
    regions = dissolve(regions, rims, scaled)
    means = regions.means * step
    pairs = np.asarray([*code.red_green, code.background], np.float64)
    kinds = ((means[:, None, :2] - pairs) ** 2).sum(-1).argmin(1)
    level = np.abs(means[:, 2:] - levels).argmin(1)
    rows = np.broadcast_to((np.arange(keys.shape[0])[:, None] + 0.5) / keys.shape[0], keys.shape)
    sum_y = np.bincount(regions.of_pixel.ravel(), rows.ravel())
    measured = zip(kinds.tolist(), level.tolist(), regions.area.tolist(), sum_y.tolist(), strict=True)
    return regions.of_pixel, [_Part(kind, level, n, area, y) for n, (kind, level, area, y) in enumerate(measured)]


def _sure(regions: Regions, pixels: Pixels) -> np.ndarray:
    return np.bincount(regions.of_pixel.ravel(), pixels.sure.ravel()) / regions.area


def _steps(code: ColourCodeConfig) -> np.ndarray:
    """Return the smallest distance between two classes, for red and for green, and between two levels, for blue."""
    pairs = np.unique(np.asarray([*code.red_green, code.background], np.float64), axis=0)
    apart = np.linalg.norm(pairs[:, None] - pairs, axis=-1)[np.triu_indices(len(pairs), 1)]
    classes, levels = (min(steps, default=255.0) for steps in (apart.tolist(), np.diff(np.unique(code.blue)).tolist()))
    return np.asarray([classes, classes, levels], np.float64)


def _in_place(sum_y: float, area: float, level: int, levels: int) -> bool:
    """Tell whether the centroid lies in the band of rows that ``level`` stands for, or nearly."""
    place = sum_y / area * levels
    return level - _PLACE_TOLERANCE <= place <= level + 1 + _PLACE_TOLERANCE


def _join_by_place(parts: list[_Part], levels: int) -> None:
    """Join pieces of a class and level that only together lie where blue says."""
    for i in sorted(range(len(parts)), key=lambda i: parts[i].area):
        piece = parts[i]
        if piece.owner != i or _in_place(piece.sum_y, piece.area, piece.level, levels):
            continue
        fitting = [
            j
            for j, other in enumerate(parts)
            if other.owner == j != i
            and (other.kind, other.level) == (piece.kind, piece.level)
            and _in_place(piece.sum_y + other.sum_y, piece.area + other.area, piece.level, levels)
        ]
        if fitting:
            here = piece.sum_y / piece.area
            _join(parts, i, min(fitting, key=lambda j: abs(parts[j].sum_y / parts[j].area - here)))


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
