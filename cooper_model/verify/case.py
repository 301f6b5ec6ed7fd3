"""A golden case folder, its model, and the contexts that several sections share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cooper_model import transforms
from cooper_model.backends.base import Guidance
from cooper_model.backends.torch import TorchBackend
from cooper_model.checkpoint import load_model
from cooper_model.config import SamplerConfig
from cooper_model.context import Context
from cooper_model.network.embeddings import grid_ids
from cooper_model.network.model import Cooper
from cooper_model.verify.record import CALL, Section, Tolerance, in_sequence, recorded, sequence_order


@dataclass
class Step:
    """What one appended segment did, rows in the order of the sequence.

    :param inputs, hidden: ``(tokens, dim)`` at the decoder's entry and exit
    :param positions: rotary positions
    """

    inputs: Tensor
    hidden: Tensor
    positions: list[int]


@dataclass
class Walk:
    """A context of the real back end, built segment by segment, with what the decoder saw on the way."""

    backend: TorchBackend
    context: Context
    order: list[int] = field(default_factory=list)

    def fork(self) -> Walk:
        return Walk(self.backend, self.backend.fork(self.context), list(self.order))

    def text(self, ids: list[int]) -> Step:
        """Append a text given with its two control tokens."""
        return self._step(lambda: self.backend.append_text(self.context, ids[1:-1]))

    def latents(self, latents: Tensor) -> Step:
        return self._step(lambda: self.backend.append_latents(self.context, latents))

    def vision(self, image: np.ndarray) -> Step:
        return self._step(lambda: self.backend.append_vision(self.context, image))

    def _step(self, append: Any) -> Step:
        start = len(self.context)
        with recorded(decoder=self.backend.model.language_model.model) as calls:
            append()
        (streams, positions, _), hidden = calls['decoder'][0]
        latents = None if streams.generation is None else streams.generation.shape[1]
        order = sequence_order(latents, positions.shape[1])
        self.order += [start + place for place in order]
        places = positions[0, order].tolist()
        return Step(in_sequence(streams), in_sequence(hidden), places)

    def keys(self, layer: int, tokens: int | None = None) -> Tensor:
        """Return the cached keys of a layer in the order of the sequence, ``(tokens, kv_heads, head_dim)``."""
        return self.context.keys(layer)[self.order][:tokens]

    def values(self, layer: int, tokens: int | None = None) -> Tensor:
        return self.context.values(layer)[self.order][:tokens]


@dataclass
class SharedContexts:
    """The contexts of the layout's stages, and what each stage's segment did, by name of stage."""

    full: Walk
    no_text: Walk
    no_image: Walk
    steps: dict[str, Step]
    after: dict[str, tuple[int, int]]
    seen: np.ndarray
    pixels: np.ndarray
    latents: Tensor
    vision: np.ndarray


@contextmanager
def by_plain_layers(model: Cooper) -> Iterator[None]:
    """Compute by the layers as they are trained, which can be read one by one, instead of by joined ones."""
    decoder = model.language_model.model
    kept, decoder.joined = decoder.joined, None
    try:
        yield
    finally:
        decoder.joined = kept


class Case:
    """A folder with weights, settings and one file of numbers a section.

    :raises FileNotFoundError, ValueError: as :func:`cooper_model.checkpoint.load_model`
    """

    def __init__(self, folder: str | Path, device: str) -> None:
        self.folder = Path(folder)
        self.model, self.autoencoder = load_model(self.folder, device, torch.float32)
        self.backend = TorchBackend(self.model, self.autoencoder)
        self.backend.prepare()  # what inference runs is what is verified
        self.config = self.model.config
        self._sections: dict[str, Section] = {}

    def section(self, name: str, tolerance: Tolerance) -> Section:
        """Return a file of the case, the same object every time, so that whatever reads it counts.

        :raises FileNotFoundError, ValueError: it is missing, or damaged
        """
        if name not in self._sections:
            self._sections[name] = self._read(name, tolerance)
        return self._sections[name]

    def _read(self, name: str, tolerance: Tolerance) -> Section:
        path = self.folder / f'{name}.safetensors'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing; another section of this golden case needs it')
        return Section(path, tolerance)

    def json(self, name: str) -> dict[str, Any]:
        """Return a JSON file of the case.

        :raises FileNotFoundError, ValueError: it is missing, or not JSON
        """
        path = self.folder / f'{name}.json'
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing; this is no complete golden case')
        try:
            return json.loads(path.read_text(encoding='utf-8'))
        except json.JSONDecodeError as error:
            raise ValueError(f'{path} is not valid JSON: {error}') from error

    @cached_property
    def layout(self) -> dict[str, Any]:
        return self.json('layout')

    def stage(self, name: str) -> dict[str, Any]:
        for stage in self.layout['stages']:
            if stage['stage'] == name:
                return stage
        raise ValueError(f'{self.folder / "layout.json"} has no stage {name}; this is no complete golden case')

    def tensor(self, values: Tensor | np.ndarray) -> Tensor:
        return torch.as_tensor(values).to(self.model.device)

    def new_walk(self) -> Walk:
        return Walk(self.backend, self.backend.new_context())

    @property
    def prompts(self) -> dict[str, list[int]]:
        """Token ids of the case's texts, without control tokens."""
        return self.layout['prompts']

    def with_control_tokens(self, ids: list[int]) -> list[int]:
        return [self.config.tokens.start, *ids, self.config.tokens.end]

    @cached_property
    def contexts(self) -> SharedContexts:
        """Walk the stages of the layout: a system text, one image as latents and as ViT tokens, a question."""
        image = self.section('context', CALL).array('image_uint8')
        seen = transforms.resize(image, self.config.vae_transform)
        pixels = transforms.normalise(seen)
        latents = self.backend.encode_image(seen)
        vision = transforms.normalise(transforms.resize(seen, self.config.vit_transform))
        full = self.new_walk()
        no_text = no_image = full
        steps: dict[str, Step] = {}
        after: dict[str, tuple[int, int]] = {}
        forked = False
        for stage in self.layout['stages']:
            name, kind = stage['stage'], stage['kind']
            walk = no_image if name.startswith('cfg_img') else full
            if kind == 'prepare_vae_images':
                if not forked:
                    no_image, forked = full.fork(), True
                steps[name] = walk.latents(latents)
            elif kind == 'prepare_vit_images':
                steps[name] = walk.vision(vision)
            elif kind == 'prepare_prompts':
                if walk is full:
                    no_text = full.fork()
                steps[name] = walk.text(stage['packed_text_ids'])
            else:
                continue
            after[name] = (len(walk.context), walk.context.position)
        return SharedContexts(full, no_text, no_image, steps, after, seen, pixels, latents, vision)

    @cached_property
    def edit_guidance(self) -> Guidance[Context]:
        """The three contexts of the stages: everything, without the question, without the image."""
        shared = self.contexts
        return Guidance(shared.full.context, shared.no_text.context, shared.no_image.context)

    @cached_property
    def text_guidance(self) -> Guidance[Context]:
        """Text alone; the branch without text has an empty context."""
        walk = self.new_walk()
        walk.text(self.with_control_tokens(self.prompts['T2I']))
        return Guidance(walk.context, self.backend.new_context(), walk.context)

    def grid_of(self, ids: list[int], side: int) -> tuple[int, int]:
        """Return rows and columns of an image from its table entries ``row * side + column``."""
        columns = sum(place < side for place in ids)
        grid = (len(ids) // max(columns, 1), columns)
        if columns == 0 or grid_ids(*grid, side).tolist() != list(ids):
            raise ValueError(f'{self.folder}: table entries {ids[:6]}... are no grid in a table of side {side}')
        return grid


def sampler_of(arguments: dict[str, Any]) -> SamplerConfig:
    """Return the sampler of a recorded call of image generation."""
    low, high = arguments['cfg_interval']
    return SamplerConfig(
        num_timesteps=arguments['num_timesteps'],
        shift=arguments['timestep_shift'],
        text_scale=arguments['cfg_text_scale'],
        image_scale=arguments['cfg_img_scale'],
        interval=(low, high),
        renorm=arguments['cfg_renorm_type'],
        renorm_min=arguments['cfg_renorm_min'],
    )
