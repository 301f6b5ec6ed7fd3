"""Checkpoint folders: safetensors in and out, strict, with errors that say what is missing and what to do.

A folder holds ``ema.safetensors`` (or ``model.safetensors``) and ``ae.safetensors``, each whole or in shards with
an index, beside the JSON files that :class:`~cooper_model.config.CooperConfig` reads.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import split_torch_state_dict_into_shards
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from cooper_model.config import CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.embeddings import position_table
from cooper_model.network.model import Cooper

MODEL_STEMS = ('ema', 'model')
AUTOENCODER_STEMS = ('ae',)
# Tensor bytes a file; headers come on top, and no file of the repository may exceed 16 MB.
SHARD_BYTES = 15_000_000
_SHOWN = 5


def load_model(
    folder: str | Path, device: str | torch.device = 'cpu', dtype: torch.dtype = torch.float32
) -> tuple[Cooper, nn.Module]:
    """Build the model and the autoencoder of a checkpoint folder and fill them.

    Tensors go one by one from the file to ``device`` in ``dtype``; nothing is initialised first or held twice.

    :raises FileNotFoundError: the folder or one of its files is missing
    :raises ValueError: a file is damaged, or a tensor is missing, unknown or of another shape
    """
    config = CooperConfig.load(folder)
    with torch.device('meta'):
        model, autoencoder = Cooper(config), build_autoencoder(config.autoencoder)
    load_weights(folder, model, autoencoder, device, dtype)
    return model, autoencoder


def load_weights(
    folder: str | Path,
    model: Cooper | None,
    autoencoder: nn.Module | None,
    device: str | torch.device = 'cpu',
    dtype: torch.dtype = torch.float32,
) -> None:
    """Fill a model and its autoencoder, which may lie on the meta device, from a checkpoint folder.

    The two fixed position tables are computed where the folder lacks them or has them in another size.

    :param model, autoencoder: None leaves the files of that one unread
    :raises FileNotFoundError, ValueError: as :func:`load_model`
    """
    folder = Path(folder)
    tables = _position_tables(model.config) if model is not None else {}
    for module, stems, computed in ((model, MODEL_STEMS, tables), (autoencoder, AUTOENCODER_STEMS, {})):
        if module is not None:
            state = _read_state(folder, stems, module, computed, torch.device(device), dtype)
            module.load_state_dict(state, strict=True, assign=True)


def _position_tables(config: CooperConfig) -> dict[str, Tensor]:
    dim = config.decoder.hidden_size
    return {
        'latent_pos_embed.pos_embed': position_table(dim, config.max_latent_side, config.latent_table_spread),
        'vit_pos_embed.pos_embed': position_table(dim, config.vision.max_side, config.vision_table_spread),
    }


def _read_state(
    folder: Path,
    stems: Iterable[str],
    module: nn.Module,
    computed: Mapping[str, Tensor],
    device: torch.device,
    dtype: torch.dtype,
) -> dict[str, Tensor]:
    """Return every tensor of ``module``'s state, checked by name and shape before any is read."""
    files = _locate_tensors(folder, stems)
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    with ExitStack() as stack:
        handles = {path: stack.enter_context(_open(path)) for path in sorted(set(files.values()))}
        found = {name: tuple(handles[path].get_slice(name).get_shape()) for name, path in files.items()}
        usable = {name for name in expected if name not in computed or found.get(name) == expected[name]}
        _check(folder, {name: expected[name] for name in usable}, found, computed)
        state = {name: handles[files[name]].get_tensor(name).to(device, dtype) for name in usable}
    for name, table in computed.items():
        if name not in usable:
            state[name] = table.to(device, dtype)
    return state


def _locate_tensors(folder: Path, stems: Iterable[str]) -> dict[str, Path]:
    """Return the file of each tensor, by an index where there is one."""
    for stem in stems:
        whole, index = folder / f'{stem}.safetensors', folder / f'{stem}.safetensors.index.json'
        if index.is_file():
            return _read_index(index)
        if whole.is_file():
            with _open(whole) as handle:
                return dict.fromkeys(handle.keys(), whole)
    wanted = ' or '.join(f'{stem}.safetensors' for stem in stems)
    raise FileNotFoundError(
        f'{folder} has no {wanted} (nor an index of shards); give the folder of a COOPER checkpoint'
    )


def _read_index(path: Path) -> dict[str, Path]:
    try:
        names = json.loads(path.read_text(encoding='utf-8'))['weight_map']
        files = {name: path.parent / Path(file).name for name, file in names.items()}
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f'{path} is no index of shards ({error!r}); copy the checkpoint again') from error
    held: dict[Path, set[str]] = {}
    for shard in sorted(set(files.values())):
        if not shard.is_file():
            raise FileNotFoundError(f'{shard} is named in {path.name} but missing; copy the checkpoint again')
        with _open(shard) as handle:
            held[shard] = set(handle.keys())
    for name, shard in files.items():
        if name not in held[shard]:
            raise ValueError(f'{path} places tensor {name} in {shard.name}, which lacks it; copy both again')
    return files


def _open(path: Path) -> Any:
    try:
        return safe_open(path, framework='pt')
    except SafetensorError as error:
        raise ValueError(
            f'{path} is damaged or no safetensors file ({error}; {path.stat().st_size} bytes); copy it again'
        ) from error


