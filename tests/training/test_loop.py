"""The loop: its schedule, and that a resumed run is the run that was never interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from training import curves
from training.loop import LoopConfig, Run
from training.optimizers import build_optimizers, rate, restore_optimizers
from training.state import SavedState, load_average

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


def test_all_of_an_optimiser_is_restored_to_where_its_weights_are(tmp_path: Path) -> None:
    # The count of steps, too: on a GPU fused AdamW reads it there.
    _train(tmp_path, 8)
    weights = dict(_model().to('meta').named_parameters())
    optimizers = build_optimizers(weights, SETTINGS)
    with SavedState(tmp_path) as saved:
        restore_optimizers(optimizers, weights, saved)
    state = [value for each in optimizers for kept in each.state.values() for value in kept.values()]
    assert len(state) == 3 * len(weights)
    assert all(value.device.type == 'meta' for value in state)


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


def _with_faults(folder: Path, faulty: set[int], max_skipped: int = 2, infinite: bool = False) -> Run:
    """Train with a loss that is no number, or whose gradient alone is infinite, in some steps."""
    model = _model()
    run = Run(model, replace(SETTINGS, max_skipped=max_skipped, log_every=1), folder)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        x = torch.from_numpy(rng.standard_normal((6, 4), dtype=np.float32))
        total = model(x).square().mean()
        if step in faulty:
            total = (total * 0).sqrt() if infinite else total * torch.nan
        return {'total': total}

    run.train(loss)
    return run


@pytest.mark.parametrize('infinite', [False, True])
def test_a_step_without_a_finite_loss_or_gradient_is_left_out(tmp_path: Path, infinite: bool) -> None:
    run = _with_faults(tmp_path, {3, 6}, infinite=infinite)
    assert run.skipped == 2
    lines = [json.loads(line) for line in (tmp_path / 'log.jsonl').read_text().splitlines()]
    assert [line['skipped'] for line in lines] == [0, 0, 0, 1, 1, 1, 2, 2]
    assert all(bool(p.isfinite().all()) for p in (*run.parameters.values(), *run.average.values()))


def test_weights_that_give_no_finite_loss_are_never_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def diverging(folder: Path, bad: int, steps: int) -> None:
        model = _model()
        run = Run(model, replace(SETTINGS, steps=steps, save_every=1, decay=0, max_skipped=2), folder)

        def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
            x = torch.from_numpy(rng.standard_normal((6, 4), dtype=np.float32))
            total = model(x).square().mean()
            if step == bad:  # which has a finite loss and gradient itself, as a step that is too long has
                model[0].weight.data.fill_(torch.nan)
            return {'total': total}

        run.train(loss)

    with pytest.raises(FloatingPointError, match=f'step 6, the last.* state in {tmp_path} is the last good'):
        diverging(tmp_path, 5, 6)
    with SavedState(tmp_path) as saved:
        assert saved.step == 5
    with pytest.raises(FloatingPointError, match='steps in a row'):
        diverging(tmp_path / 'early', 2, 8)
    with SavedState(tmp_path / 'early') as saved:
        assert saved.step == 2
    assert 'step 3 is not saved: its weights give no finite loss' in caplog.text


def test_a_log_holds_no_step_twice_after_a_kill(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError):
        _with_faults(tmp_path, {5, 6, 7})
    path = tmp_path / 'log.jsonl'
    with path.open('a') as file:
        file.write('{"step": 7, "gro')
    _with_faults(tmp_path, set())
    assert [json.loads(line)['step'] for line in path.read_text().splitlines()] == list(range(1, 9))


def test_curves_go_on_once_a_full_disk_has_room_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full = {'now': False}

    class Writer:
        """As TensorBoard's: what failed once fails for ever."""

        made: list[Writer] = []

        def __init__(self, folder: str, purge_step: int) -> None:
            self.broken, self.steps = False, []
            self.made.append(self)

        def add_scalar(self, name: str, value: float, step: int) -> None:
            self.broken |= full['now']
            if self.broken:
                raise OSError(28, 'No space left on device')
            self.steps.append(step)

        def close(self) -> None:
            if self.broken:
                raise OSError(28, 'No space left on device')

    monkeypatch.setattr(curves, 'SummaryWriter', Writer)
    with curves.Curves(tmp_path, 0, 5, Accelerator()) as told:
        for step in range(1, 6):
            full['now'] = step in (2, 3)
            told.write('train', {'total': 1.0}, step)
    assert sorted(step for each in Writer.made for step in each.steps) == [1, 4, 5]


def test_a_diverging_loss_stops_the_run_and_keeps_the_last_good_state(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=f'3 steps in a row.* state in {tmp_path} is the last good'):
        _with_faults(tmp_path, {5, 6, 7})
    with SavedState(tmp_path) as saved:
        assert saved.step == 4
    _with_faults(tmp_path, set())  # goes on from there
    with pytest.raises(FloatingPointError, match='no state was saved'):
        _with_faults(tmp_path / 'at once', {0, 1, 2})
