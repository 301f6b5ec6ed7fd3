"""The loop: its schedule, and that a resumed run is the run that was never interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from training.loop import LoopConfig, Run, load_average, rate

SETTINGS = LoopConfig(steps=8, learning_rate=1e-2, warmup=2, decay=4, save_every=4, evaluate_every=100, bf16=False)


def _model() -> nn.Module:
    torch.manual_seed(5)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def _train(folder: Path, stop: int) -> Run:
    model = _model()
    run = Run(model, SETTINGS, folder)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        if step == stop:
            raise KeyboardInterrupt
        x = torch.from_numpy(rng.standard_normal((6, 4), dtype=np.float32))
        return {'total': (model(x + 0.1 * torch.randn(6, 4)) - x.sum(1, keepdim=True)).square().mean()}

    if stop < SETTINGS.steps:
        with pytest.raises(KeyboardInterrupt):
            run.train(loss)
    else:
        run.train(loss)
    return run


def test_a_resumed_run_ends_in_the_same_weights(tmp_path: Path) -> None:
    straight = _train(tmp_path / 'straight', 8)
    _train(tmp_path / 'cut', 6)  # the state of step 4 is the last on disk
    resumed = _train(tmp_path / 'cut', 8)
    for name, weight in straight.parameters.items():
        assert torch.equal(weight, resumed.parameters[name]), name
        assert torch.equal(straight.average[name], resumed.average[name]), name


def test_averages_are_what_a_later_stage_loads(tmp_path: Path) -> None:
    run = _train(tmp_path, 8)
    model = _model()
    load_average(tmp_path, model)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, run.average[name])
        assert not torch.equal(weight, run.parameters[name])


def test_state_of_another_model_is_refused(tmp_path: Path) -> None:
    _train(tmp_path, 8)
    with pytest.raises(ValueError, match='another model'):
        load_average(tmp_path, nn.Sequential(nn.Linear(4, 8)))
    with pytest.raises(FileNotFoundError, match='earlier stage'):
        load_average(tmp_path / 'nothing', _model())


def test_rate_rises_holds_and_falls() -> None:
    rates = [rate(step, SETTINGS) for step in range(8)]
    assert rates[0] == pytest.approx(5e-3)
    assert rates[1:5] == pytest.approx([1e-2] * 4)
    assert rates[6] == pytest.approx(5e-3)
    assert rate(0, replace(SETTINGS, warmup=0)) == pytest.approx(1e-2)
    assert rate(8, SETTINGS) == 0


def test_a_diverging_loss_stops_the_run(tmp_path: Path) -> None:
    model = _model()
    run = Run(model, SETTINGS, tmp_path)
    with pytest.raises(FloatingPointError, match='step 0'):
        run.train(lambda step, rng: {'total': model(torch.full((1, 4), torch.nan)).sum()})
