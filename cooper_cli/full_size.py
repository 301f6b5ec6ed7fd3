"""``cooper bench --full``: the published architecture with random weights on one GPU, beside what bounds it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from cooper_cli.floors import Ceilings, Floors, measure_ceilings
from cooper_cli.random_model import SIZES
from cooper_cli.workloads import Clock
from cooper_model import transforms
from cooper_model.backends.base import Guidance
from cooper_model.backends.token_step import capacity_for
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import CooperConfig, SamplerConfig
from cooper_model.flow import guidance_active, timesteps
from cooper_model.memory import GB, Use, captured_bytes, joined_bytes, token_bytes, weight_bytes, working_bytes
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.embeddings import PositionTable, position_table
from cooper_model.network.model import Cooper
from cooper_model.quantise import Quantisation

SIDE, PREFILL, QUESTION, DECODED = 512, 512, 32, 64
CONTEXTS = {'1k': 1024, '4k': 4096}
CACHED = 32_768  # tokens in all caches that live at the same time, with room to grow
SPREAD = 0.02
GUIDED = SamplerConfig(num_timesteps=20, shift=3.0, text_scale=4.0, image_scale=2.0, interval=(0.4, 1.0))
UNGUIDED = replace(GUIDED, text_scale=1.0, image_scale=1.0)
SCHEDULES = {
    'image_20_points_1_branch_s': UNGUIDED,
    'image_20_points_3_branches_s': GUIDED,
    'image_4_steps_1_branch_s': replace(UNGUIDED, num_timesteps=5),
}


def choose_device(config: CooperConfig, device: str | None, needs_gpu: bool) -> torch.device:
    """Return where to run, checked before anything is built.

    :raises ValueError: there is no GPU where one is needed, or it has too little free memory
    """
    if not torch.cuda.is_available() or device == 'cpu':
        if needs_gpu:
            raise ValueError(
                f'bench --full needs a CUDA GPU with {_needed(config) / GB:.0f} GB free, and '
                f'{"--device is cpu" if torch.cuda.is_available() else "torch finds none here"}; '
                'the same program runs on a CPU with --full --random tiny'
            )
        return torch.device('cpu')
    place = torch.device(device or 'cuda')
    free, total = torch.cuda.mem_get_info(place)
    if free < _needed(config):
        raise ValueError(
            f'bench --full needs {_needed(config) / GB:.1f} GB but {free / GB:.1f} of {total / GB:.1f} GB are free on '
            f'{torch.cuda.get_device_name(place)}; close other programs, or measure --full --random mid'
        )
    return place


def _needed(config: CooperConfig) -> int:
    weights = sum(weight_bytes(config, Quantisation()).values()) + joined_bytes(config)
    step = captured_bytes(config, capacity_for(max(CONTEXTS.values()) + DECODED + 1))
    return weights + CACHED * token_bytes(config) + step + working_bytes(config, Use((SIDE, SIDE)))


def build(config: CooperConfig, device: torch.device, seed: int) -> TorchBackend:
    """Return a back end in bfloat16 (float32 on a CPU) whose random weights are made where they stay."""
    dtype = torch.bfloat16 if device.type == 'cuda' else torch.float32
    generator = torch.Generator(device).manual_seed(seed)
    with torch.device('meta'):
        model, autoencoder = Cooper(config).to(dtype), build_autoencoder(config.autoencoder).to(dtype)
    for module in (model, autoencoder):
        module.to_empty(device=device)
        _fill(module, generator)
    for table, spread in (
        (model.latent_pos_embed, config.latent_table_spread),
        (model.vit_pos_embed, config.vision_table_spread),
    ):
        _fill_table(table, config.decoder.hidden_size, spread)
    backend = TorchBackend(model, autoencoder, 'sdpa' if device.type == 'cuda' else 'parts')
    backend.prepare()
    return backend


@torch.no_grad()
def _fill(module: nn.Module, generator: torch.Generator) -> None:
    for name, value in module.named_parameters():
        if value.dim() > 1:
            value.normal_(0.0, SPREAD, generator=generator)
        else:
            value.fill_(1.0 if name.endswith('weight') else 0.0)


def _fill_table(table: PositionTable, dim: int, spread: float) -> None:
    table.pos_embed.copy_(position_table(dim, table.side, spread))


def measure(size: str | None, seed: int, device: str | None, repeats: int) -> tuple[TorchBackend, dict[str, Any]]:
    """Build a model and return it with its figures, floors and shares by name.

    :param size: a name of ``SIZES``; None for the published size, which needs a GPU
    :raises ValueError: there is no such size, no GPU, or too little memory
    """
    if size is not None and size not in SIZES:
        raise ValueError(f'{size!r} is no size of a random model; choose from {", ".join(SIZES)}')
    start = time.perf_counter()
    config = SIZES[size] if size else CooperConfig()
    place = choose_device(config, device, needs_gpu=size is None)
    backend = build(config, place, seed)
    finish: Callable[[], None] = partial(torch.cuda.synchronize, place) if place.type == 'cuda' else (lambda: None)
    ceilings = measure_ceilings(place, backend.model.dtype, finish)
    work = _Work(backend, Clock(repeats, finish), ceilings, seed)
    with torch.inference_mode():
        work.run()
    shares = {name: _share(name, value, work.figures[name]) for name, value in work.floors.items()}
    return backend, {
        'size': size or '7b',
        **work.figures,
        'floors': work.floors,
        'shares': shares,
        'ceilings': {'copy_gb_per_s': ceilings.bandwidth / 1e9, 'matrix_tflop_per_s': ceilings.arithmetic / 1e12},
        'tokens': work.tokens,
        'whole_run_s': time.perf_counter() - start,
    }


def _share(name: str, floor: float, measured: float) -> float:
    """Return the share of what the machine could do: least time over time, or rate over largest rate."""
    return measured / floor if name.endswith('tok_per_s') else floor / measured


class _Work:
    """Runs the workload; ``figures``, ``floors`` and ``tokens`` fill as it goes."""

    def __init__(self, backend: TorchBackend, clock: Clock, ceilings: Ceilings, seed: int) -> None:
        self._backend, self._clock, self._seed = backend, clock, seed
        self._least = Floors(backend.config, ceilings)
        random = np.random.default_rng(seed)
        config = backend.config
        special = set(vars(config.tokens).values())
        limit = min(config.usable_vocab or config.decoder.vocab_size, config.decoder.vocab_size)
        self._ids = random.choice(np.setdiff1d(np.arange(limit), sorted(special)), PREFILL).tolist()
        self._size = backend.image_size(SIDE, SIDE)
        self._image = random.integers(0, 256, (*self._size, 3), dtype=np.uint8)
        self._pixels = transforms.vision_input(self._image, config.vae_transform, config.vit_transform)
        stride, patch = config.latent_stride, config.vision.patch_size
        self._latents = self._size[0] // stride * (self._size[1] // stride) + 2
        self._patches = self._pixels.shape[1] // patch * (self._pixels.shape[2] // patch)
        self.figures: dict[str, float] = {}
        self.floors: dict[str, float] = {}
        self.tokens = {'latents': self._latents, 'vision': self._patches + 2, 'image_side': self._size[0]}

    def run(self) -> None:
        """Measure everything."""
        least = self._least
        backend = self._backend
        self._timed(f'prefill_{PREFILL}_s', lambda context: self._append(context, PREFILL), least.text(PREFILL, 0))
        for name, tokens in CONTEXTS.items():
            self._decode(f'decode_{name}_tok_per_s', tokens)
        pixels = backend._tensor(self._pixels)[None]
        picture = backend._tensor(transforms.normalise(self._image))[None]
        tower = nn.ModuleList([backend.model.vit_model, backend.model.connector])
        vision_floor = least.vision(tower, self._patches)
        encode_floor = least.counted(lambda: backend.autoencoder.encode(picture))
        context_floor = vision_floor + encode_floor + least.picture('generation', self._latents, QUESTION)
        context_floor += least.picture('understanding', self._patches + 2, QUESTION + self._latents)
        seen = QUESTION + self._latents + self._patches + 2
        first_floor = context_floor + least.text(QUESTION, seen) + least.token(seen + QUESTION)
        self._timed('image_context_s', self._show, context_floor, QUESTION)
        self._timed('first_token_s', self._first_token, first_floor, QUESTION)
        for name, sampler in SCHEDULES.items():
            self._generate(name, sampler)
        latents = backend.autoencoder.encode(picture)
        self._timed('vit_s', lambda _: backend.model.embed_vision(pixels), vision_floor)
        self._timed('vae_encode_s', lambda _: backend.autoencoder.encode(picture), encode_floor)
        decode_floor = least.counted(lambda: backend.autoencoder.decode(latents))
        self._timed('vae_decode_s', lambda _: backend.autoencoder.decode(latents), decode_floor)

    def _timed(self, name: str, work: Callable[[Any], object], floor: float, text: int = 0) -> None:
        """Time work on a context of ``text`` tokens."""

        def timed(context: Any) -> dict[str, float]:
            start = self._clock.now()
            work(context)
            return {name: self._clock.now() - start}

        self.figures |= self._clock.median(timed, lambda: self._filled(text))
        self.floors[name] = floor

    def _filled(self, tokens: int) -> Any:
        """Return a context of texts of at most ``PREFILL`` tokens each."""
        context = self._backend.new_context()
        while len(context) < tokens:
            self._append(context, min(PREFILL, tokens - len(context)))
        return context

    def _append(self, context: Any, tokens: int) -> None:
        """Append a text of so many tokens, start and end included."""
        self._backend.append_text(context, self._ids[: tokens - 2])

    def _show(self, context: Any) -> None:
        self._backend.append_image(context, self._image, latents=True, vision=True)

    def _first_token(self, context: Any) -> None:
        self._show(context)
        self._append(context, QUESTION)
        tokens = self._backend.decode(context, max_tokens=1)
        next(tokens, None)
        tokens.close()

    def _decode(self, name: str, tokens: int) -> None:
        def timed(context: Any) -> dict[str, float]:
            stream = self._backend.decode(context, max_tokens=DECODED)
            # From the first token on: what comes before it is prefill.
            found = next(stream, None) is not None
            start = self._clock.now()
            decoded = sum(1 for _ in stream) if found else 0
            seconds = self._clock.now() - start
            if not decoded:
                raise RuntimeError('the random model ended its text at once; give another --seed')
            return {name: decoded / seconds}

        self.figures |= self._clock.median(timed, lambda: self._filled(tokens))
        self.floors[name] = 1.0 / self._least.token(tokens + DECODED // 2)

    def _generate(self, name: str, sampler: SamplerConfig) -> None:
        noise = self._backend.noise(*self._size, self._seed)

        def timed(guidance: Guidance[Any]) -> dict[str, float]:
            marks = [self._clock.now()]
            for _ in self._backend.generate(guidance, *self._size, sampler, noise):
                marks.append(self._clock.now())
            # One mark a step, and the last for the decoded picture, which is timed apart.
            return {name: marks[-2] - marks[0]}

        branches = self._guidance()
        lengths = [len(context) for context in (branches.full, branches.no_text, branches.no_image)]
        self.figures |= self._clock.median(timed, lambda: branches)
        self.floors[name] = sum(
            self._least.denoising(self._latents, lengths if guidance_active(t, sampler) else lengths[:1])
            for t in timesteps(sampler.num_timesteps, sampler.shift)[:-1]
        )

    def _guidance(self) -> Guidance[Any]:
        no_text = self._filled(QUESTION)
        self._show(no_text)
        full = self._backend.fork(no_text)
        self._append(full, QUESTION)
        return Guidance(full, no_text, self._filled(2 * QUESTION))
