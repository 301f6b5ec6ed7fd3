"""The throughput of training is measured on a real run, and its figures fit together."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import training
from training.settings import read_settings
from training.sft import Settings

CONFIG = Path(__file__).parents[2] / 'training/configs/nano/continue.yaml'


def test_figures_of_a_short_run_fit_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, 'SCENES', 4)
    monkeypatch.setattr(training, 'HELD_OUT', 2)
    monkeypatch.setattr('training.start.HELD_OUT', 2)
    settings = read_settings(CONFIG, Settings)
    stage = replace(settings.stage, batch=1, beside=0, modes=settings.stage.modes[:1])
    settings = replace(settings, stage=stage, data=(), compile=False)
    found = training.measure(settings, 3, tmp_path)
    assert found['processes'] == 1 and 0 < found['share_of_peak'] < 1
    assert found['scenes_per_s'] > 0 and found['step_s'] > 0
    assert found['tflop_per_s'] == pytest.approx(found['tokens_per_s'] * found['gflop_per_token'] / 1000, rel=1e-3)
    # Two operations a weight and token forward, twice that backward, and a token passes half of the weights.
    assert 0.005 < found['gflop_per_token'] < 0.1


def test_a_record_becomes_a_table_in_a_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = dict.fromkeys(training.FIGURES, 2.5) | {'share_of_peak': 0.421, 'processes': 2, 'device': 'cpu'}
    record |= {'command': 'bench.training --config a.yaml', 'machine': 'a machine', 'date': '2026-01-01'}
    out, document = tmp_path / 'found.json', tmp_path / 'page.md'
    training.keep_record(out, record)
    document.write_text('<!-- bench:training -->\n<!-- /bench -->\n')
    training.main(['--out', str(out), '--table', str(document)])
    text = document.read_text()
    assert '| share of that | 42 % |' in text and '`bench.training --config a.yaml`; 2 processes on cpu' in text
    with pytest.raises(SystemExit):
        training.main([])
    assert '--config is needed' in capsys.readouterr().err
