"""Configuration: what is read, and what is refused with a remedy or a name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cooper_model.config import CooperConfig, SamplerConfig

GOLDEN = Path(__file__).parents[1] / 'golden' / 'alpha'


def _folder(tmp_path: Path, **changes: dict) -> Path:
    for name in ('llm_config', 'vit_config', 'case_config'):
        values = json.loads((GOLDEN / f'{name}.json').read_text())
        (tmp_path / f'{name}.json').write_text(json.dumps(values | changes.get(name, {})))
    return tmp_path


def test_absent_values_are_the_published_ones(tmp_path: Path) -> None:
    folder = _folder(tmp_path)
    (folder / 'case_config.json').unlink()
    config = CooperConfig.load(folder)
    assert (config.max_latent_side, config.vision.max_side) == (64, 70)
    assert config.sampler == SamplerConfig(30, 3.0, 4.0, 2.0, (0.4, 1.0), 'global', 0.0)
    assert config.vision.num_layers == 2  # one less than vit_config counts


@pytest.mark.parametrize(
    ('file', 'change', 'words'),
    [
        ('llm_config', {'num_attention_heads': 5}, 'not a multiple'),
        ('llm_config', {'num_key_value_heads': 3}, 'cannot share'),
        ('llm_config', {'hidden_act': 'gelu'}, 'hidden_act'),
        ('case_config', {'vit_rope': True}, 'vit_rope'),
        ('case_config', {'layer_module': 'Qwen2DecoderLayer'}, 'layer_module'),
        ('case_config', {'sampler': {'num_timesteps': 1}}, 'num_timesteps'),
        ('case_config', {'sampler': {'renorm': 'none'}}, 'renorm'),
        ('case_config', {'sampler': {'steps': 4}}, 'steps'),
    ],
)
def test_what_cannot_be_computed_is_refused(tmp_path: Path, file: str, change: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        CooperConfig.load(_folder(tmp_path, **{file: change}))


def test_a_folder_that_is_no_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='llm_config.json is missing'):
        CooperConfig.load(tmp_path)
    with pytest.raises(FileNotFoundError, match='not a folder'):
        CooperConfig.load(tmp_path / 'nothing')
    (tmp_path / 'llm_config.json').write_text('{')
    with pytest.raises(ValueError, match='not valid JSON'):
        CooperConfig.load(tmp_path)
