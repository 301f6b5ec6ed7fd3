"""What ``cooper plan`` prints, for the published sizes and for a checkpoint of one's own."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from cooper_cli.main import app
from cooper_model.quantise import Quantisation


def run(*arguments):
    return CliRunner().invoke(app, ['plan', *map(str, arguments)])


def test_a_plan_adds_up():
    done = run('--memory', 32, '--device', 'jetson', '--json')
    record = json.loads(done.stdout)
    assert done.exit_code == 0 and record['fits']
    assert sum(record['bytes'].values()) == record['needed'] == record['memory'] - record['free']
    assert record['image_size'] == [688, 512] and record['branches'] == 3
    assert record['cache_tokens'] >= record['conversation_tokens']
    assert Quantisation.parse(record['quantise']).understanding == record['precision']['understanding']


def test_what_does_not_fit_is_told_with_what_it_lacks():
    done = run('--memory', 16, '--device', 'jetson')
    assert done.exit_code == 0
    assert 'does not fit: bfloat16, 3 branches, 688x512 lacks ' in done.stdout
    assert 'use --quantise understanding=' in done.stdout


def test_nothing_fits_is_a_failure():
    done = run('--memory', 8, '--json')
    record = json.loads(done.stdout)
    assert done.exit_code == 1 and not record['fits'] and record['free'] < 0


def test_a_checkpoint_of_ones_own_is_planned_by_its_own_sizes(checkpoint):
    record = json.loads(run('--memory', 4, '--checkpoint', checkpoint, '--json').stdout)
    assert record['quantise'] == 'none' and record['bytes']['generation weights'] < 1e6
    assert record['image_size'] == [64, 48]


@pytest.mark.parametrize('camera', ['640', '640x', '0x480', 'axb'])
def test_a_camera_without_a_size_is_refused(camera):
    done = run('--memory', 16, '--camera', camera)
    assert done.exit_code == 2 and camera in done.output


def test_a_missing_checkpoint_is_named(tmp_path):
    done = run('--memory', 16, '--checkpoint', tmp_path / 'nowhere')
    assert done.exit_code == 2 and 'nowhere' in done.output
