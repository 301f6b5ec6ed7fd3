r"""The reward of a rollout: accuracy, format, and the cooperative perception-reasoning reward, as pure functions.

The parts and their constants are those of COOPER's stage 2b as published: ``accuracy + format + exploration``, each
with weight 1. Accuracy and format are 0 or 1. Exploration looks at a whole group of answers to one question: where
perceiving helps but few of the group perceived, those who did gain; where it does not help and many perceived, those
who did lose.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields

from cooper_model.grammar import TAGS, Action
from cooper_sim.grading import Truth, is_right, read_number
from training.benchmarks.number import mean_relative_accuracy
from training.datasets.base import Flag

BONUS = 0.2
THRESHOLD = 3

_NAMES = '|'.join(TAGS.values())
_TURN = re.compile(rf'<think>.*?</think>\s*<({_NAMES})>(.*?)</\1>', re.DOTALL)
_TAG = re.compile(rf'</?(?:think|{_NAMES})>')
_ACTIONS: dict[str, Action] = {tag: action for action, tag in TAGS.items()}


@dataclass(frozen=True)
class Outcome:
    """What rewards look at in a rollout.

    :param turns: texts of the model's turns as it wrote them, in order; the last is the one that answered, or failed to
    :param forced: whether an answer had to be forced after the last turn
    :param accuracy: of the short answer, 0..1; an empty answer has 0
    """

    turns: tuple[str, ...]
    forced: bool
    accuracy: float


@dataclass(frozen=True)
class Reward:
    """The parts of a rollout's reward."""

    accuracy: float
    format: float
    exploration: float

    @property
    def total(self) -> float:
        return sum(self.parts.values())

    @property
    def parts(self) -> dict[str, float]:
        """Each part by its name, for curves and transcripts."""
        return {each.name: getattr(self, each.name) for each in fields(self)}


@dataclass(frozen=True)
class ExplorationConfig:
    """The cooperative perception-reasoning reward.

    :param bonus: gained or lost by perceiving, 0 for none of this reward
    :param threshold: how many of a group perceive when it is neither few nor many; published for groups of 8
    :raises ValueError: a value is negative
    """

    bonus: float = BONUS
    threshold: int = THRESHOLD

    def __post_init__(self) -> None:
        if self.bonus < 0 or self.threshold < 0:
            raise ValueError(f'exploration: bonus {self.bonus} or threshold {self.threshold} is negative')


def well_formed(turn: str) -> Action | None:
    """Return the action of a turn that fits the grammar: one thought, then one action, and no other tag; else None.

    An answer must not be empty.
    """
    match = _TURN.fullmatch(turn.strip())
    if match is None or len(_TAG.findall(turn)) != 4:
        return None
    action = _ACTIONS[match[1]]
    return None if action == 'answer' and not match[2].strip() else action


def perceives(outcome: Outcome) -> bool:
    """Return whether a map was asked for, in a turn that fits the grammar, and shown."""
    return any(well_formed(turn) in ('depth', 'segmentation') for turn in outcome.turns[:-1])


def format_reward(outcome: Outcome) -> float:
    """Return 1 if every turn but the last asks for a map, the last answers, and all fit the grammar; else 0."""
    if outcome.forced or not outcome.turns:
        return 0.0
    *looking, last = (well_formed(turn) for turn in outcome.turns)
    return float(last == 'answer' and all(action in ('depth', 'segmentation') for action in looking))


def exploration_rewards(
    outcomes: Sequence[Outcome], flag: Flag, config: ExplorationConfig | None = None
) -> list[float]:
    """Return the cooperative perception-reasoning reward of each rollout of a group.

    :param flag: whether perceiving helps with the question
    """
    config = config or ExplorationConfig()
    looked = [perceives(outcome) for outcome in outcomes]
    count = sum(looked)
    gain = 0.0
    if flag == 'positive' and count < config.threshold:
        gain = config.bonus
    elif flag == 'negative' and count > config.threshold:
        gain = -config.bonus
    return [gain if own else 0.0 for own in looked]


def group_rewards(outcomes: Sequence[Outcome], flag: Flag, config: ExplorationConfig | None = None) -> list[Reward]:
    """Return the reward of each rollout of a group."""
    explored = exploration_rewards(outcomes, flag, config)
    return [
        Reward(outcome.accuracy, format_reward(outcome), gain)
        for outcome, gain in zip(outcomes, explored, strict=True)
    ]


def graded_accuracy(answer: str, truth: Truth) -> float:
    """Return the accuracy of a short answer, where a length that is nearly right earns nearly all of 1.

    Lengths by mean relative accuracy, everything else right or wrong.
    """
    if truth.value is None or not truth.unit or truth.choices:
        return float(is_right(answer, truth))
    value = read_number(answer, truth.unit)
    return 0.0 if value is None else mean_relative_accuracy(value, truth.value)
