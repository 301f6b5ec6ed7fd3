"""Is an answer right, and what would always giving the same answer have scored.

Numbers with a unit are right within 25 %, counts exactly; everything else by its words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

RELATIVE_TOLERANCE = 0.25
_METRES = {
    'm': 1.0, 'metre': 1.0, 'metres': 1.0, 'meter': 1.0, 'meters': 1.0,
    'cm': 0.01, 'centimetre': 0.01, 'centimetres': 0.01, 'centimeter': 0.01, 'centimeters': 0.01,
    'mm': 0.001, 'millimetre': 0.001, 'millimetres': 0.001, 'millimeter': 0.001, 'millimeters': 0.001,
}  # fmt: skip
_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
_NUMBER = re.compile(r'(?<![\w.])([-+]?\d+(?:\.\d+)?|\.\d+)\s*([a-z]*)')
_OPTION = re.compile(r'^\(?([a-z])(?:[).:]\s*(.*))?$')


@dataclass(frozen=True)
class Truth:
    """The right answer of one question.

    :param value, unit: where it is a number; an empty unit makes it a count
    :param choices: of a multiple-choice question, in the order shown
    """

    answer: str
    value: float | None = None
    unit: str = ''
    choices: tuple[str, ...] = ()


def is_right(given: str, truth: Truth) -> bool:
    """Return whether the short answer ``given`` is right."""
    if truth.choices:
        return _chosen(given, truth.choices) == _words(truth.answer)
    if truth.value is not None:
        number = read_number(given, truth.unit)
        if number is None:
            return False
        if not truth.unit:
            return number == truth.value
        return abs(number - truth.value) <= RELATIVE_TOLERANCE * abs(truth.value) + 1e-9
    wanted, words = _words(truth.answer), _words(given)
    if wanted in ('yes', 'no'):
        return words.split(' ')[0] == wanted
    return words == wanted


def read_number(text: str, unit: str = '') -> float | None:
    """Return the first number of ``text`` in ``unit``, None where there is none.

    A length without a unit is taken to be in ``unit`` already; numbers up to ten may be words.
    """
    text = text.lower()
    match = _NUMBER.search(text)
    if match is None:
        counted = (word for word in re.findall(r'[a-z]+', text) if word in _WORDS)
        return next((float(_WORDS.index(word)) for word in counted), None)
    number, given_unit = float(match[1]), match[2]
    if given_unit in _METRES and unit in _METRES:
        return number * _METRES[given_unit] / _METRES[unit]
    return number


def most_frequent(truths: Sequence[Truth]) -> list[bool]:
    """Return, for each question, whether the one constant answer that is right most often is right there.

    For words and counts that is the most frequent answer. For measured numbers, which hardly repeat, it
    is the true value that the most others agree with, so the baseline is as strong as a constant can be.
    """
    best: list[bool] = [False] * len(truths)
    for candidate in sorted({truth.answer for truth in truths}):
        outcome = [is_right(candidate, truth) for truth in truths]
        if sum(outcome) > sum(best):
            best = outcome
    return best


def chance(truth: Truth) -> float | None:
    """Return the probability of guessing right among the stated answers; None where the answer is open."""
    if truth.choices:
        return 1.0 / len(truth.choices)
    return 0.5 if _words(truth.answer) in ('yes', 'no') else None


def _words(text: str) -> str:
    words = re.findall(r'\d+(?:\.\d+)?|[a-z]+', text.lower())
    return ' '.join(word for word in words if word not in ('the', 'a', 'an'))


def _chosen(given: str, choices: Sequence[str]) -> str:
    """Return the words of the choice that ``given`` names, by its text or by its letter."""
    plain = [_words(choice) for choice in choices]
    words = _words(given)
    option = _OPTION.match(given.strip().lower().rstrip('.'))
    if words not in plain and option is not None:
        index, text = ord(option[1]) - ord('a'), _words(option[2] or '')
        if index < len(plain) and text in ('', plain[index]):
            return plain[index]
    return words
