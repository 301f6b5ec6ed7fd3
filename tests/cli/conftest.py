"""A checkpoint of random weights and an image for the commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.random_checkpoint import write_random_checkpoint


@pytest.fixture(scope='session')
def checkpoint(tmp_path_factory) -> Path:
    """Return the folder of a tiny checkpoint."""
    return write_random_checkpoint(tmp_path_factory.mktemp('tiny'))


@pytest.fixture(scope='session')
def picture(tmp_path_factory) -> Path:
    """Return an image file of 96 x 72 pixels."""
    path = tmp_path_factory.mktemp('picture') / 'room.png'
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 96, 3), dtype=np.uint8)).save(path)
    return path
