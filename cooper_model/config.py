"""Architecture and checkpoint settings, read from a checkpoint folder's JSON files and checked at construction.

A folder holds ``llm_config.json`` and ``vit_config.json`` in Hugging Face form; what they lack stands in
``case_config.json``. Every value absent there is the one of the published COOPER / BAGEL-7B-MoT checkpoints.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from cooper_model.types import CameraIntrinsics

AutoencoderForm = Literal['flux', 'patch']
SamplingMethod = Literal['euler', 'heun', 'adams']


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True)
class DecoderConfig:
    """The mixture-of-transformers language model (Qwen2 layers, two experts)."""

    hidden_size: int = 3584
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    intermediate_size: int = 18944
    vocab_size: int = 152064
    rms_norm_eps: float = 1e-6
    rope_theta: float = 1e6
    qk_norm: bool = True

    def __post_init__(self) -> None:
        _require(
            self.hidden_size % self.num_heads == 0,
            f'llm_config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_heads}',
        )
        _require(
            self.num_heads % self.num_kv_heads == 0,
            f'llm_config: {self.num_heads} query heads cannot share {self.num_kv_heads} key/value heads evenly',
        )
        _require(self.head_dim % 2 == 0, f'llm_config: head size {self.head_dim} is odd, rotary positions need it even')

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads


@dataclass(frozen=True)
class VisionConfig:
    """The SigLIP tower; ``num_layers`` counts the layers that exist and run."""

    hidden_size: int = 1152
    num_layers: int = 26
    num_heads: int = 16
    intermediate_size: int = 4304
    patch_size: int = 14
    layer_norm_eps: float = 1e-6
    max_side: int = 70

    def __post_init__(self) -> None:
        _require(
            self.hidden_size % self.num_heads == 0,
            f'vit_config: hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_heads}',
        )


@dataclass(frozen=True)
class AutoencoderConfig:
    """The image autoencoder: ``flux`` as published, ``patch`` a form that trains on a CPU."""

    form: AutoencoderForm = 'flux'
    base_channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    z_channels: int = 16
    scale: float = 0.3611
    shift: float = 0.1159
    downsample: int = 8

    def __post_init__(self) -> None:
        _require(self.form in ('flux', 'patch'), f"vae.form is {self.form!r}, expected 'flux' or 'patch'")


@dataclass(frozen=True)
class ResizeConfig:
    """Limits of an image transform [px]: longest side at most, shortest at least, each side a multiple of."""

    max_size: int
    min_size: int
    stride: int


@dataclass(frozen=True)
class SpecialTokens:
    """Ids of the four control tokens."""

    start: int = 151644
    end: int = 151645
    image_start: int = 151652
    image_end: int = 151653


@dataclass(frozen=True)
class SamplerConfig:
    """How an image is generated. ``num_timesteps`` counts points, so there is one step less.

    :param method: how a step is made; see ``flow.METHODS``
    :param reuse: change of the velocity, relative to its size, up to which the last one is taken again instead of
        asking the model; 0 always asks
    :param guidance_period: in every how many guided evaluations the branches without text or image are computed;
        between, what they differed by last is taken again
    """

    num_timesteps: int = 30
    shift: float = 3.0
    text_scale: float = 4.0
    image_scale: float = 2.0
    interval: tuple[float, float] = (0.4, 1.0)
    renorm: Literal['global', 'channel', 'text_channel'] = 'global'
    renorm_min: float = 0.0
    method: SamplingMethod = 'euler'
    reuse: float = 0.0
    guidance_period: int = 1

    def __post_init__(self) -> None:
        methods = get_args(SamplingMethod)
        _require(self.method in methods, f'sampler.method is {self.method!r}, expected one of {", ".join(methods)}')
        _require(self.reuse >= 0, f'sampler.reuse is {self.reuse}, expected 0 or a small positive number')
        _require(self.guidance_period >= 1, f'sampler.guidance_period is {self.guidance_period}, expected 1 or more')
        _require(self.num_timesteps >= 2, f'sampler.num_timesteps is {self.num_timesteps}, expected 2 or more')
        _require(self.shift > 0, f'sampler.shift is {self.shift}, expected a positive number')
        _require(
            self.renorm in ('global', 'channel', 'text_channel'),
            f"sampler.renorm is {self.renorm!r}, expected 'global', 'channel' or 'text_channel'",
        )


@dataclass(frozen=True)
class ColourCodeConfig:
    """From colours of a segmentation picture to classes and instances.

    Red and green carry the class, blue separates instances of one class, as in the published ADE20K codes.

    :param names: name of each class
    :param red_green: ``(r, g)`` of each class, 0..255; ``background`` is that of no class at all
    :param blue: levels that instances of a class are given, 0..255
    """

    names: tuple[str, ...] = ()
    red_green: tuple[tuple[int, int], ...] = ()
    background: tuple[int, int] = (0, 0)
    blue: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        _require(
            len(self.names) == len(self.red_green),
            f'colour_code: {len(self.names)} names but {len(self.red_green)} colours',
        )


@dataclass(frozen=True)
class CooperConfig:
    """Everything about a checkpoint but its weights, its tokenizer and its prompts.

    :param depth_range: ``(near, far)`` [m] that depth pictures stand for, None where depth is relative
    :param depth_focal: focal length [image heights] of the camera that this range holds for; depth of another camera
        is scaled by the ratio of focal lengths, since magnified and nearer look alike (canonical camera of
        Yin et al. 2023, Metric3D, arXiv 2307.10984). None: the range holds for every camera
    """

    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    vision: VisionConfig = field(default_factory=VisionConfig)
    autoencoder: AutoencoderConfig = field(default_factory=AutoencoderConfig)
    tokens: SpecialTokens = field(default_factory=SpecialTokens)
    latent_patch_size: int = 2
    max_latent_side: int = 64
    latent_table_spread: float = 1.0
    vision_table_spread: float = 1.0
    vae_transform: ResizeConfig = ResizeConfig(1024, 512, 16)
    vit_transform: ResizeConfig = ResizeConfig(518, 224, 14)
    train_timestep_shift: float = 1.0
    usable_vocab: int | None = 151665
    depth_range: tuple[float, float] | None = None
    depth_focal: float | None = None
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    colour_code: ColourCodeConfig = field(default_factory=ColourCodeConfig)
    max_turns: int = 3
    max_new_tokens: int = 2048

    def __post_init__(self) -> None:
        focal = self.depth_focal
        _require(focal is None or focal > 0, f'case_config: depth_focal is {focal}, expected a positive number')

    def depth_range_of(self, camera: CameraIntrinsics | None) -> tuple[float, float] | None:
        """Return the range [m] of depth pictures of a camera; an unknown one is taken for that of ``depth_focal``."""
        if self.depth_range is None or self.depth_focal is None or camera is None:
            return self.depth_range
        zoom = camera.fy / camera.height / self.depth_focal
        near, far = self.depth_range
        return near * zoom, far * zoom

    @property
    def latent_dim(self) -> int:
        """Width of one latent token: ``patch * patch * z_channels``."""
        return self.latent_patch_size**2 * self.autoencoder.z_channels

    @property
    def latent_stride(self) -> int:
        """Pixels of image a latent token covers along one side."""
        return self.latent_patch_size * self.autoencoder.downsample

    @classmethod
    def load(cls, folder: str | Path) -> CooperConfig:
        """Read the configuration of a checkpoint folder.

        :raises FileNotFoundError: the folder or a required file is missing
        :raises ValueError: a file is not JSON, or a value is out of range
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise FileNotFoundError(f'{folder} is not a folder; give the folder of a COOPER checkpoint')
        llm = _read_json(folder / 'llm_config.json', required=True)
        vit = _read_json(folder / 'vit_config.json', required=True)
        case = _read_json(folder / 'case_config.json', required=False)
        try:
            return _from_json(llm, vit, case)
        except (KeyError, TypeError) as error:
            raise ValueError(f'{folder}: configuration cannot be used: {error!r}') from error


