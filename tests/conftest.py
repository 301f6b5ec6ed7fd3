"""What every test starts from: few threads, a ROS domain of its own, repeatable examples, shared data and graphs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

# Before NumPy, torch or a ROS process starts: they read these once.
# Tests run side by side and start processes of their own: each computes with one thread, and waits without spinning.
os.environ.update(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='PASSIVE')
os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
# A domain of this run, so that a robot or another run on the machine neither hears nor disturbs it, and of each worker
# of pytest-xdist, which has the first one's surroundings. Ten apart, since a test may take the next ones too.
os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
WORKER = int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))
if WORKER:
    os.environ['ROS_DOMAIN_ID'] = str(1 + (int(os.environ['ROS_DOMAIN_ID']) + 10 * WORKER) % 100)

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


# Graphs take seconds to export, so each set is exported once. What makes them is imported only where they are wanted.


@pytest.fixture(scope='session')
def exported_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, int], Path]:
    """Return a function from checkpoint and opset to a folder of graphs, in a cache that all workers of a run share."""
    from cooper_model.backends.graphs import fingerprint_checkpoint
    from cooper_model.export.cache import cached_graphs

    folder = tmp_path_factory.getbasetemp()
    cache = (folder.parent if 'PYTEST_XDIST_WORKER' in os.environ else folder) / 'cache'

    def exported(checkpoint: Path, opset: int) -> Path:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv('COOPER_CACHE', str(cache))
            return cached_graphs(checkpoint, fingerprint_checkpoint(checkpoint), opset=opset)

    return exported


@pytest.fixture(scope='session')
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint with grouped heads and the published form of autoencoder."""
    from cooper_model.config import AutoencoderConfig
    from tests.random_checkpoint import tiny_config, write_random_checkpoint

    flux = AutoencoderConfig(base_channels=32, multipliers=(1, 1, 1, 1), num_res_blocks=1, z_channels=4)
    folder = tmp_path_factory.mktemp('tiny')
    return write_random_checkpoint(folder, config=replace(tiny_config(), autoencoder=flux))


@pytest.fixture(scope='session')
def tiny_graphs(tiny_checkpoint: Path, exported_once: Callable[[Path, int], Path]) -> Callable[[int], Path]:
    """Return a function from an opset to a folder with the graphs of the tiny checkpoint; only to be read."""
    return lambda opset: exported_once(tiny_checkpoint, opset)
