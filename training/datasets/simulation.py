"""Simulated scenes on disk as the pictures that training uses, with everything that is known of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cooper_model.config import CooperConfig
from cooper_model.perception import encode_depth, encode_segmentation
from cooper_model.transforms import resize
from cooper_model.types import UNLABELLED, Modality
from cooper_sim.records import Record, SimDataset
from cooper_sim.scoring import nearest
from cooper_sim.types import Sample
from training.datasets.base import DataEntry, Example, MapTruth, ModelInput, Target
from training.datasets.report import ReadReport
from training.datasets.scores import depth_values, segmentation_values


@dataclass(frozen=True)
class Pictures:
    """One scene as the model meets it, each ``(height, width, 3)`` uint8 RGB."""

    image: np.ndarray
    depth: np.ndarray
    segmentation: np.ndarray


def true_pictures(scene: Record | Sample, config: CooperConfig) -> Pictures:
    """Return a scene's image and its two true maps as a model of this configuration would draw them."""
    image = resize(scene.image, config.vae_transform)
    height, width = image.shape[:2]
    ids, metres = nearest(scene.ids, height, width), nearest(scene.depth, height, width)
    table = np.full(256, UNLABELLED, np.uint8)
    for thing in scene.visible:
        table[thing.id] = config.colour_code.names.index(thing.kind)
    segmentation = encode_segmentation(table[ids], ids, config.colour_code)
    depth = encode_depth(metres, config.depth_range_of(scene.intrinsics))
    return Pictures(image, depth, segmentation)


class SimulatedScenes:
    """A folder written by ``python -m cooper_sim.dataset``.

    :raises ValueError: the folder holds no finished data set
    """

    modalities: tuple[Modality, ...] = ('depth', 'segmentation')

    def __init__(
        self, folder: str | Path, config: CooperConfig, flip: bool = False, name: str = 'simulation'
    ) -> None:
        self.name, self.config = name, config
        if flip:
            raise ValueError(f'{folder}: simulated scenes are not mirrored, their texts say left and right; drop flip')
        self.records = SimDataset(folder)
        self.report = ReadReport(self.name, used=len(self.records))

    def __len__(self) -> int:
        return len(self.records)

    def place(self, number: int) -> str:
        """Return the scene's number in its folder."""
        return f'{self.records.folder}, scene {number}'

    def pictures(self, number: int) -> Pictures:
        """Return the camera image and the two pictures to generate."""
        return self.pictures_of(self.records[number])

    def pictures_of(self, record: Record) -> Pictures:
        """Return the same of a record at hand."""
        return true_pictures(record, self.config)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one scene; see :class:`training.datasets.base.DataSet`."""
        record = self.records[number]
        if not maps:
            return Example(resize(record.image, self.config.vae_transform), record=record)
        pictures = self.pictures_of(record)
        targets = {kind: Target(getattr(pictures, kind).astype(np.float32) / 255) for kind in self.modalities}
        ids = nearest(record.ids, *pictures.image.shape[:2])
        truth = MapTruth(record.depth, self.config.depth_range_of(record.intrinsics), ids)
        return Example(pictures.image, targets, truth, record)

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return errors of generated depth and IoU of generated masks."""
        depth = depth_values(pictures['depth'], example.truth)
        return depth | segmentation_values(pictures['segmentation'], example.truth, self.config.colour_code)


def open_set(entry: DataEntry, model: ModelInput) -> SimulatedScenes:
    """Open the set that a config names.

    :raises ValueError: its images do not fit a sequence
    """
    data = SimulatedScenes(entry.path, model.config, entry.flip, entry.label)
    height, width = data.records.ids.shape[1:]
    tokens = model.sample_tokens(height, width, data.modalities)
    if model.max_tokens is not None and tokens > model.max_tokens:
        raise ValueError(f'{entry.path}: every scene has {tokens} tokens, at most {model.max_tokens} fit (max_tokens)')
    return data
