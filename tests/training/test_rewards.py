"""Rewards, advantages and the clipped loss against cases worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from training.advantages import clipped_loss, group_advantages, kl_estimate, token_weights
from training.rewards import (
    ExplorationConfig,
    Outcome,
    Reward,
    exploration_rewards,
    format_reward,
    group_rewards,
    perceives,
    well_formed,
)

LOOK = '<think>how far?</think><depth-estimation>Estimate the depth.</depth-estimation>'
SEGMENT = '<think>which?</think>\n<segmentation>Segment the objects.</segmentation>'
ANSWER = r'<think>it is near</think> <answer>\boxed{1.5}</answer>'


def outcome(*turns: str, forced: bool = False, accuracy: float = 0.0) -> Outcome:
    return Outcome(turns, forced, accuracy)


@pytest.mark.parametrize(
    ('turn', 'action'),
    [
        (LOOK, 'depth'),
        (SEGMENT, 'segmentation'),
        (ANSWER, 'answer'),
        ('<think></think><answer>left</answer>', 'answer'),
        ('<think>a\nb</think>\n\n<answer>left</answer>', 'answer'),
        ('<think>it is</think><answer></answer>', None),
        ('<think>it is</think><answer>  </answer>', None),
        ('', None),
        ('left', None),
        ('<answer>left</answer>', None),
        ('<think>it is</think> so <answer>left</answer>', None),
        ('<think>it is</think><answer>left</answer> indeed', None),
        ('<think>it is</think><answer>left', None),
        ('<think>it is</think><answer>left</segmentation>', None),
        ('<think>one</think><think>two</think><answer>left</answer>', None),
        ('<think>nested <answer>no</answer></think><answer>left</answer>', None),
        ('<think>a</think><answer>left</answer><answer>right</answer>', None),
        ('<think>both</think><depth-estimation>a</depth-estimation><segmentation>b</segmentation>', None),
    ],
)
def test_a_turn_is_one_thought_and_one_action(turn: str, action: str | None) -> None:
    assert well_formed(turn) == action


def test_format_is_all_turns_or_nothing() -> None:
    assert format_reward(outcome(ANSWER)) == 1
    assert format_reward(outcome(LOOK, ANSWER)) == 1
    assert format_reward(outcome(LOOK, SEGMENT, ANSWER)) == 1
    assert format_reward(outcome('<depth-estimation>no thought</depth-estimation>', ANSWER)) == 0
    assert format_reward(outcome(LOOK, 'left')) == 0
    assert format_reward(outcome(LOOK, SEGMENT)) == 0  # never answered
    assert format_reward(outcome(ANSWER, forced=True)) == 0
    assert format_reward(outcome(forced=True)) == 0


def test_only_a_map_that_was_asked_for_properly_and_shown_is_perceiving() -> None:
    assert perceives(outcome(LOOK, ANSWER))
    assert perceives(outcome(LOOK, SEGMENT, 'left'))
    assert not perceives(outcome(ANSWER))
    assert not perceives(outcome(LOOK, forced=True))  # the turn limit: asked for, never drawn
    assert not perceives(outcome('<depth-estimation>no thought</depth-estimation>', ANSWER))


@pytest.mark.parametrize(
    ('flag', 'looking', 'gain'),
    [
        ('positive', 0, 0.0), ('positive', 1, 0.2), ('positive', 2, 0.2), ('positive', 3, 0.0), ('positive', 8, 0.0),
        ('negative', 1, 0.0), ('negative', 3, 0.0), ('negative', 4, -0.2), ('negative', 8, -0.2),
        ('boundary', 1, 0.0), ('boundary', 8, 0.0),
    ],
)  # fmt: skip
def test_exploration_depends_on_how_many_of_the_group_perceive(flag: str, looking: int, gain: float) -> None:
    outcomes = [outcome(LOOK, ANSWER)] * looking + [outcome(ANSWER)] * (8 - looking)
    assert exploration_rewards(outcomes, flag) == [gain] * looking + [0.0] * (8 - looking)


def test_exploration_can_be_set_and_switched_off() -> None:
    outcomes = [outcome(LOOK, SEGMENT, ANSWER), outcome(ANSWER)]  # two maps are one perceiving rollout
    assert exploration_rewards(outcomes, 'positive', ExplorationConfig(0.5, 2)) == [0.5, 0.0]
    assert exploration_rewards(outcomes, 'negative', ExplorationConfig(0.5, 0)) == [-0.5, 0.0]
    assert exploration_rewards(outcomes, 'positive', ExplorationConfig(0.0)) == [0.0, 0.0]
    with pytest.raises(ValueError, match='is negative'):
        ExplorationConfig(bonus=-0.2)


def test_parts_add_up_and_rewarding_changes_nothing() -> None:
    outcomes = (outcome(LOOK, ANSWER, accuracy=1.0), outcome(ANSWER, accuracy=1.0), outcome('?', forced=True))
    first = group_rewards(outcomes, 'positive')
    assert first == [Reward(1, 1, 0.2), Reward(1, 1, 0), Reward(0, 0, 0)]
    assert [reward.total for reward in first] == [2.2, 2.0, 0.0]
    assert group_rewards(outcomes, 'positive') == first


def test_advantages_by_hand() -> None:
    # mean 1, deviations -1 0 1, sample deviation 1
    assert group_advantages([0.0, 1.0, 2.0]) == pytest.approx([-1 / 1.0001, 0, 1 / 1.0001])
    assert group_advantages([0.0, 1.0, 2.0], scale=False) == [-1.0, 0.0, 1.0]
    assert group_advantages([1.2] * 8) == [0.0] * 8
    assert group_advantages([0.1 + 0.2, 0.3]) == pytest.approx([0, 0], abs=1e-6)
    with pytest.raises(ValueError, match='sample two or more'):
        group_advantages([1.0])


def test_clipped_loss_of_two_rollouts_of_three_tokens_by_hand() -> None:
    ratios = torch.tensor([[1.0, 1.5, 0.5], [1.0, 1.5, 0.5]])
    old = torch.full((2, 3), -2.0)
    new = (old + ratios.log()).requires_grad_()
    advantages = torch.tensor([[2.0] * 3, [-1.0] * 3])
    losses, clipped = clipped_loss(new.flatten(), old.flatten(), advantages.flatten(), 0.2)
    # Gains are bounded at 1.2, losses at 0.8; what is worse counts.
    assert losses.tolist() == pytest.approx([-2.0, -2.4, -1.0, 1.0, 1.5, 0.8])
    assert clipped.tolist() == [False, True, False, False, False, True]
    weights = token_weights(torch.tensor([0, 0, 0, 1, 1, 1]), [3, 3], 'rollout')
    (losses * weights).sum().backward()
    # d(-ratio * A) / d new = -ratio * A where nothing is clipped, each over two rollouts of three tokens.
    expected = torch.tensor([[-2.0, 0.0, -1.0], [1.0, 1.5, 0.0]]) / 6
    torch.testing.assert_close(new.grad, expected)


def test_averages_by_hand() -> None:
    owner = torch.tensor([0, 2, 2, 2])
    lengths = [1, 4, 3]  # rollout 1 has no advantage and is not packed, but counts
    assert token_weights(owner, lengths, 'rollout').tolist() == pytest.approx([1 / 3, 1 / 9, 1 / 9, 1 / 9])
    assert token_weights(owner, lengths, 'token').tolist() == pytest.approx([1 / 8] * 4)


def test_kl_estimate_by_hand() -> None:
    new, reference = torch.tensor([math.log(0.5), -1.0]), torch.tensor([math.log(0.25), -1.0])
    assert kl_estimate(new, reference).tolist() == pytest.approx([0.5 - math.log(0.5) - 1, 0.0])
