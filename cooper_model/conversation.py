"""One conversation with a backend: its contexts kept in step, and the model's text decoded out of it."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from cooper_model.backends.base import Backend, ContextT, Guidance
from cooper_model.grammar import TurnScanner
from cooper_model.stopwatch import Stopwatch
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import TextDelta


@dataclass
class ModelText:
    """What the model wrote in one turn.

    :param text: with the prefix that was given to it
    :param ids: with those of the prefix
    :param logprobs: of the decoded tokens, without the prefix
    :param ends: length of ``text`` after each decoded token
    """

    text: str
    ids: list[int]
    logprobs: list[float] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def confidence(self, part: str) -> float:
        """Return the geometric mean of the probabilities of the tokens that spell ``part``, or of all."""
        start = self.text.rfind(part) if part else -1
        chosen = self.logprobs
        if start >= 0:
            begins = [0, *self.ends[:-1]]
            spelling = [
                logprob
                for logprob, begin, end in zip(self.logprobs, begins, self.ends, strict=True)
                if begin < start + len(part) and end > start
            ]
            chosen = spelling or chosen
        return math.exp(sum(chosen) / len(chosen)) if chosen else 0.0


class Writing:
    """One turn while its tokens come in.

    :param prefix: beginning that is given to the model
    """

    def __init__(self, tokenizer: Tokenizer, prefix: str = '') -> None:
        self.prefix_ids = tokenizer.encode(prefix)
        self.written = ModelText(prefix, list(self.prefix_ids))
        self._scanner, self._stream = TurnScanner(prefix), tokenizer.stream()

    def push(self, token: int) -> tuple[str, bool]:
        """Add an id; return the text that is certain now, and whether the turn's action is complete."""
        delta = self._stream.push(token)
        self.written.text += delta
        self.written.ids.append(token)
        self.written.ends.append(len(self.written.text))
        return delta, self._scanner.feed(delta)

    def finish(self) -> str:
        """Return what text was held back; the turn has ended."""
        rest = self._stream.flush()
        if rest:
            self.written.text += rest
            self.written.ends[-1] = len(self.written.text)
        return rest


class Conversation(Generic[ContextT]):
    """The full context and, where image guidance is on, its twin that lacks the photo alone.

    :param full: context that everything is appended to
    :param no_image: the twin, or None where no branch needs it
    """

    def __init__(
        self,
        backend: Backend[ContextT],
        tokenizer: Tokenizer,
        watch: Stopwatch,
        full: ContextT,
        no_image: ContextT | None = None,
    ) -> None:
        self.full, self.no_image = full, no_image
        self._backend, self._tokenizer, self._watch = backend, tokenizer, watch

    @property
    def contexts(self) -> list[ContextT]:
        """All that is told to both: the full context, and the twin where there is one."""
        return [context for context in (self.full, self.no_image) if context is not None]

    def fork_full(self) -> ContextT:
        """Return a fork of the full context."""
        return self._backend.fork(self.full)

    def fork(self) -> Conversation[ContextT]:
        """Return an independent continuation of both contexts."""
        no_image = None if self.no_image is None else self._backend.fork(self.no_image)
        return Conversation(self._backend, self._tokenizer, self._watch, self.fork_full(), no_image)

    def add_photo(self, image: np.ndarray, *, latents: bool) -> None:
        """Append the camera image, which the twin does not get."""
        if latents:
            with self._watch.part('context'):
                self._backend.append_image(self.full, image, latents=True, vision=False)
        with self._watch.part('context'):
            self._backend.append_image(self.full, image, latents=False, vision=True)

    def add_text(self, text: str) -> None:
        """Append a text of the user."""
        self.add_ids(self._tokenizer.encode(text))

    def add_ids(self, ids: Sequence[int], *, twin_only: bool = False) -> None:
        """Append ids as one text; to the twin alone where the full context has them from decoding."""
        for context in (None if twin_only else self.full, self.no_image):
            if context is not None:
                with self._watch.part('context'):
                    self._backend.append_text(context, ids)

    def add_map(self, shown: np.ndarray) -> None:
        """Append a generated map as the model sees it: its ViT segment alone."""
        for context in self.contexts:
            with self._watch.part('context'):
                self._backend.append_image(context, shown, latents=False, vision=True)

    def guidance(self, no_text: ContextT | None) -> Guidance[ContextT]:
        """Return the branches for generating an image now."""
        return Guidance(self.full, no_text, self.no_image)

    def decode(
        self, turn: int, prefix: str = '', *, max_tokens: int, seed: int = 0
    ) -> Generator[TextDelta, None, ModelText]:
        """Decode a turn into the full context until its action is complete; return it.

        :param prefix: beginning of the model's text, shown as its first delta
        """
        writing = Writing(self._tokenizer, prefix)
        if prefix:
            yield TextDelta(turn, prefix)
        tokens = self._backend.decode(self.full, writing.prefix_ids, max_tokens=max_tokens, seed=seed)
        try:
            complete = False
            while not complete:
                with self._watch.part('decode'):
                    token = next(tokens, None)
                if token is None:
                    break
                self._watch.mark('first_token')
                delta, complete = writing.push(token.id)
                writing.written.logprobs.append(token.logprob)
                if delta:
                    yield TextDelta(turn, delta)
        finally:
            tokens.close()
        rest = writing.finish()
        if rest:
            yield TextDelta(turn, rest)
        return writing.written
