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
    """Return noisy latent tokens ``(images, tokens, dim)`` at ``times`` ``(images,)``."""
    return interpolate(clean, noise, times[:, None, None])


def flow_loss(velocities: Sequence[Tensor], clean: Tensor, noise: Tensor) -> Tensor:
    """Return the mean squared error of predicted velocities ``(tokens, dim)``, one an image."""
    return F.mse_loss(torch.stack(list(velocities)).float(), velocity_target(clean, noise))
