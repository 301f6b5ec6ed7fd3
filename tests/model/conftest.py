"""What several tests of exported graphs share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cooper_model.backends.graphs import OPSETS
from cooper_model.loading import default_checkpoint


@pytest.fixture(scope='session')
def nano_graphs(exported_once: Callable[[Path, int], Path]) -> Path:
    """Return a folder with the exported graphs of the shipped checkpoint; only to be read."""
    return exported_once(default_checkpoint(), OPSETS[0])
