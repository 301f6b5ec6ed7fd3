"""Training goes on from a run or from a checkpoint folder alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cooper_model.checkpoint import load_model
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from tests.random_checkpoint import tiny_config, write_random_checkpoint
from training.loop import LoopConfig, Run
from training.start import prepare_model, start_autoencoder, start_model


def test_weights_come_from_a_checkpoint_or_a_run(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / 'checkpoint')
    expected, expected_autoencoder = load_model(folder)
    model, autoencoder = Cooper(tiny_config()), build_autoencoder(tiny_config().autoencoder)
    start_model(folder, model)
    start_autoencoder(folder, autoencoder)
    for name, weight in expected.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name
    for name, weight in expected_autoencoder.state_dict().items():
        assert torch.equal(autoencoder.state_dict()[name], weight), name

    Run(model, LoopConfig(steps=1, learning_rate=1e-3), tmp_path / 'run').save()
    again = Cooper(tiny_config())
    start_model(tmp_path / 'run', again)
    for name, weight in expected.named_parameters():
        assert torch.equal(again.get_parameter(name), weight), name


def test_a_folder_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='give the folder of a COOPER checkpoint'):
        start_model(tmp_path, Cooper(tiny_config()))


def test_the_setting_that_names_no_checkpoint_is_told(tmp_path: Path) -> None:
    folder, nowhere = write_random_checkpoint(tmp_path / 'checkpoint'), tmp_path / 'nowhere'
    with pytest.raises(FileNotFoundError, match='^architecture: .*nowhere'):
        prepare_model(nowhere, folder, None)
    with pytest.raises(FileNotFoundError, match='^autoencoder: .*nowhere'):
        prepare_model(folder, nowhere, None)
    with pytest.raises(FileNotFoundError, match='^start: .*nowhere'):
        prepare_model(folder, folder, nowhere)
