"""From true masks with names to the segmentation picture of a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from cooper_model.config import ColourCodeConfig
from cooper_model.perception import encode_segmentation
from cooper_model.types import UNLABELLED


def class_table(names: Mapping[int, str], code: ColourCodeConfig, classes: Mapping[str, str]) -> np.ndarray:
    """Return the class index of each instance number, ``(largest + 1,)`` uint8; UNLABELLED for none of the code.

    :param names: class of each instance in the words of the data
    :param classes: from those words to the names of the code, beside equal names
    """
    index = {name: number for number, name in enumerate(code.names)}
    table = np.full(max(names, default=0) + 1, UNLABELLED, np.uint8)
    for number, name in names.items():
        table[number] = index.get(classes.get(name, name), UNLABELLED)
    return table


def coloured(ids: np.ndarray, table: np.ndarray, code: ColourCodeConfig) -> np.ndarray:
    """Return the picture ``(height, width, 3)`` float32 in 0..1 of instance numbers ``(height, width)``."""
    return encode_segmentation(table[ids], ids, code).astype(np.float32) / 255


def check_classes(classes: Mapping[str, str], code: ColourCodeConfig, name: str) -> None:
    """Check the ``classes`` of an entry.

    :raises ValueError: a class is none of the checkpoint's
    """
    unknown = sorted(set(classes.values()) - set(code.names))
    if unknown:
        raise ValueError(f'data set {name}: classes name {unknown}, the colour code has {list(code.names)}')
