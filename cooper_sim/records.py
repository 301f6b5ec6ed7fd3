"""Samples on disk: memory-mappable arrays, and one line of JSON a scene for what is in it.

A folder holds ``images.npy`` (N, H, W, 3) uint8, ``depths.npy`` (N, H, W) float16 [m], ``ids.npy`` (N, H, W)
uint8, ``objects.jsonl`` and ``meta.json``.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cooper_model.types import CameraIntrinsics
from cooper_sim.types import Sample, VisibleObject

ARRAYS: dict[str, tuple[str, int]] = {'images': ('uint8', 3), 'depths': ('float16', 0), 'ids': ('uint8', 0)}


@dataclass(frozen=True, eq=False)
class Record:
    """A stored sample; has what questions need, as `Sample` does.

    :param depth: ``(height, width)`` float32, z [m], rounded to float16 on the way
    :param up: the world's up direction in the optical frame
    """

    seed: int
    arrangement: str
    image: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    intrinsics: CameraIntrinsics
    visible: tuple[VisibleObject, ...]
    up: tuple[float, float, float]


def describe_sample(sample: Sample) -> dict:
    """Return what `Record` keeps beside the arrays, fit for JSON."""
    return {
        'seed': sample.scene.seed,
        'arrangement': sample.scene.arrangement,
        'intrinsics': dataclasses.asdict(sample.intrinsics),
        'up': sample.up,
        'visible': [dataclasses.asdict(thing) for thing in sample.visible],
    }


def open_array(folder: Path, name: str, count: int, size: tuple[int, int], mode: str) -> np.memmap:
    """Map one array of a data set of ``count`` samples of ``size`` (width, height); ``mode`` as for numpy."""
    kind, channels = ARRAYS[name]
    shape = (count, size[1], size[0], *([channels] if channels else []))
    return np.lib.format.open_memmap(folder / f'{name}.npy', mode=mode, dtype=kind, shape=shape)


class SimDataset:
    """A data set written by `cooper_sim.dataset`, read by index without loading it.

    :raises ValueError: the folder is no such data set, or is unfinished
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        missing = [
            n for n in (*(f'{a}.npy' for a in ARRAYS), 'objects.jsonl') if not (self.folder / n).is_file()
        ]
        if missing:
            raise ValueError(
                f'{folder}: no finished data set, lacks {", ".join(missing)}; run cooper_sim.dataset'
            )
        self.images, self.depths, self.ids = (
            np.load(self.folder / f'{a}.npy', mmap_mode='r') for a in ARRAYS
        )
        self.lines = (self.folder / 'objects.jsonl').read_text().splitlines()

    def __len__(self) -> int:
        return len(self.lines)

    def __getitem__(self, index: int) -> Record:
        entry = json.loads(self.lines[index])
        visible = tuple(
            VisibleObject(**{k: tuple(v) if isinstance(v, list) else v for k, v in thing.items()})
            for thing in entry['visible']
        )
        return Record(
            entry['seed'],
            entry['arrangement'],
            np.array(self.images[index]),
            self.depths[index].astype(np.float32),
            np.array(self.ids[index]),
            CameraIntrinsics(**entry['intrinsics']),
            visible,
            tuple(entry['up']),
        )
