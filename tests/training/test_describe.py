"""What is said of a scene is true, finds its objects in the image, and gives no place away by its order."""

from __future__ import annotations

import re

import numpy as np
import pytest

from cooper_sim.distribution import Distribution
from cooper_sim.render import Renderer
from cooper_sim.sample import Sample, make_sample
from training.describe import centimetres, describe, fact, listing, quantity, seen


@pytest.fixture(scope='module')
def sample() -> Sample:
    return make_sample(5, Renderer(128, 96), Distribution.load('train'))


def test_a_fact_names_an_object_its_place_and_its_numbers(sample: Sample) -> None:
    thing = seen(sample.visible)[0]
    words = fact(thing, 'xz', sample)
    found = re.fullmatch(rf'{thing.name} at (\d+) (\d+) x (-?\d+) z (\d+)', words)
    assert found, words
    across, down, x, z = map(int, found.groups())
    rows, columns = np.nonzero(sample.ids == thing.id)
    assert abs(across - 100 * (columns.min() + columns.max() + 1) / 2 / 128) <= 2.5
    assert abs(down - 100 * (rows.min() + rows.max() + 1) / 2 / 96) <= 2.5
    assert (x, z) == (centimetres(thing.center[0]), centimetres(thing.center[2]))


def test_a_description_names_every_object_once_in_varying_order(sample: Sample) -> None:
    told = {describe(sample, np.random.default_rng(seed)) for seed in range(8)}
    names = sorted(thing.name for thing in seen(sample.visible))
    assert len(names) > 1 and len(told) > 1
    for text in told:
        assert sorted(part.strip().partition(' at ')[0] for part in text.rstrip('.').split(';')) == names


def test_numbers_along_right_angles_give_the_distance(sample: Sample) -> None:
    for thing in sample.visible:
        way = [quantity(thing, key, sample) for key in 'xef']
        assert np.linalg.norm(way) == pytest.approx(quantity(thing, 'd', sample), rel=0.01)


def test_a_list_goes_from_left_to_right(sample: Sample) -> None:
    told = re.findall(r'at (\d+)', listing(sample))
    assert len(told) == len(seen(sample.visible)) and told == sorted(told, key=int)
