"""Random inputs for each exported graph, and what the network itself makes of them, without any cache."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model.config import CooperConfig
from cooper_model.network.decoder import Attend, Streams, masked_attention
from cooper_model.network.embeddings import grid_ids
from cooper_model.network.model import Cooper
from cooper_model.network.vision import patch_rows

# Values behind the valid length of a cache, which must not matter.
GARBAGE = 1e3


@dataclass(frozen=True)
class Case:
    """Inputs of one graph and the outputs to expect, both by name."""

    graph: str
    size: str
    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]


class Recorder:
    """Attention under a dense mask that keeps the keys and values of every layer."""

    def __init__(self, mask: Tensor) -> None:
        self._attend: Attend = masked_attention(mask[None])
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self.keys.append(k[0].transpose(0, 1))
        self.values.append(v[0].transpose(0, 1))
        return self._attend(layer, q, k, v)


def cases(model: Cooper, autoencoder: nn.Module, seed: int = 0) -> Iterator[Case]:
    """Yield cases of three sizes for each graph; decoding one token is a fourth for the understanding expert."""
    random = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for grid in ((3, 4), (4, 3), (5, 5)):
            yield _vision(model, grid, random)
            yield from _autoencoder(model.config, autoencoder, grid, random)
        for count in (1, 6, 29):
            ids = torch.randint(model.config.decoder.vocab_size, (1, count), generator=random)
            yield _case('embed', str(count), {'ids': ids}, {'embeddings': model.embed_text(ids)})
        for past, new, causal in ((0, 7, True), (9, 1, True), (20, 16, False), (33, 11, True)):
            yield _understand(model, past, new, causal, random)
        for lengths, grid in (((0,), (3, 4)), ((13, 5), (4, 4)), ((40, 8, 21), (5, 3))):
            yield _velocity(model, lengths, grid, random)


def _case(graph: str, size: str, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> Case:
    return Case(graph, size, *({name: x.numpy() for name, x in side.items()} for side in (inputs, outputs)))


def _vision(model: Cooper, grid: tuple[int, int], random: torch.Generator) -> Case:
    config = model.config.vision
    image = torch.randn(1, 3, *(side * config.patch_size for side in grid), generator=random)
    ids = model.config.tokens
    first, last = model.embed_text(torch.tensor([[ids.image_start], [ids.image_end]])).split(1)
    expected = torch.cat([first, model.embed_vision(image), last], dim=1)
    places = grid_ids(*grid, config.max_side)
    inputs = {'patches': patch_rows(image, config.patch_size), 'places': places}
    return _case('vision', f'{grid}', inputs, {'embeddings': expected})


def _autoencoder(
    config: CooperConfig, autoencoder: nn.Module, grid: tuple[int, int], random: torch.Generator
) -> Iterator[Case]:
    image = torch.randn(1, 3, *(side * config.latent_stride for side in grid), generator=random)
    latents = autoencoder.encode(image)
    yield _case('encode', f'{grid}', {'image': image}, {'latents': latents})
    latents = torch.randn(latents.shape, generator=random)
    yield _case('decode', f'{grid}', {'latents': latents}, {'image': autoencoder.decode(latents)})


def _understand(model: Cooper, past: int, new: int, causal: bool, random: torch.Generator) -> Case:
    total = past + new
    embeddings = torch.randn(1, total, model.config.decoder.hidden_size, generator=random)
    mask = torch.ones(total, total, dtype=torch.bool).tril()
    positions = torch.arange(total)
    if not causal:
        mask[past:] = True
        positions[past:] = past
    seen = Recorder(mask)
    hidden = model(Streams(embeddings, None), positions[None], seen).understanding
    inputs = {'embeddings': embeddings[:, past:], 'positions': positions[None, past:], 'length': torch.tensor([past])}
    inputs |= _pasts([seen], [past])
    outputs = {'logits': model.logits(hidden[:, -1:])} | _news([seen], [past])
    return _case('understand', f'{past}+{new}', inputs, outputs)


def _velocity(model: Cooper, lengths: tuple[int, ...], grid: tuple[int, int], random: torch.Generator) -> Case:
    config = model.config
    count = grid[0] * grid[1]
    tokens = torch.randn(len(lengths), count, config.latent_dim, generator=random)
    times = torch.rand(len(lengths), generator=random)
    markers = model.embed_text(torch.tensor([[config.tokens.image_start, config.tokens.image_end]]))
    seen, velocities = [], []
    for row, past in enumerate(lengths):
        embeddings = torch.randn(1, past, config.decoder.hidden_size, generator=random)
        latents = model.embed_latents(tokens[row : row + 1], grid, times[row : row + 1])
        mask = torch.ones(past + 2 + count, past + 2 + count, dtype=torch.bool).tril()
        mask[past:] = True
        positions = torch.arange(past + 2 + count).clamp(max=past)
        seen.append(Recorder(mask))
        streams = Streams(torch.cat([embeddings, markers], dim=1), latents)
        velocities.append(model.velocity(model(streams, positions[None], seen[-1]).generation))
    inputs = {'tokens': tokens, 'places': grid_ids(*grid, config.max_latent_side), 'times': times}
    inputs |= {'position': torch.tensor(lengths), 'length': torch.tensor(lengths)} | _pasts(seen, lengths)
    outputs = {'velocity': torch.cat(velocities)} | _news(seen, lengths)
    return _case('velocity', f'{lengths}+{count}', inputs, outputs)


def _pasts(seen: list[Recorder], lengths: list[int] | tuple[int, ...]) -> dict[str, Tensor]:
    """Return the caches of all rows, one capacity for all, garbage behind the length of each."""
    capacity = max(lengths) + 5
    result = {}
    for name in ('key', 'value'):
        for layer, kept in enumerate(getattr(seen[0], f'{name}s')):
            cache = torch.full((len(seen), kept.shape[0], capacity, kept.shape[2]), GARBAGE)
            for row, length in enumerate(lengths):
                cache[row, :, :length] = getattr(seen[row], f'{name}s')[layer][:, :length]
            result[f'past_{name}_{layer}'] = cache
    return result


def _news(seen: list[Recorder], lengths: list[int] | tuple[int, ...]) -> dict[str, Tensor]:
    return {
        f'{name}_{layer}': torch.stack(
            [getattr(row, f'{name}s')[layer][:, length:] for row, length in zip(seen, lengths, strict=True)]
        )
        for name in ('key', 'value')
        for layer in range(len(seen[0].keys))
    }
