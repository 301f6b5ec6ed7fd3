"""What a machine cannot beat: arithmetic and traffic of a model's work, over ceilings measured on that machine.

Work is bound by the larger of its arithmetic over the matrix rate and the weights and caches that it must read over
the bandwidth. Sizes are those of bfloat16; norms, softmax and embeddings are left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cooper_model.config import CooperConfig
from cooper_model.memory import ITEM, token_bytes, weight_bytes
from cooper_model.quantise import Quantisation

ROUNDS = 10


@dataclass(frozen=True)
class Ceilings:
    """Rates of one machine.

    :param bandwidth: bytes read and written a second by a copy within the device's memory
    :param arithmetic: operations a second of a large square product in the model's dtype, two for each multiplication
    """

    bandwidth: float
    arithmetic: float

    def seconds(self, operations: float, traffic: float = 0.0) -> float:
        """Return the least time [s] of work with these operations that reads these bytes."""
        return max(operations / self.arithmetic, traffic / self.bandwidth)


def measure_ceilings(device: torch.device, dtype: torch.dtype, finish: Callable[[], None]) -> Ceilings:
    """Measure both rates, each the best of some rounds.

    :param finish: waits for the device
    """
    on_gpu = device.type == 'cuda'
    source = torch.ones(2**30 if on_gpu else 2**25, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    side = 8192 if on_gpu else 512
    left = torch.randn(side, side, device=device).to(dtype)
    right = torch.randn(side, side, device=device).to(dtype)
    copy = _best(lambda: target.copy_(source), finish)
    product = _best(lambda: torch.mm(left, right), finish)
    return Ceilings(2 * source.nbytes / copy, 2 * side**3 / product)


def _best(work: Callable[[], object], finish: Callable[[], None]) -> float:
    work()
    seconds = []
    for _ in range(ROUNDS):
        finish()
        start = time.perf_counter()
        work()
        finish()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


class Floors:
    """Least times [s] of the work of one model on one machine."""

    def __init__(self, config: CooperConfig, ceilings: Ceilings) -> None:
        self._config, self._ceilings = config, ceilings
        self._weights = weight_bytes(config, Quantisation())

    def _operations(self, part: str, new: int, context: int, causal: bool) -> float:
        """Return ``2 P n`` of the linears of an expert and ``4 n (n + c) hidden layers`` of attention.

        A causal mask halves what new tokens see of each other.
        """
        decoder = self._config.decoder
        seen = context + new * (0.5 if causal else 1.0)
        attention = 4 * new * seen * decoder.hidden_size * decoder.num_layers
        return 2 * self._weights[part] / ITEM * new + attention

    def text(self, new: int, context: int) -> float:
        """Return the time of prefilling ``new`` tokens."""
        traffic = self._weights['understanding'] + context * token_bytes(self._config)
        return self._ceilings.seconds(self._operations('understanding', new, context, causal=True), traffic)

    def token(self, context: int) -> float:
        """Return the time of decoding a token: the understanding expert, the output layer and the cache are read."""
        read = self._weights['understanding'] + self._weights['lm_head'] + context * token_bytes(self._config)
        return self._ceilings.seconds(self._operations('understanding', 1, context, causal=True), read)

    def picture(self, part: str, new: int, context: int) -> float:
        """Return the time of showing a picture of ``new`` tokens to an expert."""
        return self._ceilings.seconds(self._operations(part, new, context, causal=False), self._weights[part])

    def denoising(self, new: int, contexts: Sequence[int]) -> float:
        """Return the time of one step, whose branches are one batch; its two markers make it read both experts."""
        operations = sum(self._operations('generation', new, context, causal=False) for context in contexts)
        return self._ceilings.seconds(operations, self._weights['understanding'] + self._weights['generation'])

    def vision(self, module: nn.Module, patches: int) -> float:
        """Return the time of the ViT and its connector on one picture."""
        vision = self._config.vision
        linears = sum(part.weight.numel() for part in module.modules() if isinstance(part, nn.Linear))
        attention = 4 * patches**2 * vision.hidden_size * vision.num_layers
        return self._ceilings.seconds(2 * linears * patches + attention, ITEM * linears)

    def counted(self, work: Callable[[], object]) -> float:
        """Return the time of the products and convolutions that torch counts while ``work`` runs."""
        with FlopCounterMode(display=False) as counter:
            work()
        return self._ceilings.seconds(counter.get_total_flops())