def _check(
    folder: Path,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    computed: Mapping[str, Tensor],
) -> None:
    missing = [f'{name} of shape {shape}' for name, shape in expected.items() if name not in found]
    known = {*expected, *computed}
    unknown = [f'{name} of shape {shape}' for name, shape in found.items() if name not in known]
    wrong = [
        f'{name} has shape {found[name]}, expected {shape}'
        for name, shape in expected.items()
        if found.get(name, shape) != shape
    ]
    for problem, names, remedy in (
        ('misses', missing, 'the file is incomplete, or the configuration describes a larger model'),
        ('holds unknown', unknown, 'the configuration describes a smaller or another model'),
        ('does not fit its configuration:', wrong, 'one of llm_config, vit_config, case_config.json is wrong'),
    ):
        if names:
            more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
            listed = '; '.join(sorted(names)[:_SHOWN]) + more
            raise ValueError(f'checkpoint {folder} {problem} {listed} ({remedy})')


def save_checkpoint(
    folder: str | Path,
    model: Cooper,
    autoencoder: nn.Module,
    *,
    dtype: torch.dtype = torch.bfloat16,
    files: Iterable[str | Path] = (),
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write a folder that :func:`load_model` reads back to the same values (in ``dtype``).

    :param files: tokenizer and prompt files to copy beside the weights
    :param shard_bytes: most tensor bytes a file; a single larger tensor still gets one file
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in config_files(model.config).items():
        _replace_text(folder / name, json.dumps(content, indent=2) + '\n')
    for file in files:
        target = folder / Path(file).name
        if not (target.exists() and target.samefile(file)):
            shutil.copyfile(file, target)
    state = model.state_dict()
    for name, table in _position_tables(model.config).items():
        if torch.equal(state[name].cpu().to(dtype), table.to(dtype)):
            del state[name]
    _write_shards(folder, MODEL_STEMS[0], state, dtype, shard_bytes)
    _write_shards(folder, AUTOENCODER_STEMS[0], autoencoder.state_dict(), dtype, shard_bytes)


def _write_shards(
    folder: Path, stem: str, state: Mapping[str, Tensor], dtype: torch.dtype, shard_bytes: int
) -> None:
    plan = split_torch_state_dict_into_shards(
        {name: torch.empty(value.shape, dtype=dtype, device='meta') for name, value in state.items()},
        filename_pattern=f'{stem}{{suffix}}.safetensors',
        max_shard_size=shard_bytes,
    )
    for file, names in plan.filename_to_tensors.items():
        # Written beside and then moved: the old file may still be mapped by a loaded model.
        beside = folder / f'.{file}.part'
        shard = {name: state[name].detach().to('cpu', dtype).contiguous() for name in names}
        _save(shard, beside)
        os.replace(beside, folder / file)
    index = folder / f'{stem}.safetensors.index.json'
    if plan.is_sharded:
        content = {'metadata': plan.metadata, 'weight_map': plan.tensor_to_filename}
        _replace_text(index, json.dumps(content, indent=1) + '\n')
    else:
        index.unlink(missing_ok=True)
    for old in {folder / f'{stem}.safetensors', *folder.glob(f'{stem}-*-of-*.safetensors')}:
        if old.name not in plan.filename_to_tensors:
            old.unlink(missing_ok=True)


def _save(shard: dict[str, Tensor], path: Path) -> None:
    """Write a file with the permissions of any new file; safetensors alone lets only the owner read."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(shard, path, metadata={'format': 'pt'})
    path.chmod(mode)


def _replace_text(path: Path, text: str) -> None:
    beside = path.with_name(f'.{path.name}.part')
    beside.write_text(text, encoding='utf-8')
    os.replace(beside, path)


def config_files(config: CooperConfig) -> dict[str, dict[str, Any]]:
    """Return the content of a folder's three JSON files, from which the same configuration is read back."""
    decoder, vision, vae = config.decoder, config.vision, config.autoencoder
    llm = {
        'architectures': ['Qwen2ForCausalLM'],
        'model_type': 'qwen2',
        'hidden_size': decoder.hidden_size,
        'num_hidden_layers': decoder.num_layers,
        'num_attention_heads': decoder.num_heads,
        'num_key_value_heads': decoder.num_kv_heads,
        'intermediate_size': decoder.intermediate_size,
        'vocab_size': decoder.vocab_size,
        'rms_norm_eps': decoder.rms_norm_eps,
        'rope_theta': decoder.rope_theta,
        'hidden_act': 'silu',
        'tie_word_embeddings': False,
    }
    vit = {
        'model_type': 'siglip_vision_model',
        'hidden_size': vision.hidden_size,
        'num_hidden_layers': vision.num_layers + 1,  # as published: the last is counted and dropped
        'num_attention_heads': vision.num_heads,
        'intermediate_size': vision.intermediate_size,
        'image_size': vision.max_side * vision.patch_size,
        'patch_size': vision.patch_size,
        'num_channels': 3,
        'layer_norm_eps': vision.layer_norm_eps,
        'hidden_act': 'gelu_pytorch_tanh',
    }
    case = {
        'special_tokens': {
            'bos_token_id': config.tokens.start,
            'eos_token_id': config.tokens.end,
            'start_of_image': config.tokens.image_start,
            'end_of_image': config.tokens.image_end,
        },
        'qk_norm': decoder.qk_norm,
        'vit_select_layer': -2,
        'vit_max_num_patch_per_side': vision.max_side,
        'max_latent_size': config.max_latent_side,
        'vae': {
            'form': vae.form,
            'ch': vae.base_channels,
            'ch_mult': vae.multipliers,
            'num_res_blocks': vae.num_res_blocks,
            'z_channels': vae.z_channels,
            'scale_factor': vae.scale,
            'shift_factor': vae.shift,
            'downsample': vae.downsample,
        },
    }
    renamed = {'decoder', 'vision', 'autoencoder', 'tokens', 'max_latent_side'}
    case |= {name: value for name, value in asdict(config).items() if name not in renamed}
    return {'llm_config.json': llm, 'vit_config.json': vit, 'case_config.json': case}
