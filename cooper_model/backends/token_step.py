"""Decoding over a cache that stays where it is, so that a GPU can replay the work of a token as one CUDA graph.

Eager torch starts a thousand kernels a token, which takes longer than the GPU needs for them. A replayed graph starts
none, but reads and writes fixed addresses: hence tensors for token, place and cache that are filled, never replaced.
The step is tested on a CPU; capturing it has not been run, for want of a GPU.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from cooper_model.context import Context
from cooper_model.network.decoder import Streams
from cooper_model.network.model import Cooper

SMALLEST = 2048  # tokens of the smallest cache
WARM_UPS = 3

Step = Callable[[], Tensor]
Capture = Callable[[Step], Step]


def cuda_graph(device: torch.device, step: Step) -> Step:
    """Return a call that replays a step as one CUDA graph; what it returns lies at the same place every time.

    :param device: that the step computes on
    :raises RuntimeError: the step does something that cannot be captured, or memory runs out
    """
    with torch.cuda.device(device):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UPS):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            result = step()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


def capacity_for(tokens: int) -> int:
    """Return the capacity of a cache for so many tokens: a power of two, or three quarters of one."""
    power = 1 << (tokens - 1).bit_length()
    return max(SMALLEST, power * 3 // 4 if 4 * tokens <= 3 * power else power)


class TokenStep:
    """One token at a time of one context, whose keys and values are copied in and, at the end, the new ones out.

    :param capacity: tokens that the cache holds
    :param capture: makes the step of a token a call that may be faster
    """

    @torch.inference_mode()
    def __init__(self, model: Cooper, capacity: int, capture: Capture) -> None:
        config, device = model.config.decoder, model.device
        self._model, self.capacity = model, capacity
        shape = (config.num_layers, config.num_kv_heads, capacity, config.head_dim)
        # Zeros, because a weight of nothing times an arbitrary value need not be nothing.
        self._keys = torch.zeros(shape, dtype=model.dtype, device=device)
        self._values = torch.zeros_like(self._keys)
        self._token, self._position = (torch.zeros(1, 1, dtype=torch.long, device=device) for _ in range(2))
        self._place = torch.zeros(1, dtype=torch.long, device=device)
        self._places = torch.arange(capacity, device=device)
        self._context: Context | None = None
        self._length = 0
        self._unseen = self._places > self._place
        self._run = capture(self._step)

    @property
    def busy(self) -> bool:
        """Whether a context is being decoded."""
        return self._context is not None

    @torch.inference_mode()
    def begin(self, context: Context) -> None:
        """Take a context up; it stays as it is until :meth:`end`."""
        self._context, self._length = context, 0
        for block, count in context.views:
            stop = self._length + count
            self._keys[:, :, self._length : stop] = block.keys[:, :, :count]
            self._values[:, :, self._length : stop] = block.values[:, :, :count]
            self._length = stop
        self._place.fill_(self._length)
        self._position.fill_(context.position)

    @torch.inference_mode()
    def feed(self, token: int) -> Tensor:
        """Feed a token and return the logits behind it, ``(1, vocab)``, which the next call overwrites."""
        self._token.fill_(token)
        logits = self._run()
        self._place += 1
        self._position += 1
        self._length += 1
        return logits

    @torch.inference_mode()
    def end(self) -> None:
        """Append what was fed to the context."""
        assert self._context is not None, 'begin comes first'
        context, self._context = self._context, None
        start, count = len(context), self._length - len(context)
        context.reserve(count, self._model.config.decoder, self._keys)
        block, stop = context.views[-1]
        block.keys[:, :, stop - count : stop] = self._keys[:, :, start : self._length]
        block.values[:, :, stop - count : stop] = self._values[:, :, start : self._length]
        context.position += count

    def _step(self) -> Tensor:
        torch.gt(self._places, self._place, out=self._unseen)
        streams = Streams(self._model.embed_text(self._token), None)
        hidden = self._model(streams, self._position, self._attend).understanding
        return self._model.logits(hidden[:, -1])

    def _attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        keys, values = self._keys[layer], self._values[layer]
        keys.index_copy_(1, self._place, k[0].transpose(0, 1))
        values.index_copy_(1, self._place, v[0].transpose(0, 1))
        # Plain products: a fused kernel would walk through the cache with one block of threads a key/value head.
        grouped = q.reshape(keys.shape[0], -1, q.shape[-1])
        scores = (grouped @ keys.transpose(1, 2)).float() * q.shape[-1] ** -0.5
        weights = scores.masked_fill(self._unseen, float('-inf')).softmax(-1).to(q.dtype)
        return (weights @ values).view(q.shape)
