"""Real colour images with registered depth, as ``train_real/rgbd`` and ``rgbd`` of the shared data hold them.

``{"color": path, "depth": path, "intrinsics": {fx, fy, cx, cy}}`` a line of ``index.jsonl``, or an element of
``index.json``; maybe ``"sequence"``, which the entry's ``only`` chooses by, otherwise the first folder of the depth
file; ``"depth_units_per_m"``, otherwise millimetres; and ``"sparse"``, for cameras that measure a quarter of the
pixels: there a latent token counts from 10 % of measured pixels on. Depth beyond 10 m is not scored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from cooper_model.transforms import PublishedDepth
from training.datasets.base import DENSE, DataEntry, ModelInput
from training.datasets.depth_pairs import DepthFiles, DepthItem, DepthPairs
from training.datasets.images import existing, read_camera, same_size
from training.datasets.report import LeftOut
from training.datasets.rows import Line, number_of, text_of

SPARSE = 0.1
FILES = DepthFiles(
    PublishedDepth(1000.0, (1e-3, 10.0), cropped=False),
    'index.jsonl',
    'Name the folder that holds index.jsonl, color/ and depth/, for example train_real/rgbd of the shared data',
)


class RgbdPairs(DepthPairs):
    """Images and depth pictures of cameras that measure depth."""

    def _parse(self, row: Mapping[str, Any], line: Line) -> DepthItem | None:
        name = text_of(row, 'depth')
        sequence = text_of(row, 'sequence', PurePosixPath(name).parts[0] if name else '')
        if self.entry.only and sequence not in self.entry.only:
            return None
        image, depth = existing(self.root, text_of(row, 'color')), existing(self.root, name)
        height, width = same_size(image, depth)
        units = number_of(row, 'depth_units_per_m', FILES.published.units)
        if units is None or units <= 0:
            raise LeftOut('broken line', f"'depth_units_per_m' is {units}, expected a positive number")
        self.check_length(height, width)
        camera = read_camera(row.get('intrinsics'), height, width)
        return DepthItem(image, line.place, depth, camera, units, SPARSE if row.get('sparse') else DENSE)


def open_set(entry: DataEntry, model: ModelInput) -> RgbdPairs:
    """Open the set that a config names."""
    return RgbdPairs(entry, model, FILES)
