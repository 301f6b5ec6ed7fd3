from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from cooper_cli.main import app

ALPHA = Path(__file__).parents[1] / 'golden' / 'alpha'


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """The golden case with its autoencoder section alone, which is quick."""
    for path in [*ALPHA.glob('*.json'), *(ALPHA / f'{name}.safetensors' for name in ('ema', 'ae', 'vae'))]:
        shutil.copyfile(path, tmp_path / path.name)
    return tmp_path


def test_json_names_every_section_with_error_and_tolerance(case: Path) -> None:
    result = CliRunner().invoke(app, ['verify', str(case), '--json'])
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report['passed'] is True and list(report['sections']) == ['vae']
    section = report['sections']['vae']
    assert 0 <= section['max_error'] <= section['tolerance'] < 1e-3


def test_an_error_above_tolerance_is_told_and_exits_1(case: Path) -> None:
    tensors = load_file(case / 'vae.safetensors')
    tensors['moments'] = tensors['moments'] + np.float32(0.5)
    save_file(tensors, case / 'vae.safetensors')
    result = CliRunner().invoke(app, ['verify', str(case)])
    assert result.exit_code == 1
    assert 'FAILED' in result.stdout and 'vae: moments:' in result.stdout
    report = json.loads(CliRunner().invoke(app, ['verify', str(case), '--json']).stdout)
    assert report['passed'] is False
    assert report['sections']['vae']['max_error'] == pytest.approx(0.5, rel=1e-3)


def test_a_folder_without_a_case_is_bad_input(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ['verify', str(tmp_path / 'nowhere')])
    assert result.exit_code == 2
