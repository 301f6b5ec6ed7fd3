"""Every committed file of settings is one that its program reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import autoencoder, grpo, retrain_stage, sft, sft_traces, stage1
from training.settings import read_settings

CONFIGS = Path(__file__).parents[2] / 'training' / 'configs'
PROGRAMS = {
    'nano/autoencoder': autoencoder.Settings,
    'nano/continue': sft.Settings,
    'nano/grpo': grpo.Settings,
    'nano/retrain': retrain_stage.Recipe,
    'nano/sft': sft.Settings,
    'nano/stage1': stage1.Settings,
    '7b/grpo': grpo.Settings,
    '7b/retrain': retrain_stage.Recipe,
    '7b/sft': sft_traces.Settings,
    '7b/stage1': stage1.Settings,
}


@pytest.mark.parametrize('path', sorted(CONFIGS.rglob('*.yaml')), ids=lambda path: f'{path.parent.name}-{path.stem}')
def test_a_program_reads_its_settings(path):
    place = path.relative_to(CONFIGS).as_posix()
    program = next(program for name, program in PROGRAMS.items() if place.startswith(name))
    read_settings(path, program)
