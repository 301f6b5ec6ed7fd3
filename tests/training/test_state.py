"""The state on disk when there is no room, and when it is of another model."""

from __future__ import annotations

import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.config import LoopConfig
from training.loop import Run
from training.state import STATE, SavedState, StateNotWrittenError, Writer, is_run

SETTINGS = LoopConfig(steps=3, learning_rate=1e-2, save_every=1, bf16=False)


def started(folder: Path, width: int = 64) -> Run:
    torch.manual_seed(0)
    return Run(nn.Sequential(nn.Linear(8, width), nn.Linear(width, 1)), SETTINGS, folder)


def loss_of(run: Run) -> Tensor:
    return run.model(torch.randn(4, 8)).square().mean()


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size [bytes], as a full disk would not."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_without_room_the_old_state_stays_and_training_goes_on(tmp_path, caplog):
    run = started(tmp_path)

    def loss(step: int, rng: object) -> dict[str, Tensor]:
        if step == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, resource.RLIM_INFINITY))
        if step == 2:
            with SavedState(tmp_path) as saved:
                assert saved.step == 1
            assert [path.name for path in tmp_path.glob('state*')] == [STATE]
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return {'total': loss_of(run)}

    with room_for(resource.RLIM_INFINITY):
        run.train(loss)
    assert f'{tmp_path / STATE} was not written' in caplog.text and 'trying again at the next save' in caplog.text
    with SavedState(tmp_path) as saved:
        assert saved.step == 3


def test_the_last_state_that_finds_no_room_is_an_error(tmp_path):
    run = started(tmp_path)
    size = 2 * 4 * sum(p.numel() for p in run.parameters.values())  # weights and average, before the first step
    with room_for(1000), pytest.raises(StateNotWrittenError, match=rf'needs {size:,} bytes, .* free'):
        run.save()
    assert not is_run(tmp_path)
    with room_for(1000), pytest.raises(StateNotWrittenError):
        run.train(lambda step, rng: {'total': loss_of(run)})


def test_a_state_of_another_model_names_the_tensors(tmp_path):
    started(tmp_path).save()
    with pytest.raises(ValueError, match=r'0\.weight has shape \(64, 8\), expected \(32, 8\)'):
        started(tmp_path, width=32)
    with pytest.raises(ValueError, match=r'another model: .*1\.weight of shape \(1, 64\) is unknown'):
        Run(nn.Sequential(nn.Linear(8, 64)), SETTINGS, tmp_path)


def test_a_part_is_not_begun_where_all_parts_together_have_no_room(tmp_path, monkeypatch):
    weights = {'model.weight': torch.zeros(100)}
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=500))
    with pytest.raises(StateNotWrittenError, match='it needs 800 bytes, 500 are free'):
        Writer(tmp_path, 0, 2, bool).write(weights, 1, {})
    assert not list(tmp_path.iterdir())
    Writer(tmp_path, 0, 1, bool).write(weights, 1, {})
    assert is_run(tmp_path)


def test_a_damaged_state_is_named(tmp_path):
    (tmp_path / STATE).write_bytes(b'nothing')
    with pytest.raises(ValueError, match=f'{STATE} is damaged'):
        started(tmp_path)


def test_parts_of_a_state_that_is_not_whole_are_passed_over(tmp_path):
    started(tmp_path).save()
    (tmp_path / 'state-00000009-000-of-002.safetensors').write_bytes((tmp_path / STATE).read_bytes())
    with SavedState(tmp_path) as saved:
        assert saved.step == 0
