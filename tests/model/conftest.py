"""What several tests of exported graphs share: graphs take seconds to export, so each set is exported once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from cooper_model.config import AutoencoderConfig
from cooper_model.loading import default_checkpoint
from tests.random_checkpoint import tiny_config, write_random_checkpoint


@pytest.fixture(scope='session')
def nano_graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the exported graphs of the shipped checkpoint."""
    from cooper_model.export.onnx import export_onnx

    folder = tmp_path_factory.mktemp('nano_graphs')
    export_onnx(default_checkpoint(), folder)
    return folder


@pytest.fixture(scope='session')
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny checkpoint with grouped heads and the published form of autoencoder."""
    flux = AutoencoderConfig(base_channels=32, multipliers=(1, 1, 1, 1), num_res_blocks=1, z_channels=4)
    folder = tmp_path_factory.mktemp('tiny')
    return write_random_checkpoint(folder, config=replace(tiny_config(), autoencoder=flux))


@pytest.fixture(scope='session')
def tiny_graphs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """Return a function from an opset to a folder with the graphs of the tiny checkpoint; only to be read."""
    from cooper_model.export.onnx import export_onnx

    @cache
    def exported(opset: int) -> Path:
        folder = tmp_path_factory.mktemp(f'tiny_opset{opset}')
        export_onnx(tiny_checkpoint, folder, opset=opset)
        return folder

    return exported
