"""The graphs to export: module, example inputs, names, and which sizes are free."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import Dim

from cooper_model.config import CooperConfig
from cooper_model.export import modules
from cooper_model.network.model import Cooper

FUSED_OPSET = 23


@dataclass(frozen=True)
class Spec:
    """One graph.

    :param example: inputs that it is traced with; a list is one input a layer
    :param free: for each input the sizes that are free, by dimension
    """

    name: str
    module: nn.Module
    example: dict[str, Tensor | list[Tensor]]
    free: dict[str, dict[int, Any]]
    outputs: list[str]

    @property
    def input_names(self) -> list[str]:
        """Names of the inputs, lists laid out flat."""
        return [name for key, value in self.example.items() for name in _flat(key, value)]

    @property
    def arguments(self) -> tuple[Tensor | list[Tensor], ...]:
        """The example as positional arguments."""
        return tuple(self.example.values())

    @property
    def dynamic_shapes(self) -> tuple[Any, ...]:
        """What torch.export takes for the free sizes."""
        shapes = []
        for key, value in self.example.items():
            free = self.free.get(key)
            shapes.append([free] * len(value) if isinstance(value, list) else free)
        return tuple(shapes)


def _flat(key: str, value: Tensor | list[Tensor]) -> list[str]:
    return [f'{key}_{layer}' for layer in range(len(value))] if isinstance(value, list) else [key]


def specs(model: Cooper, autoencoder: nn.Module, opset: int) -> Iterator[Spec]:
    """Yield the graphs of a model, whose linear layers are :class:`modules.Product`, for an opset."""
    config, dtype, fused = model.config, model.dtype, opset >= FUSED_OPSET
    yield Spec('embed', modules.Embed(model), {'ids': _long(1, 5)}, {'ids': {1: Dim('tokens')}}, ['embeddings'])
    yield _vision(model)
    stride = config.latent_stride
    sides = {2: stride * Dim('rows'), 3: stride * Dim('columns')}
    image = torch.zeros(1, 3, 2 * stride, 3 * stride)
    yield Spec('encode', modules.Encode(autoencoder, dtype), {'image': image}, {'image': sides}, ['latents'])
    patch = config.latent_patch_size
    cells = {2: patch * Dim('rows'), 3: patch * Dim('columns')}
    latents = torch.zeros(1, config.autoencoder.z_channels, 2 * patch, 3 * patch)
    yield Spec('decode', modules.Decode(autoencoder, dtype), {'latents': latents}, {'latents': cells}, ['image'])
    yield _understand(model, fused)
    yield _velocity(model, fused)


def _long(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int64)


def _vision(model: Cooper) -> Spec:
    patches = Dim('patches')
    example = {'patches': torch.zeros(1, 5, 3 * model.config.vision.patch_size**2), 'places': _long(5)}
    free = {'patches': {1: patches}, 'places': {0: patches}}
    return Spec('vision', modules.Vision(model), example, free, ['embeddings'])


def _cache(config: CooperConfig, rows: int, dtype: torch.dtype) -> dict[str, list[Tensor]]:
    decoder = config.decoder
    shape = (rows, decoder.num_kv_heads, 7, decoder.head_dim)
    return {
        name: [torch.zeros(shape, dtype=dtype) for _ in range(decoder.num_layers)]
        for name in ('past_key', 'past_value')
    }


def _new(config: CooperConfig) -> list[str]:
    return [f'{name}_{layer}' for name in ('key', 'value') for layer in range(config.decoder.num_layers)]


def _understand(model: Cooper, fused: bool) -> Spec:
    config = model.config
    tokens, capacity = Dim('tokens'), Dim('capacity')
    embeddings = torch.zeros(1, 5, config.decoder.hidden_size, dtype=model.dtype)
    example = {'embeddings': embeddings, 'positions': _long(1, 5), 'length': _long(1)}
    free = {'embeddings': {1: tokens}, 'positions': {1: tokens}}
    free |= {name: {2: capacity} for name in ('past_key', 'past_value')}
    example |= _cache(config, 1, model.dtype)
    return Spec('understand', modules.Understand(model, fused), example, free, ['logits', *_new(config)])


def _velocity(model: Cooper, fused: bool) -> Spec:
    config = model.config
    rows, tokens, capacity = Dim('batch'), Dim('tokens'), Dim('capacity')
    example = {
        'tokens': torch.zeros(2, 5, config.latent_dim),
        'places': _long(5),
        'times': torch.zeros(2),
        'position': _long(2),
        'length': _long(2),
        **_cache(config, 2, model.dtype),
    }
    free: dict[str, dict[int, Any]] = {name: {0: rows} for name in ('times', 'position', 'length')}
    free |= {'tokens': {0: rows, 1: tokens}, 'places': {0: tokens}}
    free |= {name: {0: rows, 2: capacity} for name in ('past_key', 'past_value')}
    return Spec('velocity', modules.Velocity(model, fused), example, free, ['velocity', *_new(config)])
