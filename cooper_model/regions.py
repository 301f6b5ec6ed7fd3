"""Flat regions of a picture: neighbours are joined as long as the picture loses little by it.

A model that is not sure draws one object in shades between colours of the code, cell by cell. What holds an object
together is that its shades lie nearer to one another than to what is around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_INNER = 0.05


@dataclass(frozen=True)
class JoinRule:
    """When neighbours are one.

    :param limit: squared error that a pixel of border is worth
    :param same: mean difference up to which two regions are one whatever their size
    :param min_area: smallest region that can stand alone [px]
    """

    limit: float
    same: float
    min_area: int


@dataclass
class Regions:
    """Connected regions ``0 .. count - 1``.

    :param of_pixel: ``(h, w)`` number of each pixel's region
    :param area: pixels of each
    :param sums: ``(count, channels)`` sum of the colours of its pixels
    """

    of_pixel: np.ndarray
    area: np.ndarray
    sums: np.ndarray

    @property
    def means(self) -> np.ndarray:
        """Mean colour of each, ``(count, channels)``."""
        return self.sums / self.area[:, None]


def connected(keys: np.ndarray, colours: np.ndarray) -> Regions:
    """Return the connected regions of equal keys ``(h, w)``."""
    of_pixel = np.zeros(keys.shape, np.int32)
    count = 0
    for key in np.unique(keys):
        found, numbered = cv2.connectedComponents((keys == key).astype(np.uint8), connectivity=8)
        inside = numbered > 0
        of_pixel[inside] = numbered[inside] - 1 + count
        count += found - 1
    return _measured(of_pixel, count, colours)


def thin(regions: Regions) -> np.ndarray:
    """Return which regions ``(count,)`` have hardly a pixel with its own region all around, as rims of blur do."""
    of_pixel = regions.of_pixel.astype(np.float32)
    square = np.ones((3, 3), np.uint8)
    inner = cv2.erode(of_pixel, square) == cv2.dilate(of_pixel, square)
    return np.bincount(regions.of_pixel[inner], minlength=len(regions.area)) < _INNER * regions.area


def dissolve(regions: Regions, chosen: np.ndarray, colours: np.ndarray) -> Regions:
    """Give each pixel of the chosen regions to the neighbouring region of the nearest colour, from outside inwards.

    :param chosen: ``(count,)`` bool
    """
    if not chosen.any() or chosen.all():
        return regions
    kept = np.cumsum(~chosen)
    of_pixel = np.where(chosen, 0, kept)[regions.of_pixel].astype(np.int32)  # from 1; 0 is open
    means = np.concatenate([np.zeros((1, colours.shape[2])), regions.means[~chosen]])
    rows, columns = np.nonzero(of_pixel == 0)
    while len(rows):
        padded = cv2.copyMakeBorder(of_pixel, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
        around = np.stack([padded[rows + y, columns + x] for y in range(3) for x in range(3)], axis=1)
        away = ((means[around] - colours[rows, columns, None]) ** 2).sum(-1)
        away[around == 0] = np.inf
        best = away.argmin(1)
        reached = np.arange(len(best))
        of_pixel[rows, columns] = around[reached, best]
        still = around[reached, best] == 0
        rows, columns = rows[still], columns[still]
    return _measured(of_pixel - 1, int(kept[-1]), colours)


def _measured(of_pixel: np.ndarray, count: int, colours: np.ndarray) -> Regions:
    flat = of_pixel.ravel()
    area = np.bincount(flat, minlength=count).astype(np.float64)
    sums = [np.bincount(flat, colours[..., c].ravel(), minlength=count) for c in range(colours.shape[2])]
    return Regions(of_pixel, area, np.stack(sums, axis=1))


def join_alike(regions: Regions, firm: np.ndarray, rule: JoinRule) -> Regions:
    """Join neighbours while that adds less squared error than the border between them is worth.

    The piecewise constant model of Mumford and Shah (1989), by region merging (Koepfler, Lopez and Morel 1994): joining
    costs ``n m / (n + m) |mean difference|^2`` a pixel of common border. In each round every two regions that are one
    another's cheapest join.

    :param firm: ``(count,)`` bool; two of these never join
    """
    count = len(regions.area)
    area, sums, root = regions.area.copy(), regions.sums.copy(), np.arange(count)
    one, other, border = _borders(regions.of_pixel)
    while len(one):  # what has been joined into another is in no pair any more
        apart = ((sums[one] / area[one, None] - sums[other] / area[other, None]) ** 2).sum(1)
        cost = area[one] * area[other] / (area[one] + area[other]) * apart / border
        weak = area < rule.min_area
        free = (cost <= rule.limit) | (apart <= rule.same**2)
        free = (free & ~(firm[one] & firm[other])) | weak[one] | weak[other]
        order = np.argsort(cost, kind='stable')
        order = order[free[order]]
        joined = _mutual(one[order], other[order], count)
        if not len(joined):
            break
        into = np.arange(count)
        into[other[order[joined]]] = one[order[joined]]
        root = into[root]
        firm = np.bincount(into, firm, minlength=count) > 0
        area, *channels = (np.bincount(into, values, minlength=count) for values in (area, *sums.T))
        sums = np.stack(channels, axis=1)
        one, other, border = _combined(into[one], into[other], border)
    kept, of_region = np.unique(root, return_inverse=True)
    return Regions(of_region[regions.of_pixel], area[kept], sums[kept])


def _mutual(one: np.ndarray, other: np.ndarray, count: int) -> np.ndarray:
    """Return which of the pairs, the cheapest first, are the first pair of both of their members."""
    first = np.full(count, len(one))
    places = np.arange(len(one))
    np.minimum.at(first, one, places)
    np.minimum.at(first, other, places)
    return np.flatnonzero((first[one] == places) & (first[other] == places))


def _borders(of_pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the pairs of regions that touch, and the length of their border [px]."""
    one = np.concatenate([of_pixel[:, 1:].ravel(), of_pixel[1:].ravel()])
    other = np.concatenate([of_pixel[:, :-1].ravel(), of_pixel[:-1].ravel()])
    return _combined(one, other, np.ones(len(one)))


def _combined(
    one: np.ndarray, other: np.ndarray, border: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    low, high = np.minimum(one, other).astype(np.int64), np.maximum(one, other).astype(np.int64)
    differ = low != high
    pairs, place = np.unique(low[differ] << 32 | high[differ], return_inverse=True)
    return pairs >> 32, pairs & 0xFFFFFFFF, np.bincount(place, border[differ], minlength=len(pairs))
