"""The sizes that compiled graphs are made for: least, usual and greatest of each free size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from cooper_model.backends.graphs import Manifest
from cooper_model.config import CooperConfig

STEP = 256
"""Capacities of caches are multiples of this [tokens]."""


class Size(NamedTuple):
    """Least, usual and greatest value of one size."""

    least: int
    usual: int
    most: int


Sizes = dict[str, Size]
# Of one input: its least, usual and greatest shape.
Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Limits:
    """The greatest sizes that requests may have.

    :param capacity: tokens of a conversation; 8192 are three turns with two maps of the published model
    :param latents: latent tokens of an image; 2304 are those of a 1280 x 720 camera under the published transform
    :param branches: of guidance, computed together
    """

    capacity: int = 8192
    latents: int = 2304
    branches: int = 3

    def __post_init__(self) -> None:
        if self.capacity < STEP or self.capacity % STEP:
            raise ValueError(f'capacity is {self.capacity}, expected a positive multiple of {STEP}')
        if self.latents < 1 or self.branches not in (1, 2, 3):
            raise ValueError(
                f'{self.latents} latent tokens in {self.branches} branches cannot be planned for; expected 1 token or '
                'more, in 1 to 3 branches'
            )


def prefill_limit(config: CooperConfig) -> int:
    """Return how many tokens of the understanding expert are fed at once at most: those of the largest ViT image."""
    return (config.vit_transform.max_size // config.vision.patch_size) ** 2 + 2


def sizes(graph: str, config: CooperConfig, limits: Limits) -> list[Sizes]:
    """Return the profiles of a graph; the understanding expert has one for single tokens and one for prefill."""
    capacity = Size(STEP, min(1024, limits.capacity), limits.capacity)
    prefill = prefill_limit(config)
    side = config.vae_transform.max_size // config.latent_stride
    grid = Size(1, min(side, config.vae_transform.min_size // config.latent_stride), side)
    latents = min(limits.latents, side * side)
    return {
        'embed': [{'tokens': Size(1, 1, prefill)}],
        'vision': [{'patches': Size(1, prefill - 2, prefill - 2)}],
        'encode': [{'rows': grid, 'columns': grid}],
        'decode': [{'rows': grid, 'columns': grid}],
        'understand': [
            {'tokens': Size(1, 1, 1), 'capacity': capacity},
            {'tokens': Size(1, min(prefill, 64), prefill), 'capacity': capacity},
        ],
        'velocity': [
            {
                'tokens': Size(1, latents, latents),
                'capacity': capacity,
                'batch': Size(1, limits.branches, limits.branches),
            }
        ],
    }[graph]


def shapes(manifest: Manifest, graph: str, profile: Sizes) -> dict[str, Shapes]:
    """Return the shapes of every input of a graph under one profile."""
    return {
        name: (
            tuple(_value(size, profile, 'least') for size in shape),
            tuple(_value(size, profile, 'usual') for size in shape),
            tuple(_value(size, profile, 'most') for size in shape),
        )
        for name, shape in manifest.graphs[graph].inputs.items()
    }


def _value(size: int | str, profile: Mapping[str, Size], which: str) -> int:
    """Return what a size such as ``tokens`` or ``16*rows`` is under a profile."""
    if isinstance(size, int):
        return size
    factor, _, name = size.rpartition('*')
    return int(factor or 1) * getattr(profile[name], which)
