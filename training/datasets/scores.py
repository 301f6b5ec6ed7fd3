"""How good generated pictures are against a truth: the metrics that data sets share."""

from __future__ import annotations

import numpy as np

from cooper_model.config import ColourCodeConfig
from cooper_model.perception import depth_map, segmentation
from cooper_sim.scoring import boundary_f1, depth_score, object_ious
from training.datasets.base import MapTruth


def depth_values(picture: np.ndarray, truth: MapTruth) -> dict[str, list[float]]:
    """Return delta1, AbsRel and RMSE [m] of a depth picture as generated, and AbsRel after alignment.

    :return: nothing where the truth has no pixel to score
    """
    if truth.depth is None or not np.isfinite(truth.depth).any():
        return {}
    found = depth_map(picture, truth.depth.shape, truth.depth_range)
    assert found.metres is not None
    score = depth_score(found.metres, truth.depth)
    near, far = truth.depth_range or (0.0, float(np.nanmax(truth.depth)))
    shaped = depth_score(aligned(found.relative, truth.depth).clip(near, far), truth.depth)
    values = {'delta1': score.delta1, 'abs_rel': score.abs_rel, 'rmse': score.rmse, 'abs_rel_aligned': shaped.abs_rel}
    return {name: [value] for name, value in values.items()}


def aligned(relative: np.ndarray, metres: np.ndarray) -> np.ndarray:
    """Return relative depth, scaled and shifted to fit ``metres`` best by least squares where those are finite.

    :param relative, metres: ``(height, width)``
    """
    valid = np.isfinite(metres)
    known = relative[valid].astype(np.float64)
    rows = np.stack([known, np.ones_like(known)], axis=1)
    scale, shift = np.linalg.lstsq(rows, metres[valid].astype(np.float64), rcond=None)[0]
    return (relative * scale + shift).astype(np.float32)


def segmentation_values(picture: np.ndarray, truth: MapTruth, code: ColourCodeConfig) -> dict[str, list[float]]:
    """Return the IoU of every true object and the F1 score of the boundaries of a segmentation picture.

    :return: nothing where the truth has no masks
    """
    if truth.instances is None:
        return {}
    found = segmentation(picture, truth.instances.shape, code).instances
    if truth.scored is not None:
        found = np.where(truth.scored, found, 0)
    return {
        'miou': [float(iou) for iou in object_ious(found, truth.instances)],
        'boundary_f1': [boundary_f1(found, truth.instances)],
    }
