"""Keys and values for exported graphs: one buffer of fixed capacity, shared by forks, written by the caller."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cooper_model.config import DecoderConfig


@dataclass(frozen=True)
class CacheForm:
    """What all caches of a backend have in common.

    :param step: capacities are multiples of this [tokens]
    :param limit: the largest capacity [tokens], None for any
    """

    decoder: DecoderConfig
    dtype: torch.dtype
    device: torch.device
    step: int = 256
    limit: int | None = None

    def capacity(self, tokens: int) -> int:
        """Return the capacity that holds a number of tokens.

        :raises ValueError: there is none
        """
        if self.limit is not None and tokens > self.limit:
            raise ValueError(
                f'the conversation has {tokens} tokens but the graphs take at most {self.limit}; ask a shorter '
                'question, or export again with a larger capacity'
            )
        fitting = -(-max(tokens, 1) // self.step) * self.step
        return fitting if self.limit is None else min(fitting, self.limit)


class Cache:
    """``keys`` and ``values``, each ``(layers, rows, kv_heads, capacity, head_dim)``.

    :ivar filled: tokens of the first row that somebody has written
    """

    def __init__(self, form: CacheForm, rows: int, capacity: int) -> None:
        decoder = form.decoder
        shape = (decoder.num_layers, rows, decoder.num_kv_heads, capacity, decoder.head_dim)
        # Zeros: a weight of nothing times what happens to lie in memory need not be nothing.
        self.keys = torch.zeros(shape, dtype=form.dtype, device=form.device)
        self.values = torch.zeros_like(self.keys)
        self.capacity = capacity
        self.filled = 0

    def write(self, row: int, start: int, keys: Tensor, values: Tensor) -> None:
        """Write ``(layers, kv_heads, tokens, head_dim)`` behind the first ``start`` tokens of a row."""
        stop = start + keys.shape[2]
        self.keys[:, row, :, start:stop] = keys
        self.values[:, row, :, start:stop] = values

    def inputs(self) -> dict[str, Tensor]:
        """Return what a graph takes, by name: a view a layer."""
        return by_layer('past_key', self.keys) | by_layer('past_value', self.values)


def by_layer(name: str, stacked: Tensor) -> dict[str, Tensor]:
    """Return the layers of a tensor ``(layers, ...)`` under the names that graphs have for them."""
    return {f'{name}_{layer}': part for layer, part in enumerate(stacked)}


class GraphContext:
    """One request's past: the first ``length`` tokens of a cache, which other contexts may see too.

    :ivar position: rotary position of the next token
    """

    def __init__(self, form: CacheForm) -> None:
        self._form = form
        self.cache = Cache(form, 1, form.step)
        self.length = 0
        self.position = 0

    def __len__(self) -> int:
        return self.length

    def fork(self, without: int = 0) -> GraphContext:
        """Return a context with the same past; nothing is copied until the second of the two is appended to.

        :param without: tokens at the end, of text, that it does not see
        """
        twin = GraphContext.__new__(GraphContext)
        twin._form, twin.cache = self._form, self.cache
        twin.length, twin.position = self.length - without, self.position - without
        return twin

    def reserve(self, tokens: int) -> None:
        """Make the next ``tokens`` places this context's own.

        Whoever sees all that was written goes on in the same buffer; others, and who needs a larger one, copy.
        """
        needed = self.length + tokens
        if self.cache.filled != self.length or self.cache.capacity < needed:
            grown = Cache(self._form, 1, self._form.capacity(needed))
            past = slice(0, self.length)
            grown.write(0, 0, self.cache.keys[:, 0, :, past], self.cache.values[:, 0, :, past])
            grown.filled = self.length
            self.cache = grown

    def append(self, keys: Tensor, values: Tensor) -> None:
        """Append ``(layers, kv_heads, tokens, head_dim)`` at places reserved before."""
        self.cache.write(0, self.length, keys, values)
        self.length += keys.shape[2]
        self.cache.filled = self.length


def stack(contexts: list[GraphContext], form: CacheForm) -> Cache:
    """Return one cache with a row a context, to be read: a copy, or the buffer itself of a single context."""
    if len(contexts) == 1:
        return contexts[0].cache
    lengths = [len(context) for context in contexts]
    joined = Cache(form, len(contexts), form.capacity(max(lengths)))
    for row, (context, length) in enumerate(zip(contexts, lengths, strict=True)):
        joined.write(row, 0, context.cache.keys[:, 0, :, :length], context.cache.values[:, 0, :, :length])
    return joined
