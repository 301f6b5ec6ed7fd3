"""Measurements run the real command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.run import MEASUREMENTS, measure
from cooper_cli.main import COMMANDS
from tests.random_checkpoint import write_random_checkpoint

ROOT = Path(__file__).parents[2]


def test_every_measurement_is_a_command():
    assert {arguments[0] for arguments in MEASUREMENTS.values()} <= set(COMMANDS)


def test_a_record_carries_its_name_and_command(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    folder = write_random_checkpoint(tmp_path / 'tiny')
    record = measure('nano', ['--checkpoint', str(folder), '--threads', '1'])
    assert record['name'] == 'nano' and record['threads'] == 1 and record['text_prefill_256_s'] > 0
    assert record['command'] == f'cooper bench --json --checkpoint {folder} --threads 1'


def test_an_unknown_measurement_is_named():
    done = subprocess.run([sys.executable, '-m', 'bench.run', 'huge'], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and "'huge'" in done.stderr
