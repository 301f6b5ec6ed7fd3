"""Virtual KITTI 2: rendered streets with dense depth; PNG in centimetres, sky at the largest value.

Range 1e-5 to 80 m. Images are cut to the 1216 x 352 pixels of KITTI's benchmark; published weights then saw 1024 x 288.
"""

from __future__ import annotations

from cooper_model.transforms import PUBLISHED_DEPTH
from cooper_model.types import CameraIntrinsics
from training.datasets.base import DataEntry, ModelInput
from training.datasets.depth_pairs import DepthFiles, DepthPairs

KITTI_CROP = (352, 1216)
FILES = DepthFiles(
    PUBLISHED_DEPTH['vkitti'],
    'train.jsonl',
    'Get Virtual KITTI 2 (europe.naverlabs.com, images and depth) and put the released train.jsonl beside it',
    camera=CameraIntrinsics(725.0087, 725.0087, 620.5, 187.0, 1242, 375),
    crop=KITTI_CROP,
)


def open_set(entry: DataEntry, model: ModelInput) -> DepthPairs:
    """Open the set that a config names."""
    return DepthPairs(entry, model, FILES)
