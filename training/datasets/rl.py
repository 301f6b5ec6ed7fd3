"""Questions with answers in the released RL JSONL format, for stage 2b.

A line: ``{"data_id": .., "question": .., "answer": .., "image": path, "flag": "positive" | "negative" | "boundary"}``;
``flag`` is boundary where it is absent. We also read ``"choices"`` (a list), ``"category"``, ``"value"``, ``"unit"``.
Where they are absent, options are read from lines of the question (``A. left``), and a number from an answer that is
nothing else. The reward is exact: a choice by its letter or words, a length within 25 %, a count exactly, other answers
by their words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cooper_model.grammar import match_choice, parse_number
from cooper_sim.grading import Truth
from training.datasets.base import DataEntry, Flag, ModelInput, QuestionExample, exact_reward
from training.datasets.images import existing, image_size, read_rgb
from training.datasets.report import LeftOut, ReadReport
from training.datasets.rows import Line, find_list, number_of, read_rows, text_of

LIST = 'RL_data.jsonl'
REMEDY = 'Get the released training set (COOPER_Train_Set), unpack it and name the folder that holds RL_data.jsonl'
_OPTION = re.compile(r'^\s*\(?([A-Z])[.):]\s*(\S.*?)\s*$', re.MULTILINE)
_NUMBER_ALONE = re.compile(r'[-+]?[\d.,]+\s*[^\W\d]*\.?')


@dataclass(frozen=True)
class RlItem:
    """One line."""

    id: str
    image: Path
    text: str
    truth: Truth
    category: str
    flag: Flag
    place: str


class RlQuestions:
    """Questions about images, with true answers.

    :raises FileNotFoundError: the list is missing
    :raises ValueError: no line of it can be used
    """

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        self.name, self.model = entry.label, model
        path = find_list(entry.path, LIST, REMEDY)
        self.root = Path(entry.root or path.parent)
        self.report = ReadReport(self.name)
        items = read_rows(path, self._parse, self.report)
        self.items = items[: entry.trained(len(items))]

    def __len__(self) -> int:
        return len(self.items)

    def place(self, number: int) -> str:
        """Return the line of a question."""
        return self.items[number].place

    def _parse(self, row: Mapping[str, Any], line: Line) -> RlItem:
        text, answer = text_of(row, 'question'), text_of(row, 'answer')
        flag = text_of(row, 'flag', 'boundary')
        if flag not in get_args(Flag):
            raise LeftOut('broken line', f"'flag' is {flag!r}, expected one of {', '.join(get_args(Flag))}")
        if not text.strip() or not answer.strip():
            raise LeftOut('broken line', 'the question or the answer is empty')
        image = existing(self.root, text_of(row, 'image'))
        truth = read_truth(row, text, answer)
        if self.model.max_tokens is not None:
            tokens = self.model.image_tokens(*image_size(image)) + self.model.text_tokens(text)
            if tokens > self.model.max_tokens:
                raise LeftOut('too long', f'{tokens} tokens before the first turn, at most {self.model.max_tokens} fit')
        name = text_of(row, 'data_id', str(line.number))
        return RlItem(name, image, text, truth, text_of(row, 'category', ''), flag, line.place)

    def question(self, number: int) -> QuestionExample:
        """Return one question; see :class:`training.datasets.base.QuestionSet`."""
        item = self.items[number]
        return QuestionExample(
            item.id, read_rgb(item.image), item.text, item.truth, item.truth.choices, item.category, item.flag
        )

    def reward(self, answer: str, example: QuestionExample) -> float:
        """Return 1 for a right short answer, otherwise 0."""
        return exact_reward(answer, example)


def read_truth(row: Mapping[str, Any], question: str, answer: str) -> Truth:
    """Return the true answer of a line.

    :raises LeftOut: it names none of its choices, or a value does not fit
    """
    choices = row.get('choices')
    if choices is None:
        choices = options_of(question)
    elif not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        raise LeftOut('broken line', f"'choices' is {choices!r:.60}, expected a list of texts")
    if choices:
        named = match_choice(answer, choices)
        if named is None:
            raise LeftOut('broken line', f'the answer {answer!r} names none of the choices {choices}')
        return Truth(choices[named], choices=tuple(choices))
    value, unit = number_of(row, 'value'), text_of(row, 'unit', '')
    if value is None and _NUMBER_ALONE.fullmatch(answer.strip()):
        value, unit = parse_number(answer) or (None, '')
    return Truth(answer, value, unit)


def options_of(question: str) -> Sequence[str]:
    """Return the options that a question lists, one a line, lettered from A; none where it lists fewer than two."""
    found = _OPTION.findall(question)
    letters = ''.join(letter for letter, _ in found)
    in_order = letters == 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'[: len(letters)]
    return [text for _, text in found] if in_order and len(found) > 1 else []


def open_questions(entry: DataEntry, model: ModelInput) -> RlQuestions:
    """Open the questions of a config's entry."""
    return RlQuestions(entry, model)
