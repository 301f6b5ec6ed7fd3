"""A backend that says what a script tells it and notes all that it is given, to test turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cooper_model.backends.base import Backend, Guidance, Token
from cooper_model.config import CooperConfig, SamplerConfig
from cooper_model.tokenizer import Tokenizer

Entry = tuple[str, str]


class ScriptedBackend(Backend[list[Entry]]):
    """Contexts are lists of ``(kind, what)``; images are named by their first pixel.

    :param script: what each decoded turn says after its prefix
    """

    name = 'scripted'

    def __init__(self, config: CooperConfig, tokenizer: Tokenizer, script: Sequence[str]) -> None:
        self.config = config
        self.steps = 0
        self.drawn: list[Guidance[list[Entry]]] = []
        self.contexts: list[list[Entry]] = []
        self._tokenizer = tokenizer
        self._script = iter(script)

    def new_context(self) -> list[Entry]:
        self.contexts.append([])
        return self.contexts[-1]

    def fork(self, context: list[Entry]) -> list[Entry]:
        self.contexts.append(list(context))
        return self.contexts[-1]

    def replace_text(self, context: list[Entry], said: Sequence[int], ids: Sequence[int]) -> list[Entry]:
        assert context[-1] == ('said', self._tokenizer.decode(said))
        twin = self.fork(context)
        twin[-1] = ('text', self._tokenizer.decode(ids))
        self.steps += 1
        return twin

    def append_text(self, context: list[Entry], ids: Sequence[int]) -> None:
        self.steps += 1
        context.append(('text', self._tokenizer.decode(ids)))

    def append_image(self, context: list[Entry], image: np.ndarray, *, latents: bool, vision: bool) -> None:
        self.steps += 1
        name = '-'.join(str(v) for v in image[0, 0])
        context += [('latents', name)] * latents + [('vision', name)] * vision

    def decode(
        self,
        context: list[Entry],
        prefix: Sequence[int] = (),
        *,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        ids = list(prefix)
        try:
            for token in self._tokenizer.encode(next(self._script))[:max_tokens]:
                self.steps += 1
                ids.append(token)
                yield Token(token, -0.5)
        finally:
            context.append(('said', self._tokenizer.decode(ids)))

    def noise(self, height: int, width: int, seed: int) -> np.ndarray:
        return np.full(
            (height * width // self.config.latent_stride**2, self.config.latent_dim), seed, np.float32
        )

    def generate(
        self,
        guidance: Guidance[list[Entry]],
        height: int,
        width: int,
        sampler: SamplerConfig,
        noise: np.ndarray,
    ) -> Iterator[np.ndarray | None]:
        branches = (guidance.full, guidance.no_text, guidance.no_image)
        self.drawn.append(Guidance(*(None if context is None else list(context) for context in branches)))
        for _ in range(sampler.num_timesteps - 1):
            self.steps += 1
            yield None
        yield np.full((height, width, 3), 0.0, np.float32)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        return 48, 64
