"""One padded cache for contexts that decode together: a step is one batch, whatever their lengths."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cooper_model.config import DecoderConfig
from cooper_model.context import Context
from cooper_model.network.decoder import Attend

ROOM = 64


class PaddedCache:
    """Copies of the keys and values of several contexts, ``(layers, rows, kv_heads, capacity, head_dim)``.

    Rows grow by one token a step. The contexts themselves stay as they are until :meth:`write_back`.

    :param like: gives dtype and device
    """

    def __init__(self, contexts: Sequence[Context], config: DecoderConfig, like: Tensor) -> None:
        self._contexts, self._config = list(contexts), config
        lengths = [len(context) for context in contexts]
        self.lengths = torch.tensor(lengths, device=like.device)
        self.positions = torch.tensor([context.position for context in contexts], device=like.device)
        shape = (config.num_layers, len(contexts), config.num_kv_heads, max(lengths) + ROOM, config.head_dim)
        # Zeros, because a weight of nothing times an arbitrary value need not be nothing.
        self.keys = torch.zeros(shape, dtype=like.dtype, device=like.device)
        self.values = torch.zeros_like(self.keys)
        for row, context in enumerate(contexts):
            start = 0
            for block, count in context.views:
                self.keys[:, row, :, start : start + count] = block.keys[:, :, :count]
                self.values[:, row, :, start : start + count] = block.values[:, :, :count]
                start += count

    def next_token(self) -> Attend:
        """Return attention of one new token a row over its row's past and itself; the tokens join the rows.

        Queries, keys and values of its calls are ``(rows, 1, heads, head_dim)``.
        """
        ends = self.lengths
        self.lengths, self.positions = self.lengths + 1, self.positions + 1
        width = int(self.lengths.max())
        self._make_room(width)
        rows = torch.arange(len(ends), device=ends.device)
        unseen = (torch.arange(width, device=ends.device) > ends[:, None])[:, None, None]

        def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            keys, values = self.keys[layer], self.values[layer]
            keys[rows, :, ends], values[rows, :, ends] = k[:, 0].to(keys.dtype), v[:, 0].to(values.dtype)
            keys, values = keys[:, :, :width], values[:, :, :width]
            grouped = q.view(len(rows), keys.shape[1], -1, q.shape[-1])
            scores = (grouped @ keys.transpose(2, 3)).float() * q.shape[-1] ** -0.5
            weights = scores.masked_fill_(unseen, float('-inf')).softmax(-1).to(q.dtype)
            return (weights @ values).view_as(q)

        return attend

    def write_back(self, row: int) -> None:
        """Append to a row's context what the row has beyond it."""
        context = self._contexts[row]
        start, stop = len(context), int(self.lengths[row])
        context.reserve(stop - start, self._config, self.keys)
        block, end = context.views[-1]
        block.keys[:, :, end - (stop - start) : end] = self.keys[:, row, :, start:stop]
        block.values[:, :, end - (stop - start) : end] = self.values[:, row, :, start:stop]
        context.position += stop - start

    def keep(self, rows: Sequence[int]) -> None:
        """Drop all other rows."""
        index = torch.tensor(rows, device=self.lengths.device)
        self._contexts = [self._contexts[row] for row in rows]
        self.lengths, self.positions = self.lengths[index], self.positions[index]
        width = int(self.lengths.max()) + ROOM
        self.keys, self.values = (x[:, :, :, :width].index_select(1, index) for x in (self.keys, self.values))

    def _make_room(self, width: int) -> None:
        if width > self.keys.shape[3]:
            more = self.keys.new_zeros((*self.keys.shape[:3], ROOM + width // 2, self.keys.shape[4]))
            self.keys, self.values = (torch.cat([x, more], dim=3) for x in (self.keys, self.values))
