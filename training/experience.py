"""Rollouts with what they earned: advantages to learn from, figures to watch, and texts to read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from training.advantages import group_advantages
from training.datasets.base import Flag, QuestionExample
from training.rewards import ExplorationConfig, Outcome, Reward, group_rewards, perceives
from training.transcripts import Group, Shown, Written


@dataclass(frozen=True, eq=False)
class JudgedGroup:
    """The rollouts of one question, each with its reward and its advantage over the others."""

    group: Group
    flag: Flag
    outcomes: tuple[Outcome, ...]
    rewards: tuple[Reward, ...]
    advantages: tuple[float, ...]

    @property
    def teaches(self) -> bool:
        """Whether any rollout was better than another."""
        return any(self.advantages)


def judge(
    group: Group,
    flag: Flag,
    score: Callable[[str, QuestionExample], float],
    exploration: ExplorationConfig,
    scale: bool,
) -> JudgedGroup:
    """Reward the rollouts of a question.

    :param score: accuracy of a short answer, 0..1
    :param scale: as in :func:`group_advantages`
    """
    outcomes = tuple(
        Outcome(tuple(rollout.turns), rollout.forced, score(rollout.answer, group.example) if rollout.answer else 0.0)
        for rollout in group.rollouts
    )
    rewards = tuple(group_rewards(outcomes, flag, exploration))
    advantages = tuple(group_advantages([reward.total for reward in rewards], scale))
    return JudgedGroup(group, flag, outcomes, rewards, advantages)


def figures(groups: Sequence[JudgedGroup]) -> Mapping[str, float]:
    """Return means over rollouts: parts of the reward, shares that perceived and were forced, tokens written.

    ``equal_groups`` is the share of groups whose rollouts all earned the same, from which nothing is learned.
    """
    rewards = [reward for group in groups for reward in group.rewards]
    rollouts = [rollout for group in groups for rollout in group.group.rollouts]
    found = {
        'reward': _mean([reward.total for reward in rewards]),
        **{name: _mean([reward.parts[name] for reward in rewards]) for name in rewards[0].parts},
        'perceives': _mean([perceives(outcome) for group in groups for outcome in group.outcomes]),
        'forced': _mean([rollout.forced for rollout in rollouts]),
        'length': _mean([rollout.length for rollout in rollouts]),
        'equal_groups': _mean([not group.teaches for group in groups]),
    }
    for category in sorted({group.group.example.category for group in groups}):
        own = [group for group in groups if group.group.example.category == category]
        name = category or 'uncategorised'
        found[f'perceives/{name}'] = _mean([perceives(outcome) for group in own for outcome in group.outcomes])
        found[f'accuracy/{name}'] = _mean([reward.accuracy for group in own for reward in group.rewards])
    return found


def transcript(judged: JudgedGroup) -> str:
    """Return a group as text for people."""
    example = judged.group.example
    lines = [f'{example.id} ({example.category or "uncategorised"}, {judged.flag}): {example.text}',
             f'truth: {example.truth.answer}']  # fmt: skip
    graded = zip(judged.group.rollouts, judged.rewards, judged.advantages, strict=True)
    for number, (rollout, reward, advantage) in enumerate(graded, start=1):
        parts = ', '.join(f'{name} {value:g}' for name, value in reward.parts.items())
        forced = ', forced' if rollout.forced else ''
        lines += ['', f'{number}. answer {rollout.answer!r}{forced}: {parts}, advantage {advantage:+.2f}']
        for part in rollout.parts:
            if isinstance(part, Written):
                lines.append(f'   {part.text}{"" if part.kept else "   [given up]"}')
            elif isinstance(part, Shown):
                lines.append(f'   ({part.modality} map)')
    return '\n'.join(lines)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
