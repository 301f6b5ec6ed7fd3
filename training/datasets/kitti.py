"""KITTI depth: streets with depth from a laser scanner; PNG in 1/256 m, 0 at the many pixels that no ray hit.

Range 1e-5 to 80 m, cut to the 1216 x 352 pixels of the benchmark. Since depth is sparse, a latent token counts from 5 %
of measured pixels on. Cameras differ a little from day to day: lines may state ``intrinsics``.
"""

from __future__ import annotations

from cooper_model.transforms import PUBLISHED_DEPTH
from cooper_model.types import CameraIntrinsics
from training.datasets.base import DataEntry, ModelInput
from training.datasets.depth_pairs import DepthFiles, DepthPairs
from training.datasets.vkitti import KITTI_CROP

FILES = DepthFiles(
    PUBLISHED_DEPTH['kitti'],
    'train.jsonl',
    'Get the annotated depth maps and raw images of KITTI (cvlibs.net/datasets/kitti) and write a list with '
    'rgb_image and depth_image a line beside them',
    camera=CameraIntrinsics(721.5377, 721.5377, 609.5593, 172.854, 1242, 375),
    crop=KITTI_CROP,
    share=0.05,
)


def open_set(entry: DataEntry, model: ModelInput) -> DepthPairs:
    """Open the set that a config names."""
    return DepthPairs(entry, model, FILES)
