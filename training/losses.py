"""What training minimises: cross-entropy on labelled text and squared error of velocities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cooper_model.flow import interpolate, shift_time, velocity_target
from cooper_model.network.model import Cooper
from cooper_model.packing import IGNORE


def text_loss(model: Cooper, hidden: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross-entropy over labelled places; zero where there are none.

    :param hidden: final hidden states, ``(batch, tokens, dim)``
    :param labels: ``(batch, tokens)``, already the *next* token, ``IGNORE`` elsewhere
    """
    places = labels != IGNORE
    if not places.any():
        return hidden.sum() * 0
    return F.cross_entropy(model.logits(hidden[places]).float(), labels[places])


def draw_times(count: int, shift: float, generator: torch.Generator | None = None) -> Tensor:
    """Return ``count`` training times: the sigmoid of a normal number, shifted."""
    return shift_time(torch.randn(count, generator=generator).sigmoid(), shift)


def mix(clean: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """Return noisy latent tokens ``(images, tokens, dim)`` at ``times`` ``(images,)``, or rows each at its own time."""
    return interpolate(clean, noise, times.view(-1, *[1] * (clean.ndim - 1)))


def flow_loss(
    velocities: Sequence[Tensor],
    clean: Tensor | Sequence[Tensor],
    noise: Tensor | Sequence[Tensor],
    counted: Sequence[Tensor] | None = None,
) -> Tensor:
    """Return the mean squared error of predicted velocities ``(tokens, dim)``, one an image.

    :param clean, noise: the same of the targets; sizes of images may differ
    :param counted: ``(tokens,)`` bool of each image, which tokens count; None for all. Zero where none do
    """
    target = velocity_target(torch.cat(list(clean)), torch.cat(list(noise)))
    errors = (torch.cat(list(velocities)).float() - target).square().mean(-1)
    if counted is None:
        return errors.mean()
    weights = torch.cat(list(counted)).to(errors)
    return (errors * weights).sum() / weights.sum().clamp_min(1)
