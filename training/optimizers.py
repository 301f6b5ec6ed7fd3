"""Optimisers of a run, their rate, and their state by the names of weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from training.config import LoopConfig
from training.division import Division
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


def muon_matrices(parameters: Mapping[str, nn.Parameter], config: LoopConfig) -> dict[str, nn.Parameter]:
    """Return the weights that Muon updates: the matrices of layers, where the run uses it."""
    return {name: p for name, p in parameters.items() if config.muon and p.ndim == 2 and '.layers.' in name}


def build_optimizers(
    parameters: Mapping[str, nn.Parameter], config: LoopConfig, division: Division | None = None
) -> list[Optimizer]:
    """Return AdamW, after Muon where the run uses it; with a division Muon has this process's matrices alone."""
    inner = muon_matrices(parameters, config)
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
    own = division.own if division else inner
    if not own:
        return [adamw]
    muon = Muon(
        own.values(),
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        adjust_lr_fn='match_rms_adamw',
    )
    return [muon, adamw]


def optimizer_tensors(
    optimizers: Sequence[Optimizer], parameters: Mapping[str, nn.Parameter], division: Division | None = None
) -> dict[str, Tensor]:
    """Return this process's part of all state, as ``kind.name``; with a division all of it, in every process."""
    found = {}
    for name, p in parameters.items():
        for optimizer in optimizers:
            for kind, value in optimizer.state.get(p, {}).items():
                found[f'{kind}.{name}'] = local(value)
    for kind in _MUON_STATE if division else ():
        found |= division.gather(kind, found)
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
    # The count of steps is no part of a split weight; fused AdamW reads it on the weight's device.
    return value.to(parameter.device) if value.ndim == 0 else sharded_like(own_part(value, parameter), parameter)
