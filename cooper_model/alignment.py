"""Generated depth beside measured depth: a scale and a shift bring it to the sensor's metres, and it fills the holes.

A sensor is right where it answers and silent on glass, black cloth and at edges; a generated map answers everywhere but
is not exact. Scale and shift are fitted robustly, since both are wrong in places.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cooper_model.types import Alignment, DepthMap

MIN_PIXELS = 50
MIN_SHARE = 0.01
"""Fewest measured pixels, and smallest share of the image, that a fit rests on."""

_FITTED = 20_000
_ROUNDS = 12
_TUNING = 4.685  # of Tukey's biweight, for 95 % efficiency on normal errors


def valid_depth(metres: np.ndarray) -> np.ndarray:
    """Return where a sensor answered: finite and positive."""
    with np.errstate(invalid='ignore'):
        return np.isfinite(metres) & (metres > 0)


def fit_alignment(generated: np.ndarray, measured: np.ndarray) -> Alignment | None:
    """Fit ``measured = scale * generated + shift`` with outliers left out.

    Iteratively reweighted least squares on errors relative to the measured depth, with Tukey's biweight (Huber and
    Ronchetti, *Robust Statistics*, 2009, chapter 7).

    :param generated: ``(height, width)`` of any unit
    :param measured: ``(height, width)`` [m], NaN, infinite or not positive where unknown
    :returns: None where too little is measured or nothing consistent is found
    """
    valid = valid_depth(measured) & np.isfinite(generated)
    count = int(valid.sum())
    if count < max(MIN_PIXELS, MIN_SHARE * measured.size):
        return None
    thin = max(1, count // _FITTED)
    x, y = (values[valid][::thin].astype(np.float64) for values in (generated, measured))
    scale, shift = _first_guess(x, y)
    error = spread = np.zeros(0)
    for _ in range(_ROUNDS):
        error = (scale * x + shift) / y - 1
        spread = max(1.4826 * float(np.median(np.abs(error))), 1e-4)
        inside = np.clip(1 - (error / (_TUNING * spread)) ** 2, 0, None)
        root = inside / y  # the square root of the biweight, errors counted relative to y
        rows = np.stack([x * root, root], axis=1)
        (scale, shift), *_ = np.linalg.lstsq(rows, y * root, rcond=None)
    if not (np.isfinite(scale) and scale > 0):
        return None
    error = np.abs((scale * x + shift) / y - 1)
    return Alignment(float(scale), float(shift), count / measured.size, float(np.median(error)))


def _first_guess(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Return scale and shift from quartiles, which outliers hardly move."""
    low, middle, high = np.percentile(x, (25, 50, 75))
    spread = np.subtract(*np.percentile(y, (75, 25)))
    if high - low > 1e-6 and spread > 1e-6:
        scale = spread / (high - low)
        return scale, float(np.median(y)) - scale * middle
    return float(np.median(y)) / max(middle, 1e-6), 0.0


def fuse(depth: DepthMap, measured: np.ndarray) -> DepthMap:
    """Return a map in the sensor's metres: measured where the sensor answered, generated and aligned elsewhere.

    What the model drew stays as it is in ``relative`` and ``color``. Without a fit the map is returned unchanged.

    :param measured: ``(height, width)`` float32 [m] of the map's size
    :raises ValueError: the sizes differ
    """
    if measured.shape != depth.relative.shape:
        raise ValueError(f'measured depth of shape {measured.shape} does not match the map {depth.relative.shape}')
    generated = depth.relative if depth.metres is None else depth.metres
    found = fit_alignment(generated, measured)
    if found is None:
        return depth
    filled = np.maximum(found.scale * generated + found.shift, 0).astype(np.float32)
    metres = np.where(valid_depth(measured), measured, filled).astype(np.float32)
    return replace(depth, metres=metres, alignment=found)
