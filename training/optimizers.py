"""Optimisers of a run, their rate, and their state by the names of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from training.config import LoopConfig
from training.sharding import local, own_part, sharded_like
from training.state import SavedState

_ADAM_STATE = ('step', 'exp_avg', 'exp_avg_sq')
_MUON_STATE = ('momentum_buffer',)


def rate(step: int, config: LoopConfig) -> float:
    """Return the learning rate of a step, counted from 0."""
    up = min(1.0, (step + 1) / max(config.warmup, 1))
    left = config.steps - step
    down = 0.5 * (1 - math.cos(math.pi * min(1.0, left / config.decay))) if config.decay else 1.0
    return config.learning_rate * up * down


def build_optimizers(parameters: Mapping[str, nn.Parameter], config: LoopConfig) -> list[Optimizer]:
    """Return AdamW, after Muon where the run uses it."""
    inner = {name: p for name, p in parameters.items() if config.muon and p.ndim == 2 and '.layers.' in name}
    rest = [p for name, p in parameters.items() if name not in inner]
    groups = [
        {'params': [p for p in rest if p.ndim > 1]},
        {'params': [p for p in rest if p.ndim <= 1], 'weight_decay': 0.0},
    ]
    adamw = AdamW(
        groups,
        config.learning_rate,
        betas=config.betas,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        fused=True,
    )
    if not inner:
        return [adamw]
    muon = Muon(
        inner.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn='match_rms_adamw',
    )
    return [muon, adamw]


def optimizer_tensors(optimizers: Sequence[Optimizer], parameters: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return this process's part of all state, as ``kind.name``."""
    found = {}
    for name, p in parameters.items():
        for optimizer in optimizers:
            for kind, value in optimizer.state.get(p, {}).items():
                found[f'{kind}.{name}'] = local(value)
    return found


def restore_optimizers(
    optimizers: Sequence[Optimizer], parameters: Mapping[str, nn.Parameter], saved: SavedState
) -> None:
    """Give optimisers their saved state; weights that have none keep none."""
    for optimizer in optimizers:
        kinds = _MUON_STATE if isinstance(optimizer, Muon) else _ADAM_STATE
        known = set.intersection(*(set(saved.names(kind)) for kind in kinds))
        own = {p for group in optimizer.param_groups for p in group['params']}
        for name, p in parameters.items():
            if p in own and name in known:
                optimizer.state[p] = {kind: _placed(saved.get(kind, name), p) for kind in kinds}


def _placed(value: Tensor, parameter: nn.Parameter) -> Tensor:
    # The count of steps stays on the CPU as a plain tensor.
    return value if value.ndim == 0 else sharded_like(own_part(value, parameter), parameter)
