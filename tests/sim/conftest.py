"""A few rendered samples, shared by the tests of the simulation."""

from __future__ import annotations

import pytest

from cooper_sim import Distribution, make_sample
from cooper_sim.render import Renderer


@pytest.fixture(scope='session')
def distribution():
    return Distribution.load('eval')


@pytest.fixture(scope='session')
def renderer():
    return Renderer(128, 96)


@pytest.fixture(scope='session')
def samples(renderer, distribution):
    return [make_sample(seed, renderer, distribution) for seed in range(24)]
