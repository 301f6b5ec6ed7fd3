"""What fewer bits cost is measured once a setting and put into a table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.quantisation import SETTINGS, main, table
from cooper_cli.plan import devices
from cooper_model.config import CooperConfig
from cooper_model.memory import GB, make_plan
from cooper_model.quantise import Quantisation
from tests.random_checkpoint import write_random_checkpoint

ROOT = Path(__file__).parents[2]


def entry(value: float) -> dict:
    bounds = [value - 0.01, value + 0.01]
    figures = dict.fromkeys(('abs_rel', 'delta1', 'miou', 'overall'), value)
    figures |= {f'{name}_95': bounds for name in figures}
    return {'depth': figures, 'segmentation': figures, 'answers': figures, 'machine': 'a machine', 'date': '2026-01-01'}


def test_everything_that_a_plan_chooses_is_measured():
    measured = {Quantisation.parse(setting) for setting in SETTINGS}
    for kind, size in devices():
        plan = make_plan(CooperConfig(), int(size * GB), kind)
        if plan.free >= 0:
            assert plan.quantisation in measured


def test_settings_are_measured_once(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    folder = write_random_checkpoint(tmp_path / 'tiny')
    out, document = tmp_path / 'bits.json', tmp_path / 'performance.md'
    arguments = ['--settings', 'none', '--scenes', '2', '--workers', '1', '--checkpoint', str(folder)]
    arguments += ['--out', str(out)]
    main(arguments)
    assert '| `none` | ' in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert found['modes'] == 'direct' == found['by_setting']['none']['answers']['mode']
    found['by_setting']['none'] |= entry(0.5)
    out.write_text(json.dumps(found))
    main(arguments)
    assert '| `none` | 0.500 ± 0.010 |' in capsys.readouterr().out
    document.write_text('<!-- bench:quantisation -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document)])
    assert '| `none` | 0.500 ± 0.010 |' in document.read_text() and '2 scenes, mode direct' in document.read_text()
    with pytest.raises(SystemExit):
        main([*arguments, '--modes', 'auto'])
    assert 'another modes' in capsys.readouterr().err


def test_an_unknown_setting_is_told_before_work_begins(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['--settings', 'none', 'int3', '--out', str(tmp_path / 'none.json')])
    assert "'int3'" in capsys.readouterr().err


def test_depth_without_metres_has_no_figures():
    record = {'checkpoint': 'nano', 'scenes': 2, 'modes': 'direct', 'seed': 0, 'by_setting': {'none': entry(0.5)}}
    record['by_setting']['none']['depth'] = dict.fromkeys(('abs_rel', 'delta1'))
    assert '| `none` | - | - | 0.500 ± 0.010 |' in table(record)
