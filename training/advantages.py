"""Group-relative advantages and the clipped policy loss (Shao et al. 2024, arXiv 2402.03300; Schulman et al. 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

EPSILON = 1e-4
Average = Literal['rollout', 'token']


def group_advantages(rewards: Sequence[float], scale: bool = True) -> list[float]:
    """Return ``(reward - mean) / (std + 1e-4)`` of each rollout of a group; the deviation is that of a sample.

    :param scale: divide by the deviation, as published; without it questions of every difficulty weigh the same
        (Liu et al. 2025, arXiv 2503.20783)
    :raises ValueError: fewer than two rollouts
    """
    if len(rewards) < 2:
        raise ValueError(f'a group of {len(rewards)} rollouts has no advantages; sample two or more')
    values = torch.tensor(rewards, dtype=torch.float64)
    centred = values - values.mean()
    # Equal rewards differ from their mean by rounding alone, which must not be blown up.
    if bool((values == values[0]).all()):
        return [0.0] * len(rewards)
    return (centred / (values.std() + EPSILON) if scale else centred).tolist()


def clipped_loss(new: Tensor, old: Tensor, advantages: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """Return the policy loss of each token, and which tokens the clipping takes the gradient from.

    ``-min(ratio * A, clamp(ratio, 1 - clip, 1 + clip) * A)`` with ``ratio = exp(new - old)``.

    :param new, old: log-probabilities ``(tokens,)`` of the policy and of the one that the rollouts came from
    :param advantages: ``(tokens,)``
    """
    ratio = (new - old).exp()
    free, bounded = ratio * advantages, ratio.clamp(1 - clip, 1 + clip) * advantages
    return -torch.minimum(free, bounded), (bounded < free).detach()


def kl_estimate(new: Tensor, reference: Tensor) -> Tensor:
    """Return an unbiased, never negative estimate of ``KL(policy || reference)`` at each token, ``(tokens,)``.

    ``exp(d) - d - 1`` with ``d = reference - new`` (Schulman 2020, *Approximating KL divergence*).
    """
    difference = reference - new
    return difference.exp() - difference - 1


def token_weights(owner: Tensor, lengths: Sequence[int], average: Average) -> Tensor:
    """Return what each token weighs in a batch's loss, ``(tokens,)``.

    :param owner: number of the rollout that each token belongs to
    :param lengths: tokens of each rollout of the batch, those included that have no token here
    :param average: ``rollout``: the mean over a rollout's tokens, then over rollouts, which is what the published
        recipe computes (its mean over tokens runs on batches of one rollout); ``token``: the mean over all tokens
    """
    if average == 'token':
        return torch.full((len(owner),), 1 / max(sum(lengths), 1), device=owner.device)
    each = torch.tensor([1 / (max(length, 1) * len(lengths)) for length in lengths], device=owner.device)
    return each[owner]
