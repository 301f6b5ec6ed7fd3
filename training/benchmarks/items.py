"""What a benchmark is made of, and what a scoring must offer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Row = Mapping[str, str]
"""One row of a file by column; cells without surrounding blanks, '' where a cell or its column is missing."""


@dataclass(frozen=True)
class Truth:
    """The right answer of one question.

    :param answer: as the file has it; of a multiple-choice question its letter
    :param options: texts of the options, A first; empty where the file does not list them
    :param value, unit: where it is a number; ``unit`` is empty or one of `ratio.METRES`
    """

    answer: str
    options: tuple[str, ...] = ()
    value: float | None = None
    unit: str = ''


@dataclass(frozen=True)
class Score:
    """What an answer is worth.

    :param value: 0..1; None where only a judge can tell and has not
    :param read: what the rules understood the answer to be, None where they understood nothing
    :param figures: further scores of the same answer, 0..1, by name
    """

    value: float | None
    read: str | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Scoring:
    """A way to score answers.

    :param claims: whether a row is of this kind, where nobody has said
    :param truth: reads the right answer of a row; raises ValueError where it is malformed
    :param score: scores a model's own words
    :param judged: a judge, where there is one, scores instead
    """

    name: str
    claims: Callable[[Row], bool]
    truth: Callable[[Row], Truth]
    score: Callable[[str, Truth], Score]
    judged: bool = False


@dataclass(frozen=True)
class Item:
    """One question of a benchmark.

    :param row: its number in the file, the row after the header being 1
    :param index: what names the question in its file
    :param choices: options to list below the question, which does not list them itself
    :param category: '' where the file has none
    :param groups: further columns to report by
    :param images: base64 texts or paths, as `images.load` reads them
    """

    row: int
    index: str
    question: str
    scoring: str
    truth: Truth
    choices: tuple[str, ...]
    category: str
    groups: Mapping[str, str]
    images: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A row that is not asked, and why."""

    row: int
    index: str
    reason: str
