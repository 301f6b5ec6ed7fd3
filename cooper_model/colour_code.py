"""From the colours of a segmentation picture to a class and a level of blue for each pixel.

Every pixel takes the nearest colour of the code, once with its neighbours' votes, so that noise does not
speckle; a pixel that has exactly a colour of the code never changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from cooper_model.config import ColourCodeConfig


@dataclass(frozen=True)
class Pixels:
    """What each pixel's colour says, ``(h, w)`` each.

    :param kinds: uint8 class index; ``len(code.names)`` is background
    :param level: uint8 index of the level of blue
    :param confidence: float32, margin between the nearest and the second nearest class colour: 1 on a colour
        of the code, 0 halfway
    :param sure: the same, or the margin of blue where that is less
    """

    kinds: np.ndarray
    level: np.ndarray
    confidence: np.ndarray
    sure: np.ndarray


def read_pixels(colours: np.ndarray, code: ColourCodeConfig) -> Pixels:
    """Read colours ``(h, w, 3)`` uint8 by a code."""
    nearest, confidence, costs = _class_costs(code)
    index = colours[..., 0].astype(np.int32) * 256 + colours[..., 1]
    kinds = _vote(nearest[index], costs, index)
    blue = colours[..., 2]
    nearest, level_confidence, costs = _level_costs(code.blue)
    confident = confidence[index]
    sure = np.where(kinds == len(code.names), confident, np.minimum(confident, level_confidence[blue]))
    return Pixels(kinds, _vote(nearest[blue], costs, blue), confident, sure)


@lru_cache(maxsize=8)
def _class_costs(code: ColourCodeConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nearest class, confidence and costs of every ``red * 256 + green``, computed once a code."""
    centers = np.asarray([*code.red_green, code.background], np.float32)
    if len(centers) == 1:
        return np.zeros(65536, np.uint8), np.ones(65536, np.float32), np.zeros((65536, 1), np.float32)
    red_green = np.stack(np.divmod(np.arange(65536), 256), axis=1).astype(np.float32)
    squared = ((red_green[:, None] - centers) ** 2).sum(-1)
    between = ((centers[:, None] - centers) ** 2).sum(-1) + np.diag(np.full(len(centers), np.inf))
    return squared.argmin(1).astype(np.uint8), _margin(squared), squared / max(float(between.min()), 1.0)


@lru_cache(maxsize=8)
def _level_costs(blue: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return nearest level, confidence and costs of every value of blue."""
    if len(blue) < 2:
        return np.zeros(256, np.uint8), np.ones(256, np.float32), np.zeros((256, 1), np.float32)
    levels = np.asarray(blue, np.float32)
    squared = (np.arange(256, dtype=np.float32)[:, None] - levels) ** 2
    gap = max(float(np.diff(np.sort(levels)).min()), 1.0)
    return squared.argmin(1).astype(np.uint8), _margin(squared), squared / gap**2


def _margin(squared: np.ndarray) -> np.ndarray:
    """Return ``(second - first) / (second + first)`` of the two smallest distances, given squared by row."""
    two = np.sqrt(np.partition(squared, 1, axis=1)[:, :2])
    return (two[:, 1] - two[:, 0]) / np.maximum(two.sum(1), 1e-6)


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
