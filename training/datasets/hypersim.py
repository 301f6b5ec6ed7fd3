"""Hypersim: rendered rooms with dense depth; PNG in millimetres along the optical axis, as Marigold processes them.

Range 1e-5 to 65 m. Hypersim's own files hold distances along the ray: convert them first.
"""

from __future__ import annotations

from cooper_model.transforms import PUBLISHED_DEPTH
from cooper_model.types import CameraIntrinsics
from training.datasets.base import DataEntry, ModelInput
from training.datasets.depth_pairs import DepthFiles, DepthPairs

# A horizontal field of view of 60 degrees; a few scenes have another, which their lines may state.
CAMERA = CameraIntrinsics(886.81, 886.81, 511.5, 383.5, 1024, 768)
FILES = DepthFiles(
    PUBLISHED_DEPTH['hypersim'],
    'filename_list_train_filtered.jsonl',
    'Get Hypersim (github.com/apple/ml-hypersim), process it as Marigold does, and put the released '
    'filename_list_train_filtered.jsonl beside it',
    camera=CAMERA,
)


def open_set(entry: DataEntry, model: ModelInput) -> DepthPairs:
    """Open the set that a config names."""
    return DepthPairs(entry, model, FILES)
