"""Choosing frames that show something new, however fast or slowly the robot moved."""

from __future__ import annotations

import cv2
import numpy as np

_SIZE = (24, 18)
DEFAULT = 0.7


class Novelty:
    """Remembers what was chosen, as thumbnails without brightness and contrast.

    :param least: smallest distance of a new frame to all chosen ones, 0 takes all; 0 for the same picture, about 1.4
        for pictures that have nothing to do with one another
    """

    def __init__(self, least: float = DEFAULT) -> None:
        self.least = least
        self._chosen: list[np.ndarray] = []

    def distance(self, image: np.ndarray) -> float:
        """Return how far an image ``(height, width, 3)`` is from the nearest one chosen; infinite for the first."""
        if not self._chosen:
            return float('inf')
        return float(np.min(np.linalg.norm(np.stack(self._chosen) - _features(image), axis=1)))

    def choose(self, image: np.ndarray) -> bool:
        """Return whether an image is new enough, and remember it if so."""
        if self.distance(image) < self.least:
            return False
        self.remember(image)
        return True

    def remember(self, image: np.ndarray) -> None:
        """Count an image among the chosen ones."""
        self._chosen.append(_features(image))


def _features(image: np.ndarray) -> np.ndarray:
    """Return a unit vector: distances between two are those of correlated pictures, sqrt(2 - 2 r)."""
    small = cv2.resize(image, _SIZE, interpolation=cv2.INTER_AREA).astype(np.float32)
    centred = (small - small.mean(axis=(0, 1))).ravel()
    return centred / max(float(np.linalg.norm(centred)), 1e-6)
