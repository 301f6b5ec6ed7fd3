r"""Multiple choice by exact rules: the letter or the text of an option, alone, in a ``\boxed{}`` or in a sentence.

Rules in order; the first that finds something decides. What names two options is not an answer.

1. a letter alone or before its option: ``B``, ``b``, ``(B)``, ``B)``, ``B.``, ``B: the red mug``
2. the text of one option and nothing else
3. ``answer is B``, the last of them; else a single letter in brackets, ``(B)``
4. a single capital letter of an option, or the text of a single option, within a sentence; both must agree
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from training.benchmarks.items import Row, Score, Scoring, Truth
from training.benchmarks.number import TYPES as NUMBER_TYPES
from training.benchmarks.words import final_text, mentions, plain
from training.benchmarks.yes_no import TYPE as YES_NO_TYPE

LETTERS = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ'
TYPE = 'MCQ'
UNLISTED = 8  # letters that are taken for options where the file does not list them
_ALONE = re.compile(r'[(\[]?([A-Za-z])(?:\s*[)\].:,]+\s*(.*)|\s*)', re.DOTALL)
# A capital letter by itself; an A before a word in small letters is an article, unless the word cannot follow one.
_LETTER = r"([A-Z])(?![\w'])(?!(?<=A)\s+(?!(?:because|since|as|and|or|so|for|is|but)\b)[a-z])"
_STATED = re.compile(rf'(?i:answer)(?i:\s+is)?\s*[:=]?\s*[\'"*]*[(\[]?{_LETTER}')
_BRACKETED = re.compile(r'\(([A-Z])\)')
_CAPITAL = re.compile(rf"(?<![\w']){_LETTER}")
_LISTED = re.compile(r'^\s*\(?([A-Z])[).:]\s*(\S.*?)\s*$', re.MULTILINE)


def read(said: str, options: Sequence[str]) -> int | None:
    """Return the index of the option that an answer names, None where it names none or several.

    :param options: in order; where there are none, the first eight letters count
    """
    text = final_text(said)
    count = len(options) or UNLISTED
    alone = _ALONE.fullmatch(text)
    if alone and (index := LETTERS.index(alone[1].upper())) < count:
        others = [other for other, option in enumerate(options) if plain(option) == plain(alone[2] or '')]
        return index if not others or index in others else None
    named = [index for index, option in enumerate(options) if plain(option) == plain(text)]
    if len(named) == 1:
        return named[0]
    return _in_sentence(text, options, count)


def _in_sentence(text: str, options: Sequence[str], count: int) -> int | None:
    stated = [letter for letter in _STATED.findall(text) if LETTERS.index(letter) < count]
    if stated:
        return LETTERS.index(stated[-1])
    for letters in (_BRACKETED.findall(text), _CAPITAL.findall(text)):
        lettered = {LETTERS.index(letter) for letter in letters} & set(range(count))
        if len(lettered) > 1:
            return None
        if lettered:
            break
    named = _named(text, options)
    both = lettered | named if len(named) == 1 or not lettered else lettered
    return both.pop() if len(both) == 1 else None


def _named(text: str, options: Sequence[str]) -> set[int]:
    """Return the options that a text mentions, without those that are part of a longer one that it mentions."""
    found = {index for index, option in enumerate(options) if mentions(text, option)}
    return {i for i in found if not any(j != i and mentions(options[j], options[i]) for j in found)}


def _claims(row: Row) -> bool:
    kind = row.get('type', '')
    return kind == TYPE or bool(kind not in (*NUMBER_TYPES, YES_NO_TYPE) and row.get('A') and row.get('B'))


def options_of(row: Row) -> tuple[str, ...]:
    """Return the options of a row's columns A, B, C ...; empty without them.

    :raises ValueError: one is left out between others
    """
    cells = [row.get(letter, '') for letter in LETTERS]
    count = max((index + 1 for index, cell in enumerate(cells) if cell), default=0)
    if '' in cells[:count]:
        raise ValueError(f'option {LETTERS[cells.index("")]} is empty, but option {LETTERS[count - 1]} is not')
    return tuple(cells[:count])


def _truth(row: Row) -> Truth:
    options = options_of(row)
    if not options:
        listed = _LISTED.findall(row['question'])
        in_order = ''.join(letter for letter, _ in listed) == LETTERS[: len(listed)]
        options = tuple(text for _, text in listed) if in_order else ()
    index = read(row['answer'], options) if row['answer'] else None
    if index is None:
        raise ValueError(f'answer {row["answer"]!r} is no option ({len(options) or "none"} listed)')
    return Truth(LETTERS[index], options)


def _score(said: str, truth: Truth) -> Score:
    index = read(said, truth.options)
    if index is None:
        return Score(0.0)
    return Score(float(LETTERS[index] == truth.answer), LETTERS[index])


CHOICE = Scoring('choice', _claims, _truth, _score)
