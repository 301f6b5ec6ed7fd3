"""How a run is driven: settings that all stages share."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from training.lora import LoraSettings


@dataclass(frozen=True)
class LoopConfig:
    """How a run is driven.

    :param steps: optimiser steps in all
    :param learning_rate: peak, reached after ``warmup`` steps and held until the last ``decay`` steps, which lower
        it along a half cosine to zero
    :param accumulate: batches a process and step; their gradients are averaged. Results depend on the product of
        processes and this alone
    :param ema: decay of the moving average of the weights; early on ``(1 + step) / (10 + step)`` where smaller; with 0
        it is the weights themselves
    :param max_skipped: steps in a row whose loss or gradient may be infinite or not a number; they are left out
    :param save_every, evaluate_every, log_every: in steps
    :param bf16: autocast to bfloat16
    :param muon: orthogonalised momentum (Jordan et al. 2024) for the matrices of layers, with the step size of AdamW;
        embeddings, output layers and vectors stay with AdamW
    :param freeze: names of modules whose weights stay as they are, for example ``vit_model``
    :param checkpoint_layers: compute layers again in the backward pass rather than keep what happened inside
    :param shard: split weights, gradients, optimiser and average over the processes
    :param lora: train low-rank adapters only
    """

    steps: int
    learning_rate: float
    warmup: int = 100
    decay: int = 0
    accumulate: int = 1
    betas: tuple[float, float] = (0.9, 0.98)
    epsilon: float = 1e-8
    weight_decay: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    max_skipped: int = 10
    seed: int = 0
    save_every: int = 500
    evaluate_every: int = 500
    log_every: int = 20
    bf16: bool = True
    muon: bool = False
    freeze: tuple[str, ...] = ()
    checkpoint_layers: bool = False
    shard: bool = False
    lora: LoraSettings | None = None

    @property
    def loaded(self) -> torch.dtype:
        """Precision in which weights are read: as published where they stay frozen, or become float32 part by part."""
        return torch.bfloat16 if self.bf16 and (self.shard or self.lora) else torch.float32

    def __post_init__(self) -> None:
        for name in ('steps', 'accumulate', 'save_every', 'evaluate_every', 'log_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} is {getattr(self, name)}, expected 1 or more')
        if self.lora and self.shard:
            raise ValueError('lora is for a model that fits one device whole; take either lora or shard')
