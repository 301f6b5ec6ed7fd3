"""Pictures of what a model in training generates, beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from training.datasets.base import Example


def sample_row(example: Example, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return camera image, then for each modality the generated and the true picture, side by side.

    :param pictures: generated, ``(height, width, 3)`` float32 in 0..1
    :return: ``(height, columns * width, 3)`` uint8; what is not valid in the truth is red
    """
    columns = [example.image]
    for kind, target in example.targets.items():
        true = _bytes(target.picture)
        if target.valid is not None:
            true[~target.valid] = (255, 0, 0)
        columns += [_bytes(pictures[kind]), true]
    return np.concatenate(columns, axis=1)


def write_sheet(path: Path, rows: Sequence[np.ndarray]) -> None:
    """Write rows below each other as one PNG; shorter ones are filled up with black."""
    width = max(row.shape[1] for row in rows)
    filled = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0))) for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(filled)).save(path)


def _bytes(picture: np.ndarray) -> np.ndarray:
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)
