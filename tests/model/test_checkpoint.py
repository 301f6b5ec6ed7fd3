from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import fields, is_dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cooper_model.checkpoint import config_files, load_model, save_checkpoint
from cooper_model.config import (
    AutoencoderConfig,
    ColourCodeConfig,
    CooperConfig,
    DecoderConfig,
    ResizeConfig,
    SamplerConfig,
    SpecialTokens,
    VisionConfig,
)
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper

ALPHA = Path(__file__).parents[1] / 'golden' / 'alpha'
CONFIG_FILES = ('llm_config.json', 'vit_config.json', 'case_config.json')

UNUSUAL = CooperConfig(
    decoder=DecoderConfig(64, 2, 4, 1, 96, 300, 1e-5, 5e4, qk_norm=False),
    vision=VisionConfig(32, 1, 2, 48, 7, 1e-5, 12),
    autoencoder=AutoencoderConfig('patch', 8, (1, 2), 1, 4, 0.5, 0.25, 4),
    tokens=SpecialTokens(1, 2, 3, 4),
    latent_patch_size=1,
    max_latent_side=9,
    latent_table_spread=4.0,
    vision_table_spread=3.0,
    vae_transform=ResizeConfig(64, 32, 4),
    vit_transform=ResizeConfig(56, 28, 7),
    train_timestep_shift=2.0,
    usable_vocab=290,
    depth_focal=0.9,
    depth_range=(0.3, 6.0),
    sampler=SamplerConfig(12, 2.0, 3.0, 1.5, (0.2, 0.9), 'channel', 0.1, 'heun', 0.05, 2),
    colour_code=ColourCodeConfig(('ball', 'box'), ((10, 20), (30, 40)), (5, 5), (0, 128)),
    max_turns=2,
    max_new_tokens=64,
)
NANO = replace(UNUSUAL, autoencoder=AutoencoderConfig('patch', 8, (1,), 1, 16, 0.5, 0.25, 8), latent_patch_size=2)


def equal_fields(config: object, other: object) -> list[str]:
    """Return the names of the leaf fields in which both have one value."""
    equal = []
    for field in fields(config):
        a, b = getattr(config, field.name), getattr(other, field.name)
        if is_dataclass(a):
            equal += equal_fields(a, b)
        elif a == b:
            equal.append(field.name)
    return equal


@pytest.fixture
def nano() -> tuple[Cooper, torch.nn.Module]:
    torch.manual_seed(0)
    return Cooper(NANO), build_autoencoder(NANO.autoencoder)


@pytest.fixture
def alpha(tmp_path: Path) -> Path:
    for name in (*CONFIG_FILES, 'ema.safetensors', 'ae.safetensors'):
        shutil.copyfile(ALPHA / name, tmp_path / name)
    return tmp_path


def change(path: Path, **changes: torch.Tensor | None) -> None:
    state = load_file(path)
    for name, value in changes.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    path.unlink()
    save_file(state, path)


def test_every_setting_survives_its_files(tmp_path: Path) -> None:
    assert equal_fields(UNUSUAL, CooperConfig()) == [], 'give these an unusual value above'
    for config in (UNUSUAL, CooperConfig(), replace(CooperConfig(), usable_vocab=None)):
        for name, content in config_files(config).items():
            (tmp_path / name).write_text(json.dumps(content))
        assert CooperConfig.load(tmp_path) == config


def test_a_saved_checkpoint_is_read_back_from_shards(tmp_path: Path, nano: tuple[Cooper, torch.nn.Module]) -> None:
    prompts = tmp_path / 'prompts.json'
    prompts.write_text('{}')
    folder = tmp_path / 'saved'
    save_checkpoint(folder, *nano, dtype=torch.float32, files=[prompts], shard_bytes=50_000)
    assert len(list(folder.glob('ema-*.safetensors'))) > 2
    assert not (folder / 'ema.safetensors').exists()
    assert (folder / 'prompts.json').read_text() == '{}'
    for built, loaded in zip(nano, load_model(folder), strict=True):
        assert loaded.state_dict().keys() == built.state_dict().keys()
        for name, value in built.state_dict().items():
            torch.testing.assert_close(loaded.state_dict()[name], value, rtol=0, atol=0)


