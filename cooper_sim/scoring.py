"""How good are generated maps: depth error, object masks, boundaries, and the uncertainty of an average.

Every function takes maps at one resolution (see `nearest`) and is free of state.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_OBJECT_AREA = 64
BOUNDARY_TOLERANCE = 0.0075


@dataclass(frozen=True)
class DepthScore:
    """Errors of one depth image, without alignment of scale or shift but for the last.

    :param delta1: share of pixels with ``max(predicted / true, true / predicted) < 1.25``
    :param abs_rel: mean of ``|predicted - true| / true``
    :param rmse: root of the mean squared error [m]
    :param delta1_scaled: delta1 after one factor has brought the median of the prediction to the true one: how good
        the shape is when the scale is given
    """

    delta1: float
    abs_rel: float
    rmse: float
    delta1_scaled: float


def nearest(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return ``pixels`` ``(rows, columns, ...)`` at another size, each taken from the pixel under its centre.

    Labels and depths must not be averaged across the edges of objects.
    """
    rows = ((np.arange(height) + 0.5) * pixels.shape[0] / height).astype(np.intp)
    columns = ((np.arange(width) + 0.5) * pixels.shape[1] / width).astype(np.intp)
    return pixels[rows[:, None], columns[None, :]]


def depth_score(predicted: np.ndarray, true: np.ndarray) -> DepthScore:
    """Return the errors over the pixels where the truth is finite and positive.

    A pixel without a valid prediction counts as a depth of zero: leaving hard pixels out must not pay.

    :param predicted, true: ``(height, width)`` [m]
    :raises ValueError: the shapes differ or no pixel has a true depth
    """
    if predicted.shape != true.shape:
        raise ValueError(f'depth of shape {predicted.shape} does not fit the true depth of {true.shape}')
    valid = np.isfinite(true) & (true > 0)
    if not valid.any():
        raise ValueError('the true depth has no valid pixel')
    wanted = true[valid].astype(np.float64)
    given = predicted[valid].astype(np.float64)
    given = np.where(np.isfinite(given), given, 0.0).clip(min=0.0)
    error = given - wanted
    middle = float(np.median(given))
    scaled = given * (float(np.median(wanted)) / middle) if middle > 0 else given
    return DepthScore(
        delta1=_share_close(given, wanted),
        abs_rel=float((np.abs(error) / wanted).mean()),
        rmse=float(np.sqrt((error**2).mean())),
        delta1_scaled=_share_close(scaled, wanted),
    )


def _share_close(given: np.ndarray, wanted: np.ndarray) -> float:
    return float(((given < 1.25 * wanted) & (wanted < 1.25 * given)).mean())


def object_ious(predicted: np.ndarray, true: np.ndarray, min_area: int = MIN_OBJECT_AREA) -> np.ndarray:
    """Return the IoU of every true object with the predicted instance assigned to it, zero without one.

    The assignment is one to one and maximises the sum of IoUs. Class names play no part.

    :param predicted, true: ``(height, width)`` integers, 0 where there is no object
    :param min_area: true objects of fewer pixels are left out
    :returns: ``(objects,)`` in the order of the true ids
    :raises ValueError: the shapes differ
    """
    if predicted.shape != true.shape:
        raise ValueError(f'instances of shape {predicted.shape} do not fit the true ones of {true.shape}')
    _, given = np.unique(np.append(predicted.ravel(), 0), return_inverse=True)
    ids, wanted = np.unique(np.append(true.ravel(), 0), return_inverse=True)
    given, wanted = given[:-1], wanted[:-1]  # the appended zero makes index 0 the background
    columns = int(given.max()) + 1
    overlap = np.bincount(wanted * columns + given, minlength=len(ids) * columns).reshape(len(ids), columns)
    area_true, area_given = overlap.sum(1), overlap.sum(0)
    iou = overlap / np.maximum(area_true[:, None] + area_given[None, :] - overlap, 1)
    large = np.flatnonzero(area_true >= min_area)
    iou = iou[large[large > 0], 1:]
    result = np.zeros(len(iou))
    for row, column in assign(iou):
        result[row] = iou[row, column]
    return result


