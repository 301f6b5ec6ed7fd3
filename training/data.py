"""Simulated scenes on disk as the pictures that training uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cooper_model.config import CooperConfig
from cooper_model.perception import encode_depth, encode_segmentation
from cooper_model.types import UNLABELLED
from cooper_sim.records import Record, SimDataset


@dataclass(frozen=True)
class Pictures:
    """One scene as the model meets it, each ``(height, width, 3)`` uint8 RGB."""

    image: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray


class SimulatedScenes:
    """A folder written by ``python -m cooper_sim.dataset``.

    :raises ValueError: the folder holds no finished data set
    """

    def __init__(self, folder: str | Path, config: CooperConfig) -> None:
        self.config = config
        self.records = SimDataset(folder)
        self._classes = {name: number for number, name in enumerate(config.colour_code.names)}

    def __len__(self) -> int:
        return len(self.records)

    def pictures(self, number: int) -> Pictures:
        """Return the camera image and the two pictures to generate."""
        return self.pictures_of(self.records[number])

    def pictures_of(self, record: Record) -> Pictures:
        """Return the same of a record at hand."""
        table = np.full(256, UNLABELLED, np.uint8)
        for thing in record.visible:
            table[thing.id] = self._classes[thing.kind]
        segmentation = encode_segmentation(table[record.ids], record.ids, self.config.colour_code)
        depth = encode_depth(record.depth, self.config.depth_range_of(record.intrinsics))
        return Pictures(record.image, depth, segmentation)
