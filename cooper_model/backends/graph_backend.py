"""A backend over exported graphs: everything but how a graph is run, which is the runner's business."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cooper_model import transforms
from cooper_model.backends.base import Backend, Guidance, Token
from cooper_model.backends.decoding import choose_tokens, shared_beginning
from cooper_model.backends.graph_cache import Cache, CacheForm, GraphContext, by_layer, stack
from cooper_model.config import CooperConfig, SamplerConfig
from cooper_model.flow import Guided, sample
from cooper_model.network.embeddings import grid_ids

Run = Callable[[], None]


class Runner(ABC):
    """Runs exported graphs on tensors that lie where the graphs compute.

    :ivar device: where all inputs and outputs lie
    :ivar dtype: of embeddings and caches; all else is float32 or int64
    """

    device: torch.device
    dtype: torch.dtype

    @abstractmethod
    def bind(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Run:
        """Return a call that computes a graph from tensors into tensors, all contiguous, as often as it is called.

        Outputs that are not named are not wanted.

        :raises OutOfMemory: out of the call, too
        """


@dataclass(frozen=True)
class _Step:
    """Decoding one token over one cache: where the token goes in and the logits come out, and the calls between."""

    cache: Cache
    ids: Tensor
    position: Tensor
    length: Tensor
    logits: Tensor
    keys: Tensor
    values: Tensor
    runs: tuple[Run, Run]


class GraphBackend(Backend[GraphContext]):
    """Computes a model by its exported graphs.

    :param form: of the caches
    :param most_tokens: of the understanding expert that are fed at once; None for any number
    """

    def __init__(
        self, config: CooperConfig, runner: Runner, form: CacheForm, most_tokens: int | None = None
    ) -> None:
        self.config = config
        self._runner, self._form, self._most_tokens = runner, form, most_tokens
        self._step: _Step | None = None

    @property
    def device(self) -> torch.device:
        """Where the graphs compute."""
        return self._runner.device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of weights, caches and arithmetic."""
        return self._runner.dtype

    def new_context(self) -> GraphContext:
        return GraphContext(self._form)

    def fork(self, context: GraphContext) -> GraphContext:
        return context.fork()

    def replace_text(self, context: GraphContext, said: Sequence[int], ids: Sequence[int]) -> GraphContext:
        same = shared_beginning(said, ids)
        fork = context.fork(len(said) + 1 - same)
        self._feed_text(fork, [*ids[same:], self.config.tokens.end])
        return fork

    @torch.inference_mode()
    def append_text(self, context: GraphContext, ids: Sequence[int]) -> None:
        tokens = self.config.tokens
        self._feed_text(context, [tokens.start, *ids, tokens.end])

    @torch.inference_mode()
    def append_image(self, context: GraphContext, image: np.ndarray, *, latents: bool, vision: bool) -> None:
        if latents:
            self._append_latents(context, self.encode_image(transforms.resize(image, self.config.vae_transform)))
        if vision:
            limits = self.config.vae_transform, self.config.vit_transform
            self._append_vision(context, transforms.vision_input(image, *limits))

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> Tensor:
        """Return the latents ``(1, z, height/8, width/8)`` of an RGB uint8 image whose sides fit the stride."""
        height, width = (side // self.config.autoencoder.downsample for side in image.shape[:2])
        latents = self._new(1, self.config.autoencoder.z_channels, height, width)
        self._run('encode', {'image': self._tensor(transforms.normalise(image))[None]}, {'latents': latents})
        return latents

    def _append_latents(self, context: GraphContext, latents: Tensor) -> None:
        patch = self.config.latent_patch_size
        grid = (latents.shape[2] // patch, latents.shape[3] // patch)
        tokens = transforms.latent_tokens(latents, patch)
        count = tokens.shape[1] + 2
        context.reserve(count)
        keys, values = self._new_keys(1, count), self._new_keys(1, count)
        inputs = {
            'tokens': tokens.contiguous(),
            'places': self._places(grid, self.config.max_latent_side),
            'times': self._new(1).zero_(),
            'position': self._long([context.position]),
            'length': self._long([len(context)]),
            **context.cache.inputs(),
        }
        self._run('velocity', inputs, by_layer('key', keys) | by_layer('value', values))
        context.append(keys[:, 0], values[:, 0])
        context.position += 1

    def _append_vision(self, context: GraphContext, image: np.ndarray) -> None:
        settings = self.config.vision
        grid = (image.shape[1] // settings.patch_size, image.shape[2] // settings.patch_size)
        patches = transforms.latent_tokens(self._tensor(image)[None], settings.patch_size)
        embeddings = self._new_embeddings(patches.shape[1] + 2)
        inputs = {'patches': patches.contiguous(), 'places': self._places(grid, settings.max_side)}
        self._run('vision', inputs, {'embeddings': embeddings})
        positions = self._long([context.position]).expand(1, embeddings.shape[1])
        self._understand(context, embeddings, positions.contiguous())
        context.position += 1

    def decode(
        self,
        context: GraphContext,
        prefix: Sequence[int] = (),
        *,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        random = np.random.default_rng(seed)
        end = self.config.tokens.end
        logits = self._feed_text(context, [self.config.tokens.start, *prefix])
        try:
            for _ in range(max_tokens):
                (token,) = choose_tokens(logits, temperature, [random.random()])
                if token.id == end:
                    break
                # Fed before it is shown, so that the context is whole whenever the caller stops.
                logits = self._feed_token(context, token.id)
                yield token
        finally:
            self._feed_token(context, end)

    @torch.inference_mode()
    def generate(
        self, guidance: Guidance[GraphContext], height: int, width: int, sampler: SamplerConfig, noise: np.ndarray
    ) -> Iterator[np.ndarray | None]:
        stride = self.config.latent_stride
        grid = (height // stride, width // stride)
        flow = Guided(_Flow(self, guidance, grid, sampler.image_scale > 1).branches, sampler)
        x = self._tensor(noise)
        for following in sample(flow, x, sampler):
            x = following
            yield None
        yield self._decode_image(transforms.tokens_to_latents(x[None], grid, self.config.latent_patch_size))

    def _decode_image(self, latents: Tensor) -> np.ndarray:
        height, width = (side * self.config.autoencoder.downsample for side in latents.shape[2:])
        picture = self._new(1, 3, height, width)
        self._run('decode', {'latents': latents.contiguous()}, {'image': picture})
        return transforms.denormalise(picture[0]).permute(1, 2, 0).cpu().numpy()

    @torch.inference_mode()
    def _feed_text(self, context: GraphContext, ids: Sequence[int]) -> Tensor:
        """Feed tokens of the understanding expert; returns the logits behind the last, ``(1, vocab)``."""
        most = self._most_tokens or len(ids)
        for start in range(0, len(ids), most):
            piece = list(ids[start : start + most])
            embeddings = self._new_embeddings(len(piece))
            self._run('embed', {'ids': self._long([piece])}, {'embeddings': embeddings})
            positions = context.position + torch.arange(len(piece), device=self.device)
            logits = self._understand(context, embeddings, positions[None])
            context.position += len(piece)
        return logits

    def _understand(self, context: GraphContext, embeddings: Tensor, positions: Tensor) -> Tensor:
        count = embeddings.shape[1]
        context.reserve(count)
        keys, values = self._new_keys(1, count), self._new_keys(1, count)
        logits = self._new(1, 1, self.config.decoder.vocab_size)
        inputs = {'embeddings': embeddings, 'positions': positions, 'length': self._long([len(context)])}
        outputs = {'logits': logits} | by_layer('key', keys) | by_layer('value', values)
        self._run('understand', inputs | context.cache.inputs(), outputs)
        context.append(keys[:, 0], values[:, 0])
        return logits[0, :, : self.config.usable_vocab]

    @torch.inference_mode()
    def _feed_token(self, context: GraphContext, token: int) -> Tensor:
        context.reserve(1)
        step = self._step
        if step is None or step.cache is not context.cache:
            step = self._step = self._bind_step(context.cache)
        step.ids.fill_(token)
        step.position.fill_(context.position)
        step.length.fill_(len(context))
        for run in step.runs:
            run()
        context.append(step.keys[:, 0], step.values[:, 0])
        context.position += 1
        return step.logits[0, :, : self.config.usable_vocab]

    def _bind_step(self, cache: Cache) -> _Step:
        ids, position, length = (self._long(shape) for shape in ([[0]], [[0]], [0]))
        embeddings, logits = self._new_embeddings(1), self._new(1, 1, self.config.decoder.vocab_size)
        keys, values = self._new_keys(1, 1), self._new_keys(1, 1)
        inputs = {'embeddings': embeddings, 'positions': position, 'length': length} | cache.inputs()
        outputs = {'logits': logits} | by_layer('key', keys) | by_layer('value', values)
        runs = (
            self._runner.bind('embed', {'ids': ids}, {'embeddings': embeddings}),
            self._runner.bind('understand', inputs, outputs),
        )
        return _Step(cache, ids, position, length, logits, keys, values, runs)

    def _run(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        self._runner.bind(graph, inputs, outputs)()

    def _new(self, *shape: int) -> Tensor:
        return torch.empty(shape, device=self.device)

    def _new_embeddings(self, count: int) -> Tensor:
        return torch.empty(1, count, self.config.decoder.hidden_size, dtype=self.dtype, device=self.device)

    def _new_keys(self, rows: int, count: int) -> Tensor:
        decoder = self.config.decoder
        shape = (decoder.num_layers, rows, decoder.num_kv_heads, count, decoder.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)

    def _long(self, values: Sequence[object]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self.device)

    def _places(self, grid: tuple[int, int], side: int) -> Tensor:
        return grid_ids(*grid, side).to(self.device)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device)


class _Flow:
    """The branches of one image over its steps: guided and unguided calls are bound when first needed."""

    def __init__(
        self, backend: GraphBackend, guidance: Guidance[GraphContext], grid: tuple[int, int], without_image: bool
    ) -> None:
        self._backend, self._guidance, self._grid, self._without_image = backend, guidance, grid, without_image
        self._bound: dict[bool, tuple[Tensor, Tensor, Tensor, Run]] = {}

    def branches(self, x: Tensor, t: float, guided: bool) -> Sequence[Tensor]:
        """Return the velocities of latent tokens ``(tokens, latent_dim)`` at time ``t``."""
        if guided not in self._bound:
            self._bound[guided] = self._bind(guided)
        tokens, times, velocity, run = self._bound[guided]
        tokens[:] = x
        times.fill_(t)
        run()
        # A copy: the next call writes where this one did, and samplers keep velocities.
        return velocity.clone().unbind()

    def _bind(self, guided: bool) -> tuple[Tensor, Tensor, Tensor, Run]:
        backend, contexts = self._backend, [self._guidance.full]
        if guided:
            contexts.append(self._guidance.no_text)
            if self._without_image:
                contexts.append(self._guidance.no_image)
        if None in contexts:
            raise ValueError('guidance is on but a branch has no context; give no_text and no_image')
        cache = stack(contexts, backend._form)
        rows, count = len(contexts), self._grid[0] * self._grid[1]
        tokens, velocity = (backend._new(rows, count, backend.config.latent_dim) for _ in range(2))
        times = backend._new(rows)
        inputs = {
            'tokens': tokens,
            'places': backend._places(self._grid, backend.config.max_latent_side),
            'times': times,
            'position': backend._long([context.position for context in contexts]),
            'length': backend._long([len(context) for context in contexts]),
            **cache.inputs(),
        }
        return tokens, times, velocity, backend._runner.bind('velocity', inputs, {'velocity': velocity})
