"""Questions to draw from: what cannot be used is named and counted once, at the start."""

from __future__ import annotations

import logging

import numpy as np

from cooper_model.grammar import match_choice
from cooper_sim.grading import is_right
from training.datasets.base import QuestionExample, QuestionSet
from training.datasets.report import LeftOut

log = logging.getLogger(__name__)


class QuestionPool:
    """The usable questions of a set.

    :ivar ids: of these questions; images are read when a question is asked for
    :raises ValueError: there is none
    """

    def __init__(self, data: QuestionSet) -> None:
        self.data = data
        self.numbers: list[int] = []
        self.ids: list[str] = []
        for number in range(len(data)):
            try:
                example = data.question(number)
                check_truth(example)
            except LeftOut as error:
                data.report.leave_out(f'{data.name}, question {number}', error)
                continue
            self.numbers.append(number)
            self.ids.append(example.id)
        log.info('%s: %d of %d questions can be used', data.name, len(self.numbers), len(data))
        if not self.numbers:
            raise ValueError(f'{data.name}: none of {len(data)} questions can be used; {data.report.summary()}')

    def __len__(self) -> int:
        return len(self.numbers)

    def load(self, place: int) -> QuestionExample:
        """Return the question whose id stands at a place of ``ids``."""
        return self.data.question(self.numbers[place])

    def draw(self, count: int, rng: np.random.Generator) -> list[QuestionExample]:
        """Return ``count`` questions, all different as long as there are enough."""
        chosen = rng.choice(self.numbers, count, replace=count > len(self.numbers))
        return [self.data.question(int(number)) for number in chosen]


def check_truth(example: QuestionExample) -> None:
    """Check that a question can be rewarded.

    :raises LeftOut: the text or the truth is empty, is none of the choices, or would itself not count as right
    """
    truth = example.truth
    if not example.text.strip():
        raise LeftOut('no usable truth', f'question {example.id!r} is empty')
    chosen = not truth.choices or match_choice(truth.answer, truth.choices) is not None
    if not truth.answer.strip() or not chosen or not is_right(truth.answer, truth):
        wanted = f', value {truth.value}' if truth.value is not None else ''
        wanted += f', choices {list(truth.choices)}' if truth.choices else ''
        raise LeftOut('no usable truth', f'question {example.id!r} has the answer {truth.answer!r}{wanted}')
