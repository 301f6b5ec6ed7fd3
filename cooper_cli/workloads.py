"""Timed work on a back end: prefill, decode, image context, image generation. No tokenizer is needed.

One definition for every comparison between implementations: the same ids, images and noise from one seed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from cooper_model.backends.base import Backend, Guidance
from cooper_model.config import SamplerConfig

PREFILL, DECODED, TEXT, POINTS = 256, 64, 32, 11
CACHED, FEW = (64, 512, 4096), 16


@dataclass(frozen=True)
class Clock:
    """Times work on one back end.

    :param repeats: measurements after one warm-up; the median counts
    :param finish: waits until the device has done what it was given
    """

    repeats: int
    finish: Callable[[], None]

    def now(self) -> float:
        """Return the time [s] at which all work given so far is done."""
        self.finish()
        return time.perf_counter()

    def median(self, work: Callable[[Any], dict[str, float]], prepare: Callable[[], Any]) -> dict[str, float]:
        """Return the median of each figure that ``work`` returns; ``prepare`` is not timed."""
        work(prepare())
        results = [work(prepare()) for _ in range(self.repeats)]
        return {name: statistics.median(result[name] for result in results) for name in results[0]}


def model_figures(
    backend: Backend, clock: Clock, image_side: int = 256, seed: int = 0, sampler: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Return the figures of the ``mid`` workload by name, and what a token costs after texts of several lengths.

    :param image_side: side of the square image that is shown and generated [px], before the model's own resize
    :param sampler: settings of the sampler that differ from the workload's
    """
    work = Work(backend, clock, image_side, seed)
    work.sampler = replace(work.sampler, **(sampler or {}))
    figures = clock.median(work.text, backend.new_context)
    figures |= work.token_costs()
    figures |= clock.median(work.image_context, lambda: work.texts(TEXT))
    figures |= work.encode()
    figures |= clock.median(work.generate, work.guidance)
    return figures


class Work:
    """The work on one back end.

    :ivar size: height and width of the image that is generated [px]
    :ivar noise: what it starts from, ``(tokens, latent_dim)`` float32
    """

    def __init__(self, backend: Backend, clock: Clock, image_side: int, seed: int) -> None:
        self._backend, self._clock = backend, clock
        random = np.random.default_rng(seed)
        config = backend.config
        tokens = config.tokens
        special = {tokens.start, tokens.end, tokens.image_start, tokens.image_end}
        limit = min(config.usable_vocab or config.decoder.vocab_size, config.decoder.vocab_size)
        plain = np.setdiff1d(np.arange(limit), sorted(special))
        self._ids = random.choice(plain, PREFILL).tolist()
        self.image = random.integers(0, 256, (image_side, image_side, 3), dtype=np.uint8)
        self.size = backend.image_size(image_side, image_side)
        self.noise = backend.noise(*self.size, seed)
        self.sampler: SamplerConfig = replace(
            config.sampler, num_timesteps=POINTS, text_scale=4.0, image_scale=2.0, interval=(0.0, 1.0), renorm='global'
        )

    def texts(self, *counts: int) -> Any:
        """Return a context of texts of ``counts`` tokens, start and end included."""
        context = self._backend.new_context()
        for count in counts:
            self._backend.append_text(context, self._ids[: count - 2])
        return context

    def text(self, context: Any) -> dict[str, float]:
        start = self._clock.now()
        self._backend.append_text(context, self._ids[: PREFILL - 2])
        filled = self._clock.now()
        decoded = sum(1 for _ in self._backend.decode(context, max_tokens=DECODED))
        seconds = self._clock.now() - filled
        return {'text_prefill_256_s': filled - start, 'decode_tok_per_s': decoded / seconds}

    def token_costs(self) -> dict[str, float]:
        """Return the seconds of a token with so many tokens cached, in a fork of a context that others share."""
        context = self._backend.new_context()
        figures: dict[str, float] = {}
        for count in CACHED:
            while len(context) < count:
                self._backend.append_text(context, self._ids[: min(PREFILL, count - len(context)) - 2])
            figures |= self._clock.median(partial(self._few_tokens, count), partial(self._backend.fork, context))
        return figures

    def _few_tokens(self, count: int, context: Any) -> dict[str, float]:
        stream = self._backend.decode(context, max_tokens=FEW)
        next(stream, None)  # what comes before the first token is prefill
        start = self._clock.now()
        fed = 1 + sum(1 for _ in stream)  # the end token is fed as others are
        return {f'token_after_{count}_s': (self._clock.now() - start) / fed}

    def image_context(self, context: Any) -> dict[str, float]:
        start = self._clock.now()
        self._backend.append_image(context, self.image, latents=True, vision=True)
        return {'image_context_s': self._clock.now() - start}

    def encode(self) -> dict[str, float]:
        """Return the autoencoder's share of the image context, where the back end can run it apart."""
        encode = getattr(self._backend, 'encode_image', None)
        if encode is None:
            return {}
        from cooper_model.transforms import resize_image

        seen = resize_image(self.image, *self.size)

        def work(_: None) -> dict[str, float]:
            start = self._clock.now()
            encode(seen)
            return {'of_which_vae_encode_s': self._clock.now() - start}

        return self._clock.median(work, lambda: None)

    def guidance(self) -> Guidance:
        """Return the contexts of the three branches."""
        no_text = self.texts(TEXT)
        self._backend.append_image(no_text, self.image, latents=True, vision=True)
        full = self._backend.fork(no_text)
        self._backend.append_text(full, self._ids[: TEXT - 2])
        return Guidance(full, no_text, self.texts(TEXT, TEXT))

    def generate(self, guidance: Guidance) -> dict[str, float]:
        marks = [self._clock.now()]
        for _ in self._backend.generate(guidance, *self.size, self.sampler, self.noise):
            marks.append(self._clock.now())
        # One mark a denoising step, and the last for the decoded picture.
        return {'generate_image_s': marks[-2] - marks[0], f'vae_decode_{self.size[0]}_s': marks[-1] - marks[-2]}
