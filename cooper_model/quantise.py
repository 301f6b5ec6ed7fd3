"""Weights in fewer bits: which linears get which format, what that takes, and applying it by torchao at load.

Decoding reads the whole understanding expert for every token, so it gains from few bits of weights alone. Denoising
computes on hundreds of tokens at once, so the generation expert needs arithmetic in eight bits: weights and
activations. Norms, embeddings, the vision tower and the autoencoder stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooper_model.backends.failures import BackendUnavailable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from cooper_model.network.model import Cooper

FULL = 'none'
GROUPS = (32, 64, 128, 256)
FP8_MOST = 448.0  # largest number of float8_e4m3fn
_TILE_INPUTS, _TILE_OUTPUTS = 1024, 8


@dataclass(frozen=True)
class Format:
    """How the weight of a linear is held and multiplied.

    :param meaning: in words
    :param grouped: whether scales are those of groups of inputs, otherwise of whole rows
    :param activations: whether inputs are rounded to it too, with a scale for each token
    """

    meaning: str
    grouped: bool = False
    activations: bool = False


FORMATS = {
    'int8': Format('weights in int8'),
    'int4': Format('weights in int4', grouped=True),
    'w8a8': Format('weights and activations in int8', activations=True),
    'fp8': Format('weights and activations in fp8 (e4m3)', activations=True),
}
# The products of eight-bit activations need more rows than the one of a decoded token.
CHOICES = {
    'understanding': (FULL, 'int8', 'int4'),
    'generation': (FULL, 'w8a8', 'fp8', 'int8', 'int4'),
    'lm_head': (FULL, 'int8', 'int4'),
}


@dataclass(frozen=True)
class Quantisation:
    """The format of each part of the model; ``none`` leaves it as it is.

    :param lm_head: the output layer, which every decoded token reads; what its rounding costs, every token shows
    :param group: inputs of an int4 weight that share a scale
    :raises ValueError: a part cannot have the format, or there is no such group size
    """

    understanding: str = FULL
    generation: str = FULL
    lm_head: str = FULL
    group: int = 64

    def __post_init__(self) -> None:
        for part, choices in CHOICES.items():
            name = getattr(self, part)
            if name not in choices:
                raise ValueError(f'quantise: {part}={name} is not available; choose from {", ".join(choices)}')
        if self.group not in GROUPS:
            raise ValueError(f'quantise: group={self.group} is not available; choose from {GROUPS}')

    @classmethod
    def parse(cls, text: str) -> Quantisation:
        """Read ``NAME[,part=format...][,group=N]``, for example ``int4,lm_head=int8,group=32``.

        :raises ValueError: an unknown name, part, format or group size
        """
        first, *rest = [item.strip() for item in text.split(',')]
        if '=' in first:
            first, rest = FULL, [first, *rest]
        if first not in PRESETS:
            raise ValueError(f'quantise: {first!r} is unknown; choose from {", ".join(PRESETS)}, or name parts')
        changed: dict[str, Any] = {}
        known = {field.name for field in fields(cls)}
        for item in rest:
            name, _, value = item.partition('=')
            if name not in known or not value:
                raise ValueError(f'quantise: {item!r} is no setting; write one of {", ".join(sorted(known))}=VALUE')
            if name == 'group' and not value.isdecimal():
                raise ValueError(f'quantise: group={value} is no number; choose from {GROUPS}')
            changed[name] = int(value) if name == 'group' else value
        return replace(PRESETS[first], **changed)

    def __str__(self) -> str:
        """Return the settings as :meth:`parse` reads them."""
        parts = [f'{part}={getattr(self, part)}' for part in CHOICES if getattr(self, part) != FULL]
        return ','.join([*parts, f'group={self.group}'] if self.grouped else parts) or FULL

    @property
    def grouped(self) -> bool:
        """Whether any part has scales of groups."""
        return any(name != FULL and FORMATS[name].grouped for name in (getattr(self, part) for part in CHOICES))


PRESETS = {
    FULL: Quantisation(),
    'int8': Quantisation('int8', 'w8a8'),
    'int4': Quantisation('int4', 'w8a8'),
    'int8-fp8': Quantisation('int8', 'fp8'),
    'int4-fp8': Quantisation('int4', 'fp8'),
    'int4-int4': Quantisation('int4', 'int4'),
}


def part_of(name: str) -> str:
    """Return the part of the model that a module or tensor belongs to, by its published name."""
    if name.startswith('language_model.model.embed_tokens'):
        return 'embeddings'
    if name.startswith('language_model.lm_head'):
        return 'lm_head'
    if name.startswith('language_model.'):
        return 'generation' if '_moe_gen' in name else 'understanding'
    return 'vision' if name.startswith(('vit_model.', 'connector.')) else 'latents'


def linear_bytes(name: str, outputs: int, inputs: int, group: int, item: int = 2) -> int:
    """Return the bytes that torchao holds for a weight ``(outputs, inputs)``, scales included.

    Eight bits: one byte a weight and a float32 scale a row, for integers an int8 zero point beside it. int4: tiles
    of 1024 inputs and 8 outputs, filled up, half a byte a weight, and a bfloat16 scale and zero a group.

    :param item: bytes of a weight that is not quantised
    """
    if name == FULL:
        return item * outputs * inputs
    if FORMATS[name].grouped:
        outputs, inputs = filled(outputs, _TILE_OUTPUTS), filled(inputs, _TILE_INPUTS)
        return outputs * inputs // 2 + 4 * outputs * (inputs // group)
    return outputs * (inputs + (4 if name == 'fp8' else 5))


def filled(count: int, unit: int) -> int:
    """Return a count filled up to whole units."""
    return -(-count // unit) * unit


@dataclass(frozen=True)
class Report:
    """What was done to a model.

    :param parts: part, its format, and whether weights are held and multiplied in it; where this device has no
        kernel for a format they were rounded to it and back, which shows its quality and saves nothing
    :param before, after: bytes of the chosen linears in the dtype of the model, and as they are held now
    """

    quantisation: Quantisation
    device: str
    parts: tuple[tuple[str, str, bool], ...]
    before: int
    after: int

    def __str__(self) -> str:
        """Return one line for people."""
        told = []
        for part, name, runs in self.parts:
            group = f' in groups of {self.quantisation.group}' if FORMATS[name].grouped else ''
            lacking = '' if runs else f' (rounded and back: no kernel on {self.device}, so nothing is saved)'
            told.append(f'{part}: {FORMATS[name].meaning}{group}{lacking}')
        return f'{"; ".join(told)}; linears take {self.after / 1e6:.1f} MB instead of {self.before / 1e6:.1f} MB'


def load_quantised(
    folder: str | Path, device: str, dtype: torch.dtype, quantisation: Quantisation
) -> tuple[Cooper, nn.Module, Report]:
    """Read a checkpoint folder and quantise it on the way to its device, which never holds the whole in ``dtype``.

    :raises BackendUnavailable: torchao is not installed
    :raises ValueError: the group size does not divide a width of the model
    :raises FileNotFoundError: the folder or one of its files is missing
    """
    from cooper_model.checkpoint import load_model

    # On the CPU the tensors of a file in the same dtype stay in the file until they are needed.
    model, autoencoder = load_model(folder, 'cpu', dtype)
    report = quantise(model, quantisation, device)
    return model.to(device), autoencoder.to(device), report


def quantise(model: Cooper, quantisation: Quantisation, device: str = 'cpu') -> Report:
    """Quantise the linears of a model in place, one by one, and move those to ``device``.

    :raises BackendUnavailable, ValueError: as :func:`load_quantised`
    """
    import torch

    chosen = list(_chosen(model, quantisation))
    _check_groups(chosen, quantisation.group)
    place = torch.device(device)
    recipes = _recipes(place, quantisation.group)
    item = model.dtype.itemsize
    runs: dict[tuple[str, str], bool] = {}
    before = after = 0
    for name, linear, form in chosen:
        has_kernel = _has_kernel(form, place, model.dtype)
        runs[part_of(name), form] = has_kernel
        shape = linear.out_features, linear.in_features
        before += linear_bytes(FULL, *shape, quantisation.group, item)
        after += linear_bytes(form if has_kernel else FULL, *shape, quantisation.group, item)
        _convert(linear.to(place), form, (recipes[form, has_kernel], has_kernel))
    parts = tuple((part, form, kernel) for (part, form), kernel in runs.items())
    return Report(quantisation, device, parts, before, after)


def _chosen(model: Cooper, quantisation: Quantisation) -> Iterator[tuple[str, nn.Linear, str]]:
    from torch import nn

    for name, module in model.language_model.named_modules(prefix='language_model'):
        form = getattr(quantisation, part_of(name), FULL)
        if isinstance(module, nn.Linear) and form != FULL:
            yield name, module, form


def _check_groups(chosen: list[tuple[str, nn.Linear, str]], group: int) -> None:
    grouped = {linear.in_features: name for name, linear, form in chosen if FORMATS[form].grouped}
    for inputs, name in grouped.items():
        if inputs % group:
            fitting = [str(each) for each in GROUPS if all(width % each == 0 for width in grouped)]
            remedy = f'use group={" or ".join(fitting)}' if fitting else 'use int8 for this model'
            raise ValueError(f'quantise: group={group} does not divide the {inputs} inputs of {name}; {remedy}')


def _has_kernel(form: str, device: torch.device, dtype: torch.dtype) -> bool:
    """Return whether torch multiplies by weights in a format on a device without giving them back their dtype first.

    int8 counts everywhere: torchao widens such weights in every product, so memory is saved, and time is not.
    """
    import torch

    if form == 'int8':
        return True
    if form == 'w8a8':
        return device.type in ('cpu', 'cuda')
    least = {'int4': (8, 0), 'fp8': (8, 9)}[form]
    fits = device.type == 'cuda' and dtype == torch.bfloat16
    return fits and torch.cuda.get_device_capability(device) >= least


def _recipes(device: torch.device, group: int) -> dict[tuple[str, bool], Any]:
    """Return torchao's configuration of each format, with its kernel and for rounding weights and back."""
    import torch

    try:
        from torchao import quantization as ao
        from torchao.quantization.quant_primitives import MappingType
        from torchao.utils import should_reduce_range
    except ImportError as error:
        raise BackendUnavailable(f'quantised weights need torchao ({error}); install cooper_ros[quant]') from error

    plain: dict[str, Any] = {'set_inductor_config': False}
    int8 = ao.Int8WeightOnlyConfig(**plain)
    # Products of eight bits overflow on processors without instructions for them: there, seven bits are used.
    reduced = should_reduce_range(device)
    # The one layout of int4 whose kernel is part of torch.
    tiles = ao.Int4WeightOnlyConfig(group_size=group, int4_packing_format='tile_packed_to_4d', **plain)
    groups = ao.IntxWeightOnlyConfig(
        weight_dtype=torch.int4, granularity=ao.PerGroup(group), mapping_type=MappingType.ASYMMETRIC
    )
    return {
        ('int8', True): int8,
        ('w8a8', True): ao.Int8DynamicActivationInt8WeightConfig(reduce_range=reduced, **plain),
        ('w8a8', False): int8,
        ('int4', True): tiles,
        ('int4', False): groups,
        ('fp8', True): ao.Float8DynamicActivationFloat8WeightConfig(granularity=ao.PerRow(), **plain),
        ('fp8', False): ao.Float8WeightOnlyConfig(**plain),
    }


def _convert(linear: nn.Linear, form: str, recipe: tuple[Any, bool]) -> None:
    """Quantise a linear where it is; without a kernel give it the rounded values in its own dtype."""
    from torch import nn
    from torchao.quantization import quantize_

    config, has_kernel = recipe
    quantize_(linear, config)
    if not has_kernel:
        linear.weight = nn.Parameter(linear.weight.dequantize(), requires_grad=False)
        if FORMATS[form].activations:
            linear.register_forward_pre_hook(lambda _, inputs: (round_tokens(inputs[0], form), *inputs[1:]))


def round_tokens(x: Tensor, form: str) -> Tensor:
    """Return activations ``(..., tokens, width)`` rounded to a format and back, with one scale a token."""
    import torch

    most = FP8_MOST if form == 'fp8' else 127.0
    scale = x.float().abs().amax(-1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny) / most
    scaled = x.float() / scale
    rounded = scaled.to(torch.float8_e4m3fn).float() if form == 'fp8' else scaled.round()
    return (rounded * scale).to(x.dtype)
