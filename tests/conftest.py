"""What every test starts from: few threads, a ROS domain of its own, repeatable random examples, shared data."""

from __future__ import annotations

import os
from pathlib import Path

# Before NumPy, torch or a ROS process starts: they read these once.
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
# A domain of this run, so that a robot or another run on the machine neither hears nor disturbs it.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

ROOT = Path(__file__).parents[1]

settings.register_profile('repeatable', derandomize=True, deadline=None, database=None)
settings.load_profile('repeatable')


@pytest.fixture(scope='session')
def repository() -> Path:
    """Return the root of the checkout."""
    return ROOT


@pytest.fixture(scope='session')
def shared() -> Path:
    """Return the folder of golden cases and real camera data; skip where it is absent."""
    folder = Path(os.environ.get('COOPER_SHARED', ROOT.parent / 'shared'))
    if not folder.is_dir():
        pytest.skip(f'no shared data at {folder}; set COOPER_SHARED')
    return folder
