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

from cooper_model.transforms import resize
from cooper_model.types import UNLABELLED, Modality
from cooper_sim.scoring import nearest
from training.datasets.base import DataEntry, Example, MapTruth, ModelInput, Target
from training.datasets.depth_pairs import check_length
from training.datasets.images import existing, read_rgb, same_size
from training.datasets.masks import check_classes, class_table, coloured
from training.datasets.report import ReadReport
from training.datasets.rows import Line, find_list, read_rows, text_of
from training.datasets.scores import segmentation_values

LIST = 'ade20k_train_identify.jsonl'
REMEDY = (
    'Get the full ADE20K (ade20k.csail.mit.edu, after registration) and put the released '
    'ade20k_train_identify.jsonl beside it'
)


@dataclass(frozen=True)
class AdeItem:
    """One line: its files and where it stands."""

    image: Path
    mask: Path
    place: str


class Ade20k:
    """Photographs and segmentation pictures.

    :raises FileNotFoundError: the list is missing
    :raises ValueError: no line of it can be used, or ``classes`` name what the checkpoint has not
    """

    modalities: tuple[Modality, ...] = ('segmentation',)

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        self.name, self.model, self.config, self.entry = entry.set, model, model.config, entry
        check_classes(entry.classes, self.config.colour_code, entry.set)
        path = find_list(entry.path, LIST, REMEDY)
        self.root = Path(entry.root or path.parent)
        self.report = ReadReport(entry.set)
        self.items = read_rows(path, self._parse, self.report)

    def __len__(self) -> int:
        return len(self.items)

    def place(self, number: int) -> str:
        """Return the line of an example."""
        return self.items[number].place

    def _parse(self, row: Mapping[str, Any], line: Line) -> AdeItem:
        image = existing(self.root, text_of(row, 'rgb_image'))
        mask = existing(self.root, text_of(row, 'seg_image'))
        check_length(self.model, *same_size(image, mask), self.modalities)
        return AdeItem(image, mask, line.place)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one photograph; see :class:`training.datasets.base.DataSet`."""
        item = self.items[number]
        mirrored = self.entry.flip and rng is not None and rng.random() < 0.5
        image = read_rgb(item.image)
        image = image[:, ::-1].copy() if mirrored else image
        resized = resize(image, self.config.vae_transform)
        if not maps:
            return Example(resized)
        codes = read_rgb(item.mask)
        codes = codes[:, ::-1] if mirrored else codes
        kinds, instances = decode(codes)
        small = nearest(kinds, *resized.shape[:2])
        code = self.config.colour_code
        if code.names:
            names = {int(i): str(kinds.ravel()[first]) for i, first in zip(*np.unique(instances, return_index=True),
                                                                           strict=True) if i}  # fmt: skip
            table = class_table(names, code, self.entry.classes)
            picture = coloured(nearest(instances, *small.shape), table, code)
            instances = np.where(table[instances] == UNLABELLED, 0, instances)
        else:
            picture = nearest(codes, *small.shape).astype(np.float32) / 255
        valid = small > 0
        target = Target(picture, None if valid.all() else valid)
        return Example(resized, {'segmentation': target}, MapTruth(instances=instances, scored=kinds > 0))

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


def open_set(entry: DataEntry, model: ModelInput) -> Ade20k:
    """Open the set that a config names."""
    return Ade20k(entry, model)
