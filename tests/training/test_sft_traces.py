"""Stage 2a on the released form of traces, from its settings to a run that a later stage starts from."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cooper_model.network.model import Cooper
from tests.random_checkpoint import tiny_config, write_random_checkpoint
from training.settings import read_settings
from training.sft_traces import Settings, train
from training.start import start_model


def picture(seed: int) -> str:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (48, 64, 3), np.uint8)).save(file, 'PNG')
    return base64.b64encode(file.getvalue()).decode()


def trace(number: int, image: str | None = None) -> str:
    asked = '<think>Look.</think><depth-estimation>Estimate the depth.</depth-estimation>'
    items = [
        ('image', image or picture(number), 'false'),
        ('text', f'Is the ball left of box {number}?', 'false'),
        ('text', asked, 'true'),
        ('image', picture(number + 100), 'false'),
        ('text', 'Here is the map.', 'false'),
        ('text', '<think>So.</think><answer>\\boxed{yes}</answer>', 'true'),
    ]
    rows = [{'type': kind, 'value': value, 'need_loss': learned} for kind, value, learned in items]
    return json.dumps({'interleaved_reason': rows})


@pytest.fixture
def settings(tmp_path) -> Settings:
    checkpoint = str(write_random_checkpoint(tmp_path / 'checkpoint'))
    (tmp_path / 'Interleaved_SFT.jsonl').write_text('\n'.join([trace(0), trace(1), '{}', trace(2), trace(3)]))
    values = dict.fromkeys(('architecture', 'autoencoder', 'start'), checkpoint)
    values |= {
        'out': str(tmp_path / 'run'),
        'data': {'set': 'interleaved', 'path': str(tmp_path), 'held_out': 1},
        'stage': {'batch': 2, 'max_tokens': 400},
        'loop': {'steps': 6, 'learning_rate': 3e-3, 'warmup': 1, 'log_every': 1, 'evaluate_every': 3},
    }
    values['loop']['freeze'] = ['vit_model']
    (tmp_path / 'sft.yaml').write_text(yaml.safe_dump(values))
    return read_settings(tmp_path / 'sft.yaml', Settings)


def test_traces_are_learned_and_the_vision_tower_stays(settings):
    before = Cooper(tiny_config())
    start_model(settings.start, before)
    run = train(settings)
    lines = [json.loads(line) for line in (Path(settings.out) / 'log.jsonl').read_text().splitlines()]
    losses = [line['total'] for line in lines if line['group'] == 'train']
    held_out = [line['text'] for line in lines if line['group'] == 'held out']
    assert losses[-1] < losses[0] - 0.5
    assert len(held_out) == 2 and held_out[1] < held_out[0]
    assert all(line['tokens_per_second'] > 0 for line in lines if line['group'] == 'train')
    after = Cooper(tiny_config())
    start_model(settings.out, after)
    for name, p in before.vit_model.named_parameters():
        assert torch.equal(after.vit_model.get_parameter(name), p), name
    for name, p in run.average.items():
        assert torch.equal(after.get_parameter(name), p), name


def test_a_missing_folder_of_data_is_named(settings, tmp_path):
    (tmp_path / 'Interleaved_SFT.jsonl').unlink()
    with pytest.raises(FileNotFoundError, match='Interleaved_SFT.jsonl'):
        train(settings)
