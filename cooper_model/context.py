"""What the model has seen so far: keys and values in blocks that forks share, and the next rotary position.

A context is a list of views of blocks. Only a block's owner writes into it, behind everything that others can see, so
a fork costs a list copy: the shared prefix is never duplicated, and nothing is ever moved once written.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cooper_model.config import DecoderConfig
from cooper_model.network.decoder import Attend

FIRST_BLOCK = 512
MOST_SCORES = 2**25  # held at once
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

    def fork(self, without: int = 0) -> Context:
        """Return a context with the same past; appending to either leaves the other as it is.

        :param without: tokens at the end, of text, that it does not see
        """
        views, left = list(self.views), without
        while left > 0:
            block, length = views.pop()
            if length > left:
                views.append((block, length - left))
            left -= length
        return Context(views, self.position - without)

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
        mask = torch.full((count, count), float('-inf'), dtype=like.dtype, device=like.device).triu_(1)
    layered = [[_by_layer(block, 0, length) for block, length in context.views] for context in contexts]
    ends = [context.views[-1] for context in contexts if store]
    written = [_by_layer(block, end - count, end) for block, end in ends]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows = []
        for row, past in enumerate(layered):
            new_k, new_v = k[row].transpose(0, 1), v[row].transpose(0, 1)
            parts = [(keys[layer], values[layer]) for keys, values in past]
            if store:
                keys, values = written[row]
                keys[layer].copy_(new_k)
                values[layer].copy_(new_v)
            else:
                parts.append((new_k, new_v))
            rows.append(run(q[row], parts, mask))
        return rows[0][None] if len(rows) == 1 else torch.stack(rows)

    return attend


def _by_layer(block: Block, start: int, stop: int) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Return views of some of a block's tokens, ``(kv_heads, tokens, head_dim)`` each: keys and values by layer."""
    return block.keys[:, :, start:stop].unbind(), block.values[:, :, start:stop].unbind()


def _attend_parts(q: Tensor, parts: Parts, mask: Tensor | None) -> Tensor:
    """Attend from ``(tokens, heads, head_dim)`` over keys and values that lie in several places.

    For one token scores are joined and keys and values are not: they are far larger, and have not changed. Many tokens
    at once are worth joining them.
    """
    if len(parts) == 1 or q.shape[0] > 1:
        return _attend_joined(q, parts, mask)
    grouped = q.view(parts[0][0].shape[0], -1, q.shape[-1])
    scores = torch.cat([grouped @ keys.transpose(1, 2) for keys, _ in parts], dim=-1)
    weights = (scores.float() * q.shape[-1] ** -0.5).softmax(-1).to(q.dtype)
    shares = weights.split([keys.shape[1] for keys, _ in parts], dim=-1)
    mixed = torch.stack([share @ values for share, (_, values) in zip(shares, parts, strict=True)]).sum(0)
    return mixed.view_as(q)


def _attend_joined(q: Tensor, parts: Parts, mask: Tensor | None) -> Tensor:
    """Do the same with joined keys and values, by scaled_dot_product_attention.

    Queries that share a key/value head are rows of one product, which every fused kernel takes as it is.
    """
    tokens, heads, head_dim = q.shape
    keys, values = parts[0] if len(parts) == 1 else (torch.cat(side, dim=1) for side in zip(*parts, strict=True))
    grouped = q.transpose(0, 1).reshape(keys.shape[0], -1, head_dim)
    if mask is None and q.dtype == torch.bfloat16 and q.device.type == 'cpu' and tokens > 1:
        mixed = _attend_products(grouped, keys, values)
        return mixed.view(heads, tokens, head_dim).transpose(0, 1)
    if mask is not None:
        mask = F.pad(mask, (keys.shape[1] - tokens, 0)).repeat(heads // keys.shape[0], 1)
    mixed = F.scaled_dot_product_attention(grouped[None], keys[None], values[None], attn_mask=mask)
    return mixed.view(heads, tokens, head_dim).transpose(0, 1)


def _attend_products(q: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Attend from ``(kv_heads, rows, head_dim)`` by two plain products, which a CPU has in bfloat16.

    torch's fused kernel multiplies in float32 there and takes over half as long again. Scores are rounded, so the mean
    key is taken from all keys first: it moves all scores of a query alike, and leaves smaller ones (as in
    SageAttention, Zhang et al. 2024, arXiv 2410.02367).
    """
    keys = (keys - keys.mean(1, keepdim=True)).transpose(1, 2)
    scale, unread = q.shape[-1] ** -0.5, q.new_empty(1)
    # Not all rows at once where scores would fill memory.
    rows = max(1, MOST_SCORES // (keys.shape[0] * keys.shape[2]))
    scores = (torch.baddbmm(unread, part, keys, beta=0, alpha=scale) for part in q.split(rows, dim=1))
    mixed = [each.softmax(-1) @ values for each in scores]
    return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


_KERNELS: dict[str, Callable[[Tensor, Parts, Tensor | None], Tensor]] = {
    'parts': _attend_parts,
    'sdpa': _attend_joined,
}
