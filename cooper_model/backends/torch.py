"""The reference backend: torch on any device and dtype, a CPU included."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model import transforms
from cooper_model.allocator import keep_freed_memory
from cooper_model.backends.base import Backend, Guidance, Token
from cooper_model.backends.decoding import DecodedText, Decoding, TextToDecode, choose_tokens, shared_beginning
from cooper_model.backends.steps import Steps
from cooper_model.backends.together import StepsTogether, Table
from cooper_model.backends.token_step import Capture, TokenStep, capacity_for, cuda_graph
from cooper_model.config import CooperConfig, SamplerConfig
from cooper_model.context import Context, Kernel
from cooper_model.flow import Guided, sample
from cooper_model.network.decoder import Streams
from cooper_model.network.joined import join, lay_out
from cooper_model.network.model import Cooper
from cooper_model.padded import PaddedCache
from cooper_model.quantise import Quantisation, Report, load_quantised

log = logging.getLogger(__name__)


def _require(device: str) -> None:
    """Check that a device is there.

    :raises ValueError: it is not
    """
    kind, _, number = device.partition(':')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if kind == 'cuda' and int(number or 0) >= count:
        found = f'finds {count} GPUs' if count else 'finds no GPU'
        raise ValueError(f'device {device!r} is not there: torch {found} on this machine; name another, or cpu')


class TorchBackend(Backend[Context]):
    """Runs a :class:`Cooper` and its autoencoder where they are.

    :param model, autoencoder: with weights, on one device and in one dtype
    :param kernel: how attention is computed, see :func:`cached_attention`
    :param capture: makes decoding a token one call of the device, see :mod:`cooper_model.backends.token_step`; by
        default a CUDA graph on CUDA, nothing on a CPU, which has no kernels to start
    :raises ValueError: there is no such kernel
    """

    name = 'torch'

    def __init__(
        self, model: Cooper, autoencoder: nn.Module, kernel: Kernel = 'parts', capture: Capture | None = None
    ) -> None:
        known = get_args(Kernel)
        if kernel not in known:
            raise ValueError(f'attention kernel {kernel!r} is unknown, expected one of {", ".join(known)}')
        graphs = capture is None and model.device.type == 'cuda'
        self._capture = partial(cuda_graph, model.device) if graphs else capture
        self._step: TokenStep | None = None
        self.quantised: Report | None = None
        self.config: CooperConfig = model.config
        self.model = model.eval().requires_grad_(False)
        self.autoencoder = autoencoder.eval().requires_grad_(False)
        self._steps = Steps(self.model, self.autoencoder, kernel)
        tokens = self.config.tokens
        self._markers = torch.tensor([tokens.image_start, tokens.image_end], device=model.device)

    @classmethod
    def load(
        cls,
        folder: str | Path,
        device: str | None = None,
        dtype: torch.dtype | None = None,
        kernel: Kernel | None = None,
        quantise: Quantisation | None = None,
    ) -> TorchBackend:
        """Read a checkpoint folder.

        :param device: torch device; default the first CUDA device where there is one, otherwise the CPU
        :param dtype: default bfloat16 on CUDA, float32 on a CPU
        :param kernel: default ``sdpa`` on CUDA, where many small products are slow, ``parts`` on a CPU
        :param quantise: formats of weights; what became of them is logged and stands in ``quantised``
        """
        from cooper_model.checkpoint import load_model

        device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
        _require(device)
        dtype = dtype or (torch.bfloat16 if device.startswith('cuda') else torch.float32)
        kernel = kernel or ('sdpa' if device.startswith('cuda') else 'parts')
        if quantise is None:
            backend = cls(*load_model(folder, device=device, dtype=dtype), kernel)
            backend.prepare()
            return backend
        model, autoencoder, report = load_quantised(folder, device, dtype, quantise)
        # Weights that save nothing are not what was asked for, and are told to everyone.
        log.log(logging.INFO if all(runs for *_, runs in report.parts) else logging.WARNING, 'quantised: %s', report)
        backend = cls(model, autoencoder, kernel)
        backend.quantised = report
        return backend

    def prepare(self) -> None:
        """Lay weights out for speed; they must not change afterwards. The answers stay the same up to rounding."""
        language = self.model.language_model
        join(language.model)
        lay_out(language.lm_head)
        if self.model.device.type == 'cpu':
            keep_freed_memory()

    def seats(self, count: int) -> list[Backend[Context]]:
        if count == 1:
            return [self]
        steps = StepsTogether(self._steps, Table())
        return [self._seat(steps) for _ in range(count)]

    def _seat(self, steps: StepsTogether) -> TorchBackend:
        # Without a captured step: that one is for one context.
        seat = TorchBackend(self.model, self.autoencoder, steps.kernel)
        seat._steps, seat._capture, seat.quantised = steps, None, self.quantised
        return seat

    def at_work(self) -> AbstractContextManager[None]:
        return self._steps.table.at_work() if isinstance(self._steps, StepsTogether) else nullcontext()

    def new_context(self) -> Context:
        return Context()

    def fork(self, context: Context) -> Context:
        return context.fork()

    @torch.inference_mode()
    def replace_text(self, context: Context, said: Sequence[int], ids: Sequence[int]) -> Context:
        same = shared_beginning(said, ids)
        fork = context.fork(len(said) + 1 - same)
        self._feed_text(fork, [*ids[same:], self.config.tokens.end])
        return fork

    @torch.inference_mode()
    def append_text(self, context: Context, ids: Sequence[int]) -> None:
        tokens = self.config.tokens
        self._feed_text(context, [tokens.start, *ids, tokens.end])

    @torch.inference_mode()
    def append_image(self, context: Context, image: np.ndarray, *, latents: bool, vision: bool) -> None:
        if latents:
            self.append_latents(context, self.encode_image(transforms.resize(image, self.config.vae_transform)))
        if vision:
            self.append_pictures([context], [image])

    @torch.inference_mode()
    def encode_image(self, image: np.ndarray) -> Tensor:
        """Return the latents ``(1, z, height/8, width/8)`` of an RGB uint8 image whose sides fit the stride."""
        return self._steps.encode(self._tensor(transforms.normalise(image))[None])

    @torch.inference_mode()
    def append_latents(self, context: Context, latents: Tensor) -> Tensor:
        """Append clean latents ``(1, z, h, w)`` as one segment; returns its final hidden states.

        Keys, values and hidden states of the segment are in the order start marker, end marker, latents.
        """
        patch = self.config.latent_patch_size
        grid = (latents.shape[2] // patch, latents.shape[3] // patch)
        tokens = transforms.latent_tokens(latents, patch)
        embedded = self.model.embed_latents(tokens, grid, torch.zeros(1, device=tokens.device))
        streams = Streams(self.model.embed_text(self._markers)[None], embedded)
        hidden = self._steps.forward([context], streams, causal=False, store=True)
        context.position += 1
        return torch.cat([hidden.understanding, hidden.generation], dim=1)

    @torch.inference_mode()
    def append_vision(self, context: Context, image: np.ndarray) -> Tensor:
        """Append a normalised image ``(3, height, width)`` as one ViT segment; returns its final hidden states."""
        return self._append_vision([context], image[None])

    @torch.inference_mode()
    def append_pictures(self, contexts: Sequence[Context], pictures: Sequence[np.ndarray]) -> None:
        """Append a picture to each context as its ViT segment, as :meth:`append_image` does one; sizes are equal."""
        limits = self.config.vae_transform, self.config.vit_transform
        self._append_vision(contexts, np.stack([transforms.vision_input(picture, *limits) for picture in pictures]))

    def _append_vision(self, contexts: Sequence[Context], images: np.ndarray) -> Tensor:
        features = self._steps.vision(self._tensor(images))
        first, last = self.model.embed_text(self._markers).expand(len(contexts), -1, -1).split(1, dim=1)
        streams = Streams(torch.cat([first, features, last], dim=1), None)
        hidden = self._steps.forward(list(contexts), streams, causal=False, store=True)
        for context in contexts:
            context.position += 1
        return hidden.understanding

    def decode(
        self,
        context: Context,
        prefix: Sequence[int] = (),
        *,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        random = np.random.default_rng(seed)
        end = self.config.tokens.end
        found = self._feed_text(context, [self.config.tokens.start, *prefix])[:, -1]
        step, to_logits = self._token_step(context, max_tokens), self._logits
        try:
            for _ in range(max_tokens):
                (token,) = choose_tokens(to_logits(found), temperature, [random.random()])
                if token.id == end:
                    break
                # Fed before it is shown, so that the context is whole whenever the caller stops.
                if step is None:
                    found = self._feed_text(context, [token.id])[:, -1]
                else:
                    found, to_logits = step.feed(token.id), self._usable
                yield token
        finally:
            if step is None:
                self._feed_text(context, [end])
            else:
                step.feed(end)
                step.end()

    def _token_step(self, context: Context, max_tokens: int) -> TokenStep | None:
        """Return what decodes a context by a captured step; None where there is none, or another decodes by it."""
        if self._capture is None or (self._step is not None and self._step.busy):
            return None
        capacity = capacity_for(len(context) + max_tokens + 1)
        if self._step is None or not capacity <= self._step.capacity <= 4 * capacity:
            self._step = None  # its memory is free before the next one takes its own
            try:
                self._step = TokenStep(self.model, capacity, self._capture)
            except RuntimeError as error:
                log.warning('tokens are decoded kernel by kernel, since their step cannot be captured: %s', error)
                self._capture = None
                return None
        self._step.begin(context)
        return self._step

    @torch.inference_mode()
    def append_texts(self, contexts: Sequence[Context], texts: Sequence[Sequence[int]]) -> None:
        """Append a text to each context, as :meth:`append_text` does one."""
        tokens = self.config.tokens
        self._feed_texts(contexts, [[tokens.start, *ids, tokens.end] for ids in texts])

    @torch.inference_mode()
    def decode_batch(
        self, texts: Sequence[TextToDecode], *, max_tokens: int = 2048, temperature: float = 0.0
    ) -> list[DecodedText]:
        """Decode several texts together, each as :meth:`decode` does one."""
        tokens = self.config.tokens
        contexts = [text.context for text in texts]
        hidden = self._feed_texts(contexts, [[tokens.start, *text.prefix] for text in texts])
        cache = PaddedCache(contexts, self.config.decoder, hidden)
        work = Decoding(texts, tokens.end, max_tokens)
        rows = list(range(len(texts)))
        while rows:
            drawn = choose_tokens(self._logits(hidden), temperature, work.uniform(rows))
            ids, ending = work.feed(rows, drawn)
            positions, attend = cache.positions[:, None], cache.next_token()
            streams = Streams(self.model.embed_text(torch.tensor(ids, device=hidden.device))[:, None], None)
            hidden = self.model(streams, positions, attend).understanding[:, 0]
            for i in ending:
                cache.write_back(rows.index(i))
            still = work.open(rows)
            if len(still) * 2 <= len(rows):
                kept = [rows.index(i) for i in still]
                rows, hidden = still, hidden[kept]
                if rows:
                    cache.keep(kept)
        return work.found

    @torch.inference_mode()
    def generate(
        self, guidance: Guidance[Context], height: int, width: int, sampler: SamplerConfig, noise: np.ndarray
    ) -> Iterator[np.ndarray | None]:
        for pictures in self.generate_batch([guidance], height, width, sampler, noise[None]):
            yield None if pictures is None else pictures[0]

    @torch.inference_mode()
    def generate_batch(
        self,
        guidances: Sequence[Guidance[Context]],
        height: int,
        width: int,
        sampler: SamplerConfig,
        noise: np.ndarray,
    ) -> Iterator[np.ndarray | None]:
        """Generate an image of each of several requests together, as :meth:`generate` does one.

        :param noise: ``(requests, tokens, latent_dim)``
        :returns: None after each step, at last ``(requests, height, width, 3)`` float32 in 0..1
        """
        stride = self.config.latent_stride
        grid = (height // stride, width // stride)

        def branches(x: Tensor, t: float, guided: bool) -> Sequence[Tensor]:
            return self._branches(guidances, x, grid, t, sampler if guided else None)

        # Steps add up in float32: rounded after each of them, many would lose what they add.
        x = torch.from_numpy(np.ascontiguousarray(noise)).to(self.model.device)
        for following in self._sample(Guided(branches, sampler), x, sampler):
            x = following
            yield None
        latents = transforms.tokens_to_latents(x.to(self.model.dtype), grid, self.config.latent_patch_size)
        pictures = self._steps.decode(latents).float()
        yield transforms.denormalise(pictures).permute(0, 2, 3, 1).cpu().numpy()

    def _sample(
        self, velocity: Callable[[Tensor, float, bool], Tensor], noise: Tensor, sampler: SamplerConfig
    ) -> Iterator[Tensor]:
        return sample(velocity, noise, sampler)

    def _branches(
        self,
        guidances: Sequence[Guidance[Context]],
        x: Tensor,
        grid: tuple[int, int],
        t: float,
        guided_by: SamplerConfig | None,
    ) -> Sequence[Tensor]:
        """Return velocities of ``(requests, tokens, latent_dim)``, branch by branch; all of them are one batch."""
        branches = [[guidance.full for guidance in guidances]]
        if guided_by is not None:
            branches.append([guidance.no_text for guidance in guidances])
            if guided_by.image_scale > 1:
                branches.append([guidance.no_image for guidance in guidances])
        contexts = [context for branch in branches for context in branch]
        if None in contexts:
            raise ValueError('guidance is on but a branch has no context; give no_text and no_image')
        return self.velocity(contexts, x.repeat(len(branches), 1, 1), grid, t).chunk(len(branches))

    @torch.inference_mode()
    def velocity(self, contexts: list[Context], x: Tensor, grid: tuple[int, int], t: float) -> Tensor:
        """Return ``(contexts, tokens, latent_dim)``: the velocity of noisy tokens under each context, in their type.

        :param x: ``(contexts, tokens, latent_dim)``, or ``(tokens, latent_dim)`` for the same under all
        """
        rows = len(contexts)
        time = torch.full((rows,), t, device=x.device)
        embedded = self.model.embed_latents(x.expand(rows, -1, -1).to(self.model.dtype), grid, time)
        streams = Streams(self.model.embed_text(self._markers)[None].expand(rows, -1, -1), embedded)
        hidden = self._steps.forward(contexts, streams, causal=False, store=False)
        return self.model.velocity(hidden.generation).to(x.dtype)

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.model.device, self.model.dtype)

    def _logits(self, hidden: Tensor) -> Tensor:
        return self._usable(self._steps.logits(hidden))

    def _usable(self, logits: Tensor) -> Tensor:
        return logits[..., : self.config.usable_vocab]

    @torch.inference_mode()
    def _feed_text(self, context: Context, ids: Sequence[int]) -> Tensor:
        return self._feed_rows([context], [ids])

    def _feed_texts(self, contexts: Sequence[Context], texts: Sequence[Sequence[int]]) -> Tensor:
        """Feed texts of any lengths, equal ones together; returns the last hidden state of each."""
        found: list[Tensor] = [torch.empty(0)] * len(texts)
        for length in sorted({len(ids) for ids in texts}):
            rows = [row for row, ids in enumerate(texts) if len(ids) == length]
            hidden = self._feed_rows([contexts[row] for row in rows], [texts[row] for row in rows])
            for row, last in zip(rows, hidden[:, -1], strict=True):
                found[row] = last
        return torch.stack(found)

    def _feed_rows(self, contexts: list[Context], rows: Sequence[Sequence[int]]) -> Tensor:
        ids = torch.tensor(rows, device=self.model.device)
        streams = Streams(self.model.embed_text(ids), None)
        hidden = self._steps.forward(contexts, streams, causal=True, store=True)
        for context in contexts:
            context.position += ids.shape[1]
        return hidden.understanding
