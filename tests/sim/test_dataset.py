"""Data sets on disk hold what the simulation gives, and interrupted ones go on."""

from __future__ import annotations

import numpy as np
import pytest

from cooper_sim import SimDataset, make_sample, write_dataset
from cooper_sim.distribution import Distribution


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('scenes')
    seen = []
    write_dataset(folder, 5, 40, workers=1, progress=lambda done, count: seen.append((done, count)))
    assert seen == [(5, 5)]
    return folder


def test_records_are_samples(folder, renderer):
    data = SimDataset(folder)
    assert len(data) == 5 and data.images.shape == (5, 96, 128, 3)
    train = Distribution.load('train')
    for index in (0, 4):
        record, sample = data[index], make_sample(40 + index, renderer, train)
        assert record.seed == 40 + index and record.visible == sample.visible
        assert record.up == sample.up and record.intrinsics == sample.intrinsics
        np.testing.assert_array_equal(record.ids, sample.ids)
        np.testing.assert_allclose(record.depth, sample.depth, rtol=1e-3)
        assert np.abs(record.image.astype(int) - sample.image).mean() < 0.5


def test_a_finished_folder_is_left_alone_and_a_gap_is_filled(folder):
    before = SimDataset(folder).lines
    stamp = (folder / 'parts/00000000.jsonl').stat().st_mtime_ns
    write_dataset(folder, 5, 40, workers=1)
    assert (folder / 'parts/00000000.jsonl').stat().st_mtime_ns == stamp
    (folder / 'parts/00000000.jsonl').unlink()
    (folder / 'objects.jsonl').unlink()
    with pytest.raises(ValueError, match='objects.jsonl'):
        SimDataset(folder)
    write_dataset(folder, 5, 40, workers=1)
    assert SimDataset(folder).lines == before


def test_another_data_set_is_not_overwritten(folder):
    with pytest.raises(ValueError, match='empty folder'):
        write_dataset(folder, 6, 40, workers=1)
