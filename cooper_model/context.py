"""What the model has seen so far: keys and values in blocks that forks share, and the next rotary position.

A context is a list of views of blocks. Only a block's owner writes into it, behind everything that others can see, so
a fork costs a list copy: the shared prefix is never duplicated, and nothing is ever moved once written.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cooper_model.config import DecoderConfig
from cooper_model.network.decoder import Attend

FIRST_BLOCK = 512
Kernel = Literal['parts', 'sdpa']
Parts = list[tuple[Tensor, Tensor]]


class Block:
    """Keys and values of up to ``capacity`` tokens, ``(layers, kv_heads, capacity, head_dim)``, written in place."""

    def __init__(self, config: DecoderConfig, capacity: int, like: Tensor) -> None:
        shape = (config.num_layers, config.num_kv_heads, capacity, config.head_dim)
        self.capacity = capacity
        self.used = 0
        self.keys = torch.empty(shape, dtype=like.dtype, device=like.device)
        self.values = torch.empty_like(self.keys)


@dataclass
class Context:
    """One request's past.

    :param views: blocks and how many of their tokens belong to this context, in order
    :param position: the rotary position of the next token; not the number of tokens
    """

    views: list[tuple[Block, int]] = field(default_factory=list)
    position: int = 0
    owns_last: bool = False

    def __len__(self) -> int:
        return sum(length for _, length in self.views)

    def fork(self) -> Context:
        """Return a context with the same past; appending to either leaves the other as it is."""
        return Context(list(self.views), self.position)

    def reserve(self, count: int, config: DecoderConfig, like: Tensor) -> None:
        """Make room for ``count`` tokens behind the last one and count them as seen."""
        if self.owns_last:
            block, length = self.views[-1]
            if block.capacity - length >= count:
                block.used = length + count
                self.views[-1] = (block, length + count)
                return
        grown = max(FIRST_BLOCK, count, len(self) if self.owns_last else 0)
        block = Block(config, grown, like)
        block.used = count
        self.views.append((block, count))
        self.owns_last = True

    def keys(self, layer: int) -> Tensor:
        """Return a copy of all keys of a layer, ``(tokens, kv_heads, head_dim)``, for inspection."""
        return torch.cat([block.keys[layer, :, :n] for block, n in self.views], dim=1).transpose(0, 1)

    def values(self, layer: int) -> Tensor:
        """Return a copy of all values of a layer, ``(tokens, kv_heads, head_dim)``, for inspection."""
        return torch.cat([block.values[layer, :, :n] for block, n in self.views], dim=1).transpose(0, 1)


@dataclass(frozen=True)
class NewTokens:
    """What is fed to a set of contexts.

    :param count: new tokens of each context
    :param causal: whether a new token sees only the new tokens before it
    :param store: whether their keys and values join the contexts
    """

    count: int
    causal: bool
    store: bool


def cached_attention(
    contexts: list[Context], new: NewTokens, config: DecoderConfig, like: Tensor, kernel: Kernel = 'parts'
) -> Attend:
    """Return attention of the new tokens of each row over that row's context and over each other.

    :param contexts: one a batch row; lengths may differ. Where new tokens are stored, room is reserved now
    :param kernel: ``parts`` never moves a key, ``sdpa`` joins keys and values for torch's fused kernel
    """
    count, store = new.count, new.store
    if store:
        for context in contexts:
            context.reserve(count, config, like)
    run = _KERNELS[kernel]
    mask = None
    if new.causal and count > 1:
        mask = torch.full((count, count), float('-inf'), device=like.device).triu_(1)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for row, context in enumerate(contexts):
            new_k, new_v = k[row].transpose(0, 1), v[row].transpose(0, 1)
            if store:
                block, end = context.views[-1]
                block.keys[layer, :, end - count : end] = new_k
                block.values[layer, :, end - count : end] = new_v
            parts = [(b.keys[layer, :, :n], b.values[layer, :, :n]) for b, n in context.views]
            if not store:
                parts.append((new_k, new_v))
            rows.append(run(q[row], parts, mask))
        return torch.stack(rows)

    return attend


def _attend_parts(q: Tensor, parts: Parts, mask: Tensor | None) -> Tensor:
    """Attend from ``(tokens, heads, head_dim)`` over keys and values that lie in several places.

    Scores are joined, keys and values are not: they are far larger, and most of them have not changed.
    """
    tokens, heads, head_dim = q.shape
    kv_heads = parts[0][0].shape[0]
    # Queries that share a key/value head become rows of one product: (kv_heads, groups * tokens, head_dim).
    grouped = q.transpose(0, 1).reshape(kv_heads, -1, head_dim)
    scores = [grouped @ keys.transpose(1, 2) for keys, _ in parts]
    joined = (scores[0] if len(scores) == 1 else torch.cat(scores, dim=-1)).float() * head_dim**-0.5
    if mask is not None:
        joined = joined.view(heads, tokens, -1)
        joined[:, :, -tokens:] += mask
        joined = joined.view(kv_heads, -1, joined.shape[-1])
    weights = joined.softmax(-1).to(q.dtype)
    mixed = None
    start = 0
    for keys, values in parts:
        part = weights[:, :, start : start + keys.shape[1]] @ values
        mixed = part if mixed is None else mixed + part
        start += keys.shape[1]
    return mixed.view(heads, tokens, head_dim).transpose(0, 1)


def _attend_joined(q: Tensor, parts: Parts, mask: Tensor | None) -> Tensor:
    """Do the same with joined keys and values, by scaled_dot_product_attention."""
    keys, values = (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
    if mask is not None:
        mask = F.pad(mask, (keys.shape[1] - mask.shape[1], 0)).to(q.dtype)
    grouped = keys.shape[0] != q.shape[1]
    mixed = F.scaled_dot_product_attention(
        q.transpose(0, 1)[None], keys[None], values[None], attn_mask=mask, enable_gqa=grouped
    )
    return mixed[0].transpose(0, 1)


_KERNELS: dict[str, Callable[[Tensor, Parts, Tensor | None], Tensor]] = {
    'parts': _attend_parts,
    'sdpa': _attend_joined,
}
