"""Real photographs with instance masks (COCO annotations), as ``train_real/coco`` of the shared data holds them.

A line of ``index.jsonl``: ``{"file": path, "mask": path, "complete": bool, "instances": [{"id": .., "category": ..}]}``
A mask is an 8-bit PNG: 0 nothing annotated, 255 a crowd, otherwise the id of an instance. For a checkpoint with a
colour code: categories get its colours by equal names, by ``CLASSES``, and by the entry's ``classes``; other annotated
things are background. What is not annotated is background where the photograph is annotated completely; elsewhere,
and in crowds, nobody knows, and it carries no loss.
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
from training.datasets.images import existing, read_integers, same_size, turned
from training.datasets.listed import Item, Listed
from training.datasets.masks import check_classes, class_table, coloured
from training.datasets.report import LeftOut
from training.datasets.rows import Line, text_of
from training.datasets.scores import segmentation_values

LIST = 'index.jsonl'
REMEDY = 'Name the folder that holds index.jsonl, images/ and masks/, for example train_real/coco of the shared data'
CLASSES = {'dining table': 'table', 'cup': 'mug', 'sports ball': 'ball'}
CROWD = 255


@dataclass(frozen=True)
class PhotoItem(Item):
    """One line with its mask file.

    :param names: category of each instance
    :param complete: whether all things of all categories are annotated
    """

    mask: Path
    names: Mapping[int, str]
    complete: bool


class Photos(Listed[PhotoItem]):
    """Photographs and segmentation pictures.

    :raises ValueError: the checkpoint has no colour code, or ``classes`` name what it has not
    """

    modalities: tuple[Modality, ...] = ('segmentation',)

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        code = model.config.colour_code
        if not code.names:
            raise ValueError(f'data set {entry.set}: the checkpoint has no colour code for classes')
        check_classes(entry.classes, code, entry.set)
        self.classes = {key: name for key, name in CLASSES.items() if name in code.names} | dict(entry.classes)
        super().__init__(entry, model, LIST, REMEDY)

    def _parse(self, row: Mapping[str, Any], line: Line) -> PhotoItem:
        image, mask = existing(self.root, text_of(row, 'file')), existing(self.root, text_of(row, 'mask'))
        self.check_length(*same_size(image, mask))
        try:
            names = {int(thing['id']): str(thing['category']) for thing in row['instances']}
        except (KeyError, TypeError, ValueError) as error:
            raise LeftOut('broken line', f"'instances' cannot be read: {error!r}") from error
        return PhotoItem(image, line.place, mask, names, row.get('complete') is True)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one photograph; see :class:`training.datasets.base.DataSet`."""
        item, mirrored = self.items[number], self.is_mirrored(rng)
        image = self.read_image(item, mirrored)
        if not maps:
            return Example(image)
        ids = turned(read_integers(item.mask), mirrored)
        unknown = sorted(set(np.unique(ids).tolist()) - {0, CROWD, *item.names})
        if unknown:
            raise LeftOut('unreadable image', f'{item.mask} has ids {unknown} that the line does not name')
        table = class_table({CROWD: '', **item.names}, self.config.colour_code, self.classes)
        known = ids != CROWD if item.complete else (ids != CROWD) & (ids > 0)
        ids, known = nearest(ids, *image.shape[:2]), nearest(known, *image.shape[:2])
        if not known.any():
            raise LeftOut('nothing valid', f'{item.mask} has no annotated pixel at the size of the model')
        picture = coloured(ids, table, self.config.colour_code)
        instances = np.where(table[ids] == UNLABELLED, 0, ids)
        target = Target(picture, None if known.all() else known)
        return Example(image, {'segmentation': target}, MapTruth(instances=instances, scored=known))

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return IoU of objects and boundary F1 of a generated segmentation picture."""
        return segmentation_values(pictures['segmentation'], example.truth, self.config.colour_code)


def open_set(entry: DataEntry, model: ModelInput) -> Photos:
    """Open the set that a config names."""
    return Photos(entry, model)
