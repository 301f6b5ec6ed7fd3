"""Adapters: nothing else learns, merging changes no output, and a run with them goes on and is started from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cooper_model.network.model import Cooper
from tests.random_checkpoint import tiny_config, write_random_checkpoint
from tests.training.tiny_run import loss_of
from training import export
from training.config import LoopConfig
from training.loop import Run
from training.lora import LoraSettings, add_adapters, merge_adapters
from training.start import start_model
from training.state import SavedState, load_average

SETTINGS = LoopConfig(steps=4, learning_rate=1e-2, save_every=2, bf16=False, lora=LoraSettings(rank=4, alpha=8))


@pytest.fixture(scope='module')
def base(tmp_path_factory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp('base'))


def started(folder: Path) -> Cooper:
    model = Cooper(tiny_config())
    start_model(folder, model)
    return model


def value(model: Cooper) -> Tensor:
    with torch.no_grad():
        return loss_of(model, np.random.default_rng(3), False)['total']


def trained(base: Path, out: Path, stop: int = 4) -> Run:
    run = Run(started(base), SETTINGS, out, start=base)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor | float]:
        if step == stop:
            raise KeyboardInterrupt
        return loss_of(run.model, rng, False)

    if stop < SETTINGS.steps:
        with pytest.raises(KeyboardInterrupt):
            run.train(loss)
    else:
        run.train(loss)
    return run


def test_only_adapters_learn(base, tmp_path):
    before = started(base)
    run = trained(base, tmp_path)
    layers, experts, matrices = 2, 2, 7
    assert len(run.parameters) == 2 * layers * experts * matrices
    assert all('lora_' in name for name in run.parameters)
    plain = {name.replace('.base_layer', ''): p for name, p in run.model.named_parameters() if 'lora_' not in name}
    for name, p in before.named_parameters():
        assert torch.equal(plain[name], p), name


def test_merged_weights_compute_what_adapters_did(base, tmp_path):
    run = trained(base, tmp_path)
    names = [name for name, _ in started(base).named_parameters()]
    with run.averaged():
        expected = value(run.model)
        assert abs(float(expected - value(started(base)))) > 1e-3
        merge_adapters(run.model)
        torch.testing.assert_close(value(run.model), expected, atol=1e-5, rtol=1e-5)
    assert [name for name, _ in run.model.named_parameters()] == names


def test_a_later_stage_starts_with_the_merged_average(base, tmp_path):
    run = trained(base, tmp_path)
    with run.averaged():
        expected = value(run.model)
    torch.testing.assert_close(value(started(tmp_path)), expected, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match='adapters alone'):
        load_average(tmp_path, started(base))


def test_an_export_has_the_adapters_merged(base, tmp_path, monkeypatch):
    run = trained(base, tmp_path / 'run')
    with run.averaged():
        expected = value(run.model)
    words = ['--architecture', base, '--autoencoder', base, '--run', tmp_path / 'run', '--out', tmp_path / 'out']
    monkeypatch.setattr('sys.argv', ['export', *map(str, words), '--dtype', 'float32'])
    export.main()
    torch.testing.assert_close(value(started(tmp_path / 'out')), expected, atol=1e-5, rtol=1e-5)


def test_a_resumed_run_ends_in_the_same_adapters(base, tmp_path):
    trained(base, tmp_path / 'straight')
    trained(base, tmp_path / 'cut', stop=3)
    trained(base, tmp_path / 'cut')
    with SavedState(tmp_path / 'straight') as one, SavedState(tmp_path / 'cut') as other:
        for kind in ('model', 'average', 'exp_avg'):
            assert all(torch.equal(one.get(kind, name), other.get(kind, name)) for name in one.names(kind))


def test_an_expression_that_fits_nothing_is_refused():
    with pytest.raises(ValueError, match="no linear is called 'x'"):
        add_adapters(Cooper(tiny_config()), LoraSettings(matrices='x'))


def test_adapters_of_a_frozen_bf16_model_are_float32(base, tmp_path):
    run = Run(started(base).bfloat16(), SETTINGS, tmp_path, start=base)
    assert {p.dtype for p in run.parameters.values()} == {torch.float32}
    assert {p.dtype for name, p in run.model.named_parameters() if name not in run.parameters} == {torch.bfloat16}