def _read_json(path: Path, required: bool) -> dict[str, Any]:
    if not path.is_file():
        if required:
            raise FileNotFoundError(
                f'{path.parent} is no COOPER checkpoint: {path.name} is missing; expected llm_config.json, '
                'vit_config.json, ema.safetensors (or model.safetensors) and ae.safetensors'
            )
        return {}
    try:
        value = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError as error:
        raise ValueError(f'{path} is not valid JSON: {error}') from error
    _require(isinstance(value, dict), f'{path} holds {type(value).__name__}, expected a JSON object')
    return value


def _refuse_variants(llm: Mapping[str, Any], case: Mapping[str, Any]) -> None:
    """Raise for architectures that BAGEL's configuration can name but no COOPER checkpoint uses."""
    expected = {
        'layer_module': 'Qwen2MoTDecoderLayer',
        'vit_rope': False,
        'interpolate_pos': False,
        'connector_act': 'gelu_pytorch_tanh',
    }
    for name, value in expected.items():
        found = case.get(name, value)
        _require(found == value, f'case_config: {name} is {found!r}, only {value!r} is supported')
    act = llm.get('hidden_act', 'silu')
    _require(act == 'silu', f"llm_config: hidden_act is {act!r}, only 'silu' is supported")
    head_dim = llm['hidden_size'] // llm['num_attention_heads']
    _require(
        llm.get('head_dim', head_dim) == head_dim,
        f'llm_config: head_dim is {llm.get("head_dim")}, only {head_dim} (hidden size / heads) is supported',
    )


