"""NYU Depth V2: rooms seen by a Kinect; PNG in millimetres, 0 where there is none. Published weights are tested on it.

Range 1e-3 to 10 m. Scored in Eigen's window of the original 640 x 480 pixels (rows 45 to 470, columns 41 to 600),
before any resizing.
"""

from __future__ import annotations

from cooper_model.transforms import PUBLISHED_DEPTH
from cooper_model.types import CameraIntrinsics
from training.datasets.base import DataEntry, ModelInput
from training.datasets.depth_pairs import DepthFiles, DepthPairs

FILES = DepthFiles(
    PUBLISHED_DEPTH['nyu'],
    'filename_list_test.jsonl',
    'Get the labelled part of NYU Depth V2 (cs.nyu.edu/~fergus/datasets/nyu_depth_v2.html) as PNG and put the released '
    'filename_list_test.jsonl beside it',
    camera=CameraIntrinsics(518.858, 519.470, 324.582, 252.736, 640, 480),
    window=(45, 471, 41, 601),
    window_size=(480, 640),
)


def open_set(entry: DataEntry, model: ModelInput) -> DepthPairs:
    """Open the set that a config names."""
    return DepthPairs(entry, model, FILES)
