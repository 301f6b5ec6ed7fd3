"""Choosing tokens, one at a time or for many texts together; both ways draw the same from the same seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cooper_model.backends.base import Token
from cooper_model.context import Context

Complete = Callable[[int], bool]


def _never(token: int) -> bool:
    return False


@dataclass(frozen=True)
class TextToDecode:
    """One of several texts that are decoded together.

    :param context: where it goes
    :param prefix: ids that it begins with
    :param seed: of its own random numbers
    :param complete: is told each id and says whether the text ends behind it
    """

    context: Context
    prefix: Sequence[int] = ()
    seed: int = 0
    complete: Complete = _never


@dataclass
class DecodedText:
    """What was decoded.

    :param tokens: without prefix and end token
    :param end: the end token where the model chose it; None where ``complete`` or the limit ended the text
    """

    tokens: list[Token] = field(default_factory=list)
    end: Token | None = None


def choose_tokens(logits: Tensor, temperature: float, uniform: Sequence[float]) -> list[Token]:
    """Return a token for each row of ``logits`` ``(rows, vocab)``, the likeliest at temperature 0.

    :param uniform: a random number in 0..1, 1 excluded, for each row
    :returns: each with its log-probability under the distribution that it was drawn from, ``logits / temperature``
        (the model's own at temperature 0)
    """
    logits = logits.float()
    logprobs = (logits / temperature if temperature > 0 else logits).log_softmax(-1)
    if temperature > 0:
        # The inverse of the distribution function; a token of probability zero is never met.
        total = logprobs.double().exp().cumsum(-1)
        level = torch.tensor(uniform, dtype=total.dtype, device=total.device)[:, None] * total[:, -1:]
        ids = torch.searchsorted(total, level, right=True).clamp(max=total.shape[-1] - 1)
    else:
        ids = logits.argmax(-1, keepdim=True)
    found = zip(ids[:, 0].tolist(), logprobs.gather(-1, ids)[:, 0].tolist(), strict=True)
    return [Token(number, logprob) for number, logprob in found]


def shared_beginning(one: Sequence[int], other: Sequence[int]) -> int:
    """Return how many ids two texts begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


class Decoding:
    """Keeps account of texts that are decoded together: which still grow, and what each is fed next."""

    def __init__(self, texts: Sequence[TextToDecode], end: int, max_tokens: int) -> None:
        self.found = [DecodedText() for _ in texts]
        self._texts, self._end, self._max_tokens = texts, end, max_tokens
        self._random = [np.random.default_rng(text.seed) for text in texts]
        self._complete = [max_tokens == 0] * len(texts)
        self._closed = [False] * len(texts)

    def uniform(self, rows: Sequence[int]) -> list[float]:
        """Return the next random number of each of some texts."""
        return [0.0 if self._closed[i] else float(self._random[i].random()) for i in rows]

    def feed(self, rows: Sequence[int], drawn: Sequence[Token]) -> tuple[list[int], list[int]]:
        """Take in a drawn token for each of some texts.

        :returns: the ids to feed, and the texts among ``rows`` that end with this feed
        """
        ids, ending = [], []
        for i, token in zip(rows, drawn, strict=True):
            if self._closed[i] or self._complete[i] or token.id == self._end:
                if not (self._closed[i] or self._complete[i]):
                    self.found[i].end = token
                if not self._closed[i]:
                    ending.append(i)
                self._closed[i] = True
                ids.append(self._end)
                continue
            self.found[i].tokens.append(token)
            full = len(self.found[i].tokens) == self._max_tokens
            self._complete[i] = self._texts[i].complete(token.id) or full
            ids.append(token.id)
        return ids, ending

    def open(self, rows: Sequence[int]) -> list[int]:
        """Return those of ``rows`` that have not ended."""
        return [i for i in rows if not self._closed[i]]
