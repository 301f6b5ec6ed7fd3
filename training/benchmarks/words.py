"""Finding the answer in what a model wrote."""

from __future__ import annotations

import re

from cooper_model.grammar import parse_number, parse_turn, short_answer
from cooper_sim.grading import read_number

_STYLED = re.compile(r'\\(?:text|textbf|mathrm|mathbf)\{([^{}]*)\}')
_NUMBER_START = re.compile(r'(?<![\w.,])[-+]?\.?\d')
_LONGEST_NUMBER = 80


def final_text(said: str) -> str:
    r"""Return the answer in a turn: its ``\boxed{}``, or its ``<answer>``, or all that follows the thought."""
    text = short_answer(parse_turn(said))
    return _STYLED.sub(r'\1', text).replace('$', '').strip().strip('*').strip()


def plain(text: str) -> str:
    """Return a text in lower case with single blanks, without quotation marks around it or a full stop at its end."""
    return ' '.join(text.casefold().split()).strip('\'"`').rstrip('.').strip()


def mentions(text: str, words: str) -> bool:
    """Return whether ``words`` stand in ``text``, whole, in whatever case."""
    return re.search(rf'(?<!\w){re.escape(plain(words))}(?!\w)', plain(text)) is not None


def quantities(text: str) -> list[tuple[float, str]]:
    """Return every number with its unit, in order; of a text without digits the first number word up to ten."""
    starts = [match.start() for match in _NUMBER_START.finditer(text)]
    if not starts:
        word = read_number(text)
        return [] if word is None else [(word, '')]
    ends = [*starts[1:], len(text)]
    parts = (text[start : min(end, start + _LONGEST_NUMBER)] for start, end in zip(starts, ends, strict=True))
    return [found for part in parts if (found := parse_number(part)) is not None]
