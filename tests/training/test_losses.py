"""Losses against cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from cooper_model.packing import IGNORE
from training.losses import draw_times, flow_loss, mix, text_loss


class _Logits:
    """Stands where a model's output layer does: hidden states are the logits."""

    @staticmethod
    def logits(hidden: torch.Tensor) -> torch.Tensor:
        return hidden


def test_text_loss_is_the_mean_over_labelled_places() -> None:
    hidden = torch.zeros(1, 3, 4)
    hidden[0, 1, 2] = math.log(3)  # probability 1/2 of label 2, 1/6 of each other
    labels = torch.tensor([[IGNORE, 2, 0]])
    assert float(text_loss(_Logits(), hidden, labels)) == pytest.approx((math.log(2) + math.log(4)) / 2)
    assert float(text_loss(_Logits(), hidden, torch.full((1, 3), IGNORE))) == 0


def test_flow_loss_is_zero_for_the_true_velocity() -> None:
    clean, noise = torch.tensor([[[1.0, 2.0]]]), torch.tensor([[[3.0, -2.0]]])
    assert float(flow_loss([torch.tensor([[2.0, -4.0]])], clean, noise)) == 0
    assert float(flow_loss([torch.tensor([[2.0, -2.0]])], clean, noise)) == 2


def test_noise_is_mixed_in_by_time() -> None:
    clean, noise = torch.ones(2, 1, 1), torch.full((2, 1, 1), 3.0)
    assert mix(clean, noise, torch.tensor([0.0, 0.5])).flatten().tolist() == [1.0, 2.0]


def test_a_shift_moves_times_towards_noise() -> None:
    plain = draw_times(2000, 1.0, torch.Generator().manual_seed(0))
    shifted = draw_times(2000, 5.0, torch.Generator().manual_seed(0))
    assert float(plain.median()) == pytest.approx(0.5, abs=0.03)
    # sigmoid(0) = 1/2 goes to 5/6.
    assert float(shifted.median()) == pytest.approx(5 / 6, abs=0.03)
    assert bool(((plain > 0) & (shifted < 1)).all())


def test_tokens_that_do_not_count_leave_the_loss_alone() -> None:
    # Two images of two tokens and one; errors by token 1, 16 and 4.
    clean, noise = [torch.zeros(2, 1), torch.zeros(1, 1)], [torch.ones(2, 1), torch.ones(1, 1)]
    velocities = [torch.tensor([[2.0], [5.0]]), torch.tensor([[3.0]])]
    velocities[0].requires_grad_()
    assert float(flow_loss(velocities, clean, noise).detach()) == 7
    counted = [torch.tensor([True, False]), torch.tensor([True])]
    loss = flow_loss(velocities, clean, noise, counted)
    assert float(loss.detach()) == 2.5
    loss.backward()
    assert velocities[0].grad.tolist() == [[1.0], [0.0]]
    nothing = [torch.zeros(2, dtype=torch.bool), torch.zeros(1, dtype=torch.bool)]
    assert float(flow_loss(velocities, clean, noise, nothing).detach()) == 0