def _from_json(llm: Mapping[str, Any], vit: Mapping[str, Any], case: Mapping[str, Any]) -> CooperConfig:
    _refuse_variants(llm, case)
    decoder = DecoderConfig(
        hidden_size=llm['hidden_size'],
        num_layers=llm['num_hidden_layers'],
        num_heads=llm['num_attention_heads'],
        num_kv_heads=llm.get('num_key_value_heads', llm['num_attention_heads']),
        intermediate_size=llm['intermediate_size'],
        vocab_size=llm['vocab_size'],
        rms_norm_eps=llm.get('rms_norm_eps', 1e-6),
        rope_theta=llm.get('rope_theta', 1e6),
        qk_norm=case.get('qk_norm', True),
    )
    # The published file counts one layer more than exist: the last is dropped (vit_select_layer -2).
    dropped = -1 - case.get('vit_select_layer', -2)
    vision = VisionConfig(
        hidden_size=vit['hidden_size'],
        num_layers=case.get('vit_layers_used', vit['num_hidden_layers'] - dropped),
        num_heads=vit['num_attention_heads'],
        intermediate_size=vit['intermediate_size'],
        patch_size=vit['patch_size'],
        layer_norm_eps=vit.get('layer_norm_eps', 1e-6),
        max_side=case.get('vit_max_num_patch_per_side', 70),
    )
    vae = case.get('vae', {})
    autoencoder = AutoencoderConfig(
        form=vae.get('form', 'flux'),
        base_channels=vae.get('ch', 128),
        multipliers=tuple(vae.get('ch_mult', (1, 2, 4, 4))),
        num_res_blocks=vae.get('num_res_blocks', 2),
        z_channels=vae.get('z_channels', 16),
        scale=vae.get('scale_factor', 0.3611),
        shift=vae.get('shift_factor', 0.1159),
        downsample=vae.get('downsample', 8),
    )
    ids = case.get('special_tokens', {})
    published = SpecialTokens()
    tokens = SpecialTokens(
        start=ids.get('bos_token_id', published.start),
        end=ids.get('eos_token_id', published.end),
        image_start=ids.get('start_of_image', published.image_start),
        image_end=ids.get('end_of_image', published.image_end),
    )
    sampler = dict(case.get('sampler', {}))
    if 'interval' in sampler:
        sampler['interval'] = tuple(sampler['interval'])
    code = dict(case.get('colour_code', {}))
    if code:
        code['names'] = tuple(code['names'])
        code['red_green'] = tuple(tuple(pair) for pair in code['red_green'])
        code['background'] = tuple(code['background'])
        code['blue'] = tuple(code['blue'])
    depth_range = case.get('depth_range')
    return CooperConfig(
        decoder=decoder,
        vision=vision,
        autoencoder=autoencoder,
        tokens=tokens,
        latent_patch_size=case.get('latent_patch_size', 2),
        max_latent_side=case.get('max_latent_size', 64),
        latent_table_spread=case.get('latent_table_spread', 1.0),
        vision_table_spread=case.get('vision_table_spread', 1.0),
        vae_transform=ResizeConfig(**case.get('vae_transform', vars(ResizeConfig(1024, 512, 16)))),
        vit_transform=ResizeConfig(**case.get('vit_transform', vars(ResizeConfig(518, 224, 14)))),
        train_timestep_shift=case.get('train_timestep_shift', 1.0),
        usable_vocab=case.get('usable_vocab', 151665 if decoder.vocab_size == 152064 else None),
        depth_range=tuple(depth_range) if depth_range else None,
        depth_focal=case.get('depth_focal'),
        sampler=SamplerConfig(**sampler),
        colour_code=ColourCodeConfig(**code),
        max_turns=case.get('max_turns', 3),
        max_new_tokens=case.get('max_new_tokens', 2048),
    )