def assign(gain: np.ndarray) -> list[tuple[int, int]]:
    """Return the one-to-one pairs ``(row, column)`` of the largest total gain.

    Shortest augmenting paths with dual potentials (Kuhn 1955, Munkres 1957; O(rows^2 * columns)).

    :param gain: ``(rows, columns)``; min(rows, columns) pairs are returned
    """
    if gain.size == 0:
        return []
    if gain.shape[0] > gain.shape[1]:
        return [(row, column) for column, row in assign(gain.T)]
    rows, columns = gain.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1)
    for start in range(rows):
        distance, parent = np.full(columns, np.inf), np.full(columns, -1)
        done = np.zeros(columns, bool)
        row, column, travelled = start, -1, 0.0
        while row >= 0:
            slack = -gain[row] - row_price[row] - column_price + travelled
            better = ~done & (slack < distance)
            distance[better], parent[better] = slack[better], column
            column = int(np.argmin(np.where(done, np.inf, distance)))
            travelled = distance[column]
            done[column] = True
            row = owner[column]
        # Prices move so that every pair of the current assignment stays tight.
        moved = np.flatnonzero(done)
        row_price[start] += travelled
        for index in moved[moved != column]:
            row_price[owner[index]] += travelled - distance[index]
            column_price[index] -= travelled - distance[index]
        while column >= 0:
            before = parent[column]
            owner[column] = owner[before] if before >= 0 else start
            column = before
    return [(int(owner[column]), column) for column in range(columns) if owner[column] >= 0]


def boundary_f1(predicted: np.ndarray, true: np.ndarray, tolerance: float | None = None) -> float:
    """Return the F1 score of the boundaries between instances (Perazzi et al., DAVIS, CVPR 2016).

    :param predicted, true: ``(height, width)`` integers
    :param tolerance: largest distance of matching boundaries [px]; if None 0.75 % of the diagonal, 1 at least
    :returns: 0..1; 1 where neither has a boundary
    """
    if tolerance is None:
        tolerance = max(1.0, BOUNDARY_TOLERANCE * float(np.hypot(*true.shape)))
    given, wanted = _boundary(predicted), _boundary(true)
    if not given.any() and not wanted.any():
        return 1.0
    if not given.any() or not wanted.any():
        return 0.0
    precision = (given & _dilate(wanted, tolerance)).sum() / given.sum()
    recall = (wanted & _dilate(given, tolerance)).sum() / wanted.sum()
    return float(2 * precision * recall / (precision + recall)) if precision + recall > 0 else 0.0


def _boundary(instances: np.ndarray) -> np.ndarray:
    edge = np.zeros(instances.shape, bool)
    edge[:, :-1] |= instances[:, :-1] != instances[:, 1:]
    edge[:-1] |= instances[:-1] != instances[1:]
    return edge


def _dilate(mask: np.ndarray, radius: float) -> np.ndarray:
    height, width = mask.shape
    reach = int(radius)
    padded = np.pad(mask, reach)
    result = np.zeros_like(mask)
    for dy in range(-reach, reach + 1):
        for dx in range(-reach, reach + 1):
            if dy * dy + dx * dx <= radius * radius:
                result |= padded[reach + dy : reach + dy + height, reach + dx : reach + dx + width]
    return result


@dataclass(frozen=True)
class Rate:
    """A mean over independent scenes and its 95 % interval, ``low`` to ``high``."""

    mean: float
    low: float
    high: float


def rate(sums: Sequence[float], counts: Sequence[float]) -> Rate | None:
    """Return ``sum(sums) / sum(counts)`` with its interval, one entry a scene; None if nothing was counted.

    Items of one scene (its objects, its questions) are not independent, so the variance is that of a ratio
    estimator over scenes (Cochran, *Sampling Techniques*, 1977, chapter 6), with the normal quantile 1.96.
    """
    top, bottom = np.asarray(sums, np.float64), np.asarray(counts, np.float64)
    total = bottom.sum()
    if total == 0:
        return None
    mean = top.sum() / total
    scenes = len(top)
    if scenes < 2:
        return Rate(float(mean), float('-inf'), float('inf'))
    spread = ((top - mean * bottom) ** 2).sum() * scenes / (scenes - 1)
    half = 1.96 * np.sqrt(spread) / total
    return Rate(float(mean), float(mean - half), float(mean + half))
