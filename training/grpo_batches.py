"""Batches of judged rollouts, and the loss on one: clipped policy gradient, maybe with a KL term."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cooper_model.config import CooperConfig
from cooper_model.network.model import Cooper
from training.advantages import Average, clipped_loss, kl_estimate, token_weights
from training.experience import JudgedGroup, figures
from training.policy import PackedRollouts, pack_rollouts, pieces, token_logprobs


@dataclass(frozen=True)
class LossConfig:
    """What is minimised.

    :param clip: how far the ratio of probabilities may move
    :param average: how tokens are averaged, see :func:`training.advantages.token_weights`
    :param scale: divide advantages by the deviation of their group
    :param kl: weight of the divergence from the starting model; 0 to watch it alone, None for no such model in memory,
        as published
    :param row: how many rollouts of a group are packed into one row at most
    :param max_tokens: of a row with more than one rollout; the mask of attention grows with its square
    """

    clip: float = 0.2
    average: Average = 'rollout'
    scale: bool = True
    kl: float | None = None
    row: int = 4
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if not 0 < self.clip < 1 or self.row < 1 or (self.kl is not None and self.kl < 0):
            raise ValueError(
                f'loss: clip {self.clip} must be in 0..1, row {self.row} 1 or more, kl {self.kl} not negative'
            )


@dataclass(frozen=True, eq=False)
class RolloutBatch:
    """What one loss is computed on; tensors have an entry for each token that the model chose.

    :param old: log-probabilities under the model that sampled; None where the first use is the only one
    :param reference: the same under the starting model, where it is kept
    """

    packed: PackedRollouts
    advantages: Tensor
    weights: Tensor
    figures: Mapping[str, float]
    old: Tensor | None = None
    reference: Tensor | None = None


def make_batch(groups: Sequence[JudgedGroup], config: CooperConfig, loss: LossConfig) -> RolloutBatch:
    """Pack judged rollouts; those without an advantage are left out, but count in averages.

    At least one row is packed, so that every process of a run does the same.
    """
    advantages = [advantage for group in groups for advantage in group.advantages]
    lengths = [rollout.length for group in groups for rollout in group.group.rollouts]
    rows = pieces([group.group for group in groups], config, loss.row, loss.max_tokens)
    if loss.kl is None:
        rows = [row for row in rows if any(advantages[number] for number in row.numbers)] or rows[:1]
    packed = pack_rollouts(rows, config)
    return RolloutBatch(
        packed,
        torch.tensor(advantages)[packed.owner],
        token_weights(packed.owner, lengths, loss.average),
        figures(groups),
    )


def policy_loss(
    model: Cooper, batch: RolloutBatch, loss: LossConfig, temperature: float
) -> dict[str, Tensor | float]:
    """Return ``total`` and what to watch, for a batch of rollouts that were sampled at ``temperature``.

    ``gap`` is the mean difference between a token's log-probability now and when it was decoded: next to nothing at
    the first use of a batch, if decoding and training agree.
    """
    new = token_logprobs(model, batch.packed, temperature)
    device = new.device
    old = new.detach() if batch.old is None else batch.old.to(device)
    weights = batch.weights.to(device)
    losses, clipped = clipped_loss(new, old, batch.advantages.to(device), loss.clip)
    parts: dict[str, Tensor | float] = {'total': (weights * losses).sum(), **batch.figures}
    parts['clipped'] = clipped.float().mean()
    parts['gap'] = (new.detach() - batch.packed.recorded.to(device)).abs().mean()
    if batch.reference is not None:
        divergence = (weights * kl_estimate(new, batch.reference.to(device))).sum()
        parts['kl'] = divergence.detach()
        if loss.kl:
            parts['total'] = parts['total'] + loss.kl * divergence
    parts['tokens'] = float(len(new))
    return parts
