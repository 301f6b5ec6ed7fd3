"""The real images of the shared data, read with nano's configuration."""

from __future__ import annotations

import numpy as np
import pytest

from cooper_model.config import CooperConfig
from training.datasets.base import DataEntry, ModelInput
from training.datasets.photos import CLASSES
from training.datasets.registry import open_pictures
from training.start import model_input


@pytest.fixture(scope='module')
def nano(repository) -> ModelInput:
    folder = repository / 'training/configs/nano'
    return model_input(folder, CooperConfig.load(folder))


def test_photographs_of_the_shared_data_are_read(nano, shared):
    data = open_pictures(DataEntry('photos', str(shared / 'data/train_real/coco')), nano)
    assert len(data) == 402 and not data.report.left_out
    ious = []
    known = set(CLASSES) | set(nano.config.colour_code.names)
    for number in [n for n, item in enumerate(data.items) if known & set(item.names.values())][:20]:
        example = data.example(number)
        target = example.targets['segmentation']
        assert max(example.image.shape) == 128 and target.picture.shape == example.image.shape
        ious += data.score(example, {'segmentation': target.picture})['miou']
    # What is left to 1 is lost by resizing to 128 pixels.
    assert len(ious) > 20 and np.mean(ious) > 0.7


def test_depth_of_the_shared_data_is_metres(nano, shared):
    data = open_pictures(DataEntry('rgbd', str(shared / 'data/train_real/rgbd')), nano)
    assert len(data) == 164 and not data.report.left_out
    for number in range(0, 164, 16):
        example = data.example(number)
        target = example.targets['depth']
        assert example.image.shape == (96, 128, 3) and target.valid is not None
        assert 0.2 < np.nanmedian(example.truth.depth) < 3
        near, far = example.truth.depth_range
        shown = target.picture[..., 0][target.valid] * (far - near) + near
        assert np.median(shown) == pytest.approx(np.nanmedian(example.truth.depth), rel=0.05)
    only = open_pictures(DataEntry('rgbd', str(shared / 'data/train_real/rgbd'), only=('apc_shelf',)), nano)
    assert len(only) == 15


def test_test_pairs_are_read_in_their_own_units(nano, shared):
    entry = DataEntry('rgbd', str(shared / 'data/rgbd/index.json'), only=('ycb_table', 'arc2017_bin'))
    data = open_pictures(entry, nano)
    medians = [float(np.nanmedian(data.example(n).truth.depth)) for n in range(len(data))]
    assert len(medians) == 6 and all(0.3 < median < 2 for median in medians)
