"""``cooper retrain``: where it runs, what it says of a checkpoint that is better and of one that is not."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

pytest.importorskip('pydantic', reason='needs the extra train')

import training.retrain as program
from cooper_cli import retrain as command
from cooper_cli.main import app
from cooper_model.loading import default_checkpoint
from training.retrain import Outcome
from training.retrain_scores import Gain, as_record


def outcome(tmp_path, installed):
    gains = {'depth': Gain(0.5, 0.75, 0.2, 0.3, 60)}
    reason = '' if installed else 'worse: depth'
    card = {'robot': as_record(gains), 'old': as_record(gains), 'installed': installed, 'reason': reason}
    return Outcome(tmp_path / 'retrained' / 'checkpoint_0001', card)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Return a function that calls the command where retraining itself comes out at once."""
    wishes = []

    def call(*arguments, installed=True):
        monkeypatch.setattr(program, 'retrain', lambda given: wishes.append(given) or outcome(tmp_path, installed))
        return CliRunner().invoke(app, ['retrain', str(tmp_path), *arguments]), wishes[-1]

    return call


def test_a_better_checkpoint_is_told_with_its_figures(run, tmp_path, monkeypatch):
    monkeypatch.delenv('COOPER_CHECKPOINT', raising=False)
    found, wishes = run('--steps', '5')
    assert found.exit_code == 0, found.output
    assert '+0.250' in found.stdout and '+0.200 to +0.300' in found.stdout
    assert f'--checkpoint {tmp_path / "retrained" / "current"}' in found.stdout
    assert wishes.checkpoint == default_checkpoint() and wishes.out == tmp_path / 'retrained' and wishes.steps == 5


def test_one_that_is_no_better_has_a_status_of_its_own(run):
    found, _ = run('--json', installed=False)
    assert found.exit_code == command.NOT_INSTALLED
    assert json.loads(found.stdout)['reason'] == 'worse: depth'


def test_the_start_may_be_named_or_stand_in_the_environment(run, monkeypatch):
    monkeypatch.setenv('COOPER_CHECKPOINT', '/data/mine')
    assert str(run()[1].checkpoint) == '/data/mine'
    assert run('--checkpoint', 'nano')[1].checkpoint == default_checkpoint()


def test_outside_of_a_checkout_it_says_where_it_runs(run, tmp_path, monkeypatch):
    run()
    monkeypatch.setattr(command, '__file__', str(tmp_path / 'site-packages' / 'cooper_cli' / 'retrain.py'))
    found = CliRunner().invoke(app, ['retrain', str(tmp_path)])
    assert found.exit_code == 1 and 'training runs from the checkout' in found.stderr