def test_saving_over_a_loaded_checkpoint_keeps_both_whole(
    tmp_path: Path, nano: tuple[Cooper, torch.nn.Module]
) -> None:
    save_checkpoint(tmp_path, *nano, dtype=torch.float32, shard_bytes=50_000)
    loaded = load_model(tmp_path)
    before = {name: value.clone() for name, value in loaded[0].state_dict().items()}
    other = Cooper(NANO)
    save_checkpoint(tmp_path, other, nano[1], dtype=torch.float32)
    assert not list(tmp_path.glob('ema-*')) and not list(tmp_path.glob('*.index.json'))
    for name, value in loaded[0].state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)
    weight = load_model(tmp_path)[0].vae2llm.weight
    torch.testing.assert_close(weight, other.vae2llm.weight.data, rtol=0, atol=0, check_stride=True)


@pytest.mark.parametrize(('umask', 'mode'), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_saved_files_have_the_permissions_of_any_new_file(
    tmp_path: Path, nano: tuple[Cooper, torch.nn.Module], umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        left_over = tmp_path / '.ae.safetensors.part'
        left_over.touch(mode=0o600)
        save_checkpoint(tmp_path, *nano)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys([*CONFIG_FILES, 'ema.safetensors', 'ae.safetensors'], mode)


def test_dtype_is_a_choice_of_writer_and_reader(tmp_path: Path, nano: tuple[Cooper, torch.nn.Module]) -> None:
    save_checkpoint(tmp_path, *nano, dtype=torch.bfloat16)
    assert load_file(tmp_path / 'ema.safetensors')['vae2llm.weight'].dtype == torch.bfloat16
    model, autoencoder = load_model(tmp_path, dtype=torch.float16)
    assert {value.dtype for part in (model, autoencoder) for value in part.state_dict().values()} == {torch.float16}
    torch.testing.assert_close(model.vae2llm.weight.float(), nano[0].vae2llm.weight.data, rtol=1e-2, atol=1e-3)


def test_position_tables_may_be_absent_or_of_another_size(alpha: Path) -> None:
    stored = load_model(alpha)[0].state_dict()
    names = ('latent_pos_embed.pos_embed', 'vit_pos_embed.pos_embed')
    change(alpha / 'ema.safetensors', **{names[0]: None, names[1]: torch.zeros(9, 64)})
    computed = load_model(alpha)[0].state_dict()
    for name in names:
        torch.testing.assert_close(computed[name], stored[name], rtol=0, atol=1e-6)


def test_a_fine_tune_may_call_its_file_model(alpha: Path) -> None:
    (alpha / 'ema.safetensors').rename(alpha / 'model.safetensors')
    load_model(alpha)


def test_folders_that_are_no_checkpoint_are_refused(alpha: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='not a folder'):
        load_model(tmp_path / 'nowhere')
    (alpha / 'ae.safetensors').unlink()
    with pytest.raises(FileNotFoundError, match=r'no ae\.safetensors'):
        load_model(alpha)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'llm2vae.bias': None}, r'misses llm2vae\.bias of shape \(64,\)'),
        ({'llm2vae.bias': torch.zeros(60)}, r'llm2vae\.bias has shape \(60,\), expected \(64,\)'),
        ({'surplus.weight': torch.zeros(2)}, r'unknown surplus\.weight of shape \(2,\)'),
    ],
)
def test_wrong_tensors_are_named(alpha: Path, changes: dict[str, torch.Tensor | None], message: str) -> None:
    change(alpha / 'ema.safetensors', **changes)
    with pytest.raises(ValueError, match=message):
        load_model(alpha)


@pytest.mark.parametrize('size', [0, 5, 1000, 1_000_000])
def test_a_truncated_file_is_refused(alpha: Path, size: int) -> None:
    path = alpha / 'ema.safetensors'
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=f'damaged.*{size} bytes'):
        load_model(alpha)


def test_a_broken_index_is_refused(tmp_path: Path, nano: tuple[Cooper, torch.nn.Module]) -> None:
    save_checkpoint(tmp_path, *nano, shard_bytes=30_000)
    index = tmp_path / 'ema.safetensors.index.json'
    content = json.loads(index.read_text())
    other = next(file for file in content['weight_map'].values() if file != content['weight_map']['llm2vae.bias'])
    content['weight_map']['llm2vae.bias'] = other
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r'llm2vae\.bias'):
        load_model(tmp_path)
    (tmp_path / other).unlink()
    with pytest.raises(FileNotFoundError, match=other):
        load_model(tmp_path)
    index.write_text('[]')
    with pytest.raises(ValueError, match='no index'):
        load_model(tmp_path)
