"""ADE20K, the full one: photographs whose every object has a class and an instance.

The released JSONL format: ``{"rgb_image": path, "seg_image": path}``, maybe ``"data_idx"``. A mask file is an RGB
picture: red // 10 * 256 + green is the class, from 1, 0 where nothing is labelled; blue tells the instances of a class
apart.
A checkpoint without a colour code of its own, as the published one, is trained on those very colours. One with a code
gets its own colours for the classes that the entry's ``classes`` maps (number of the class as a text to a name of the
code); all other labelled things are background to it. Unlabelled pixels carry no loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cooper_model.types import UNLABELLED, Modality
from cooper_sim.scoring import nearest
from training.datasets.base import DataEntry, Example, MapTruth, ModelInput, Target
from training.datasets.images import existing, read_rgb, same_size, turned
from training.datasets.listed import Item, Listed
from training.datasets.masks import check_classes, class_table, coloured
from training.datasets.report import LeftOut
from training.datasets.rows import Line, text_of
from training.datasets.scores import segmentation_values

LIST = 'ade20k_train_identify.jsonl'
REMEDY = (
    'Get the full ADE20K (ade20k.csail.mit.edu, after registration) and put the released '
    'ade20k_train_identify.jsonl beside it'
)


@dataclass(frozen=True)
class AdeItem(Item):
    """One line with its mask file."""

    mask: Path


class Ade20k(Listed[AdeItem]):
    """Photographs and segmentation pictures.

    :raises ValueError: ``classes`` name what the checkpoint has not
    """

    modalities: tuple[Modality, ...] = ('segmentation',)

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        check_classes(entry.classes, model.config.colour_code, entry.set)
        super().__init__(entry, model, LIST, REMEDY)

    def _parse(self, row: Mapping[str, Any], line: Line) -> AdeItem:
        image = existing(self.root, text_of(row, 'rgb_image'))
        mask = existing(self.root, text_of(row, 'seg_image'))
        self.check_length(*same_size(image, mask))
        return AdeItem(image, line.place, mask)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one photograph; see :class:`training.datasets.base.DataSet`."""
        item, mirrored = self.items[number], self.is_mirrored(rng)
        image = self.read_image(item, mirrored)
        if not maps:
            return Example(image)
        codes = turned(read_rgb(item.mask), mirrored)
        codes = nearest(codes, *image.shape[:2])
        kinds, instances = decode(codes)
        code = self.config.colour_code
        if code.names:
            table = class_table(_names(kinds, instances), code, self.entry.classes)
            picture = coloured(instances, table, code)
            instances = np.where(table[instances] == UNLABELLED, 0, instances)
        else:
            picture = codes.astype(np.float32) / 255
        valid = kinds > 0
        if not valid.any():
            raise LeftOut('nothing valid', f'{item.mask} labels nothing')
        target = Target(picture, None if valid.all() else valid)
        return Example(image, {'segmentation': target}, MapTruth(instances=instances, scored=valid))

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return IoU of objects and boundary F1 of a generated segmentation picture."""
        return segmentation_values(pictures['segmentation'], example.truth, self.config.colour_code)


def decode(codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return class and instance numbers ``(height, width)`` int32 of codes ``(height, width, 3)`` uint8; 0 for none."""
    red, green, blue = (codes[..., channel].astype(np.int32) for channel in range(3))
    kinds = red // 10 * 256 + green
    # One number for each pair of class and blue; unlabelled pixels, class 0, become 0 together.
    pairs = np.where(kinds > 0, kinds * 256 + blue + 1, 0)
    found, instances = np.unique(pairs, return_inverse=True)
    offset = 0 if found[0] == 0 else 1
    return kinds, instances.reshape(pairs.shape).astype(np.int32) + offset


def _names(kinds: np.ndarray, instances: np.ndarray) -> dict[int, str]:
    """Return the number of the class, as a text, of each instance."""
    numbers, first = np.unique(instances, return_index=True)
    return {int(n): str(kinds.ravel()[place]) for n, place in zip(numbers, first, strict=True) if n}


def open_set(entry: DataEntry, model: ModelInput) -> Ade20k:
    """Open the set that a config names."""
    return Ade20k(entry, model)
