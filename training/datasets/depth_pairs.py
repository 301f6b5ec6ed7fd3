"""Images with depth files, in the released JSONL format: what Virtual KITTI, Hypersim, NYU and KITTI share.

One line holds ``{"rgb_image": path, "depth_image": path}``, maybe ``"data_id"``, maybe ``"intrinsics"`` (fx, fy, cx, cy
[px] of the whole image). Depth is a PNG of integers, 0 where nothing was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cooper_model.transforms import PublishedDepth, depth_to_relative
from cooper_model.types import CameraIntrinsics, Modality
from cooper_sim.scoring import nearest
from training.datasets.base import DENSE, DataEntry, Example, MapTruth, ModelInput, Target
from training.datasets.images import (
    cut,
    cut_camera,
    existing,
    fill_nearest,
    read_camera,
    read_integers,
    same_size,
    turned,
)
from training.datasets.listed import Item, Listed
from training.datasets.report import LeftOut
from training.datasets.rows import Line, text_of
from training.datasets.scores import depth_values


@dataclass(frozen=True)
class DepthFiles:
    """What tells one set of depth files from another.

    :param published: units of the files and the range [m] of their pictures
    :param list_name: the list in the set's folder
    :param remedy: how to get the data
    :param camera: of every image whose line has no intrinsics
    :param crop: ``(height, width)`` that is kept of larger images, the middle of the bottom
    :param window: ``(top, bottom, left, right)`` [px] that is scored in images of ``window_size``; None for all
    :param share: share of measured pixels from which a latent token counts
    """

    published: PublishedDepth
    list_name: str
    remedy: str
    camera: CameraIntrinsics | None = None
    crop: tuple[int, int] | None = None
    window: tuple[int, int, int, int] | None = None
    window_size: tuple[int, int] | None = None
    share: float = DENSE


@dataclass(frozen=True)
class DepthItem(Item):
    """One line: its files, its camera, file units in a metre, and from which share of pixels a token counts."""

    depth: Path
    camera: CameraIntrinsics | None
    units: float
    share: float


class DepthPairs(Listed[DepthItem]):
    """Images and depth pictures of one list."""

    modalities: tuple[Modality, ...] = ('depth',)

    def __init__(self, entry: DataEntry, model: ModelInput, files: DepthFiles) -> None:
        self.files = files
        super().__init__(entry, model, files.list_name, files.remedy)

    def _parse(self, row: Mapping[str, Any], line: Line) -> DepthItem | None:
        image = existing(self.root, text_of(row, 'rgb_image'))
        depth = existing(self.root, text_of(row, 'depth_image'))
        height, width = same_size(image, depth)
        camera = read_camera(row.get('intrinsics'), height, width) or self.files.camera
        if self.files.crop:
            height, width = min(height, self.files.crop[0]), min(width, self.files.crop[1])
        self.check_length(height, width)
        return DepthItem(image, line.place, depth, camera, self.files.published.units, self.files.share)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one pair; see :class:`training.datasets.base.DataSet`."""
        item, crop = self.items[number], self.files.crop
        mirrored = self.is_mirrored(rng)
        image = self.read_image(item, mirrored, crop)
        if not maps:
            return Example(image)
        metres = measured(turned(cut(read_integers(item.depth, deep=True), crop), mirrored), item.units)
        camera = item.camera and cut_camera(item.camera, crop)
        depth_range = self.config.depth_range_of(camera) or self.files.published.depth_range
        target = depth_target(metres, image.shape[:2], depth_range, item.share)
        return Example(image, {'depth': target}, MapTruth(self._scored(metres, mirrored), depth_range))

    def _scored(self, metres: np.ndarray, mirrored: bool) -> np.ndarray:
        """Return depth with NaN where the benchmark does not look: outside the set's range and its window."""
        near, far = self.files.published.depth_range
        kept = np.where((metres > near) & (metres < far), metres, np.nan)
        if self.files.window and metres.shape == self.files.window_size:
            top, bottom, left, right = self.files.window
            if mirrored:
                left, right = metres.shape[1] - right, metres.shape[1] - left
            inside = np.full_like(kept, np.nan)
            inside[top:bottom, left:right] = kept[top:bottom, left:right]
            kept = inside
        return kept

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return errors of a generated depth picture."""
        return depth_values(pictures['depth'], example.truth)


def measured(raw: np.ndarray, units: float) -> np.ndarray:
    """Return integers of a depth file as metres, float32, NaN where nothing was measured (0).

    :param units: file units in a metre
    """
    return np.where(raw > 0, raw.astype(np.float32) / np.float32(units), np.float32(np.nan))


def depth_target(
    metres: np.ndarray, size: tuple[int, int], depth_range: tuple[float, float], share: float
) -> Target:
    """Return depth ``(h, w)`` [m] as the picture of ``size`` (height, width) that a model shall generate.

    Every pixel takes the value of the one under its centre. Where that is NaN it is not valid, and is painted as the
    nearest valid one, so that no edge appears that is not there.

    :raises LeftOut: nothing was measured
    """
    small = nearest(metres, *size)
    valid = np.isfinite(small)
    if not valid.any():
        raise LeftOut('nothing valid', 'the depth file holds no measurement')
    relative = depth_to_relative(fill_nearest(small, valid), depth_range)
    picture = np.repeat(relative[..., None], 3, axis=2)
    return Target(picture, None if valid.all() else valid, share)
