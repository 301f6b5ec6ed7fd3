"""Runs in several real processes: alike with and without sharded weights, and whole after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training import tiny_run
from tests.training.tiny_run import logged, start
from training.state import SavedState

UNEVEN = {'uneven': True, 'evaluate': True}
SHARDED = {'shard': True, 'checkpoint_layers': True}
HALF = {**SHARDED, 'bf16': True, 'freeze': ['vit_model']}  # as at full size
PARTS = ['state-00000004-000-of-002.safetensors', 'state-00000004-001-of-002.safetensors']


def same_state(one: Path, other: Path, tolerance: float, kinds: tuple[str, ...]) -> None:
    with SavedState(one) as a, SavedState(other) as b:
        assert a.step == b.step
        for kind in kinds:
            assert a.names(kind) and sorted(a.names(kind)) == sorted(b.names(kind))
            for name in a.names(kind):
                difference = (a.get(kind, name) - b.get(kind, name)).abs().max()
                assert float(difference) <= tolerance, (kind, name)


def same_curves(one: Path, other: Path, tolerance: float) -> None:
    for name, group in (('total', 'train'), ('gradient_norm', 'train'), ('total', 'held out')):
        # Steps after the last save of a killed run are there twice.
        assert logged(one, name, group)[-2:] == pytest.approx(logged(other, name, group)[-2:], rel=tolerance)


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Path:
    """The same training in one process that draws what two draw together, and in two; ``killed`` ends at step 3."""
    folder = tmp_path_factory.mktemp('runs')
    tiny_run.main(str(folder / 'one'), {'accumulate': 2}, **UNEVEN)
    tiny_run.main(str(folder / 'one muon'), {'accumulate': 2, 'muon': True}, **UNEVEN)
    muon = {'muon': True}
    settings = {'two': None, 'divided muon': muon, 'sharded muon': {**muon, **SHARDED}, 'half': HALF, 'killed': SHARDED}
    made = [{'out': folder / name, 'settings': values, **UNEVEN} for name, values in settings.items()]
    made[-1]['stop'] = 3
    start(*made, processes=2, fails=True)
    return folder


def test_two_processes_are_one_that_accumulates_two_batches(runs):
    assert logged(runs / 'two', 'total') == pytest.approx(logged(runs / 'one', 'total'), rel=1e-6)
    assert logged(runs / 'two', 'gradient_norm') == pytest.approx(logged(runs / 'one', 'gradient_norm'), rel=1e-5)
    same_curves(runs / 'two', runs / 'one', 1e-5)
    same_state(runs / 'two', runs / 'one', 1e-4, ('model', 'average', 'exp_avg', 'exp_avg_sq'))


def test_muon_of_sharded_weights_orthogonalises_whole_matrices(runs):
    # Its iterations run in bfloat16, so they agree no better than this; halves of matrices would differ by half.
    same_curves(runs / 'sharded muon', runs / 'one muon', 5e-3)
    same_state(runs / 'sharded muon', runs / 'one muon', 5e-3, ('momentum_buffer',))


def test_muon_divided_among_processes_updates_all_and_saves_all(runs):
    same_curves(runs / 'divided muon', runs / 'one muon', 5e-3)
    same_state(runs / 'divided muon', runs / 'one muon', 5e-3, ('model', 'average', 'momentum_buffer', 'exp_avg'))


def test_sharded_weights_train_in_bfloat16_beside_frozen_ones(runs):
    assert logged(runs / 'half', 'total') == pytest.approx(logged(runs / 'one', 'total'), rel=0.05)
    with SavedState(runs / 'half') as saved:
        assert all(name.startswith('vit_model.') for name in saved.names('frozen'))
        assert saved.get('frozen', saved.names('frozen')[0]).dtype == torch.bfloat16
        assert saved.get('model', 'vae2llm.weight').dtype == torch.float32


def test_killed_runs_go_on_from_their_last_save(runs):
    sharded, plain = runs / 'killed', runs / 'killed plain'
    assert logged(sharded, 'total') == pytest.approx(logged(runs / 'one', 'total')[:3], rel=1e-5)
    with SavedState(sharded) as saved:
        assert saved.step == 2
    # The first goes on to its end; another, whose weights are not split, is killed in turn.
    start({'out': sharded, 'settings': SHARDED, **UNEVEN}, {'out': plain, **UNEVEN, 'stop': 3}, processes=2, fails=True)
    assert sorted(path.name for path in sharded.glob('state*')) == PARTS
    with SavedState(plain) as saved:
        assert saved.step == 2
    torch.manual_seed(11)  # whatever happened before is of no account, nor how many processes there were
    tiny_run.main(str(plain), {'accumulate': 2}, **UNEVEN)
    for folder in (sharded, plain):
        same_curves(folder, runs / 'one', 1e-4)
        same_state(folder, runs / 'one', 1e-4, ('model', 'average', 'exp_avg', 'exp_avg_sq'))
