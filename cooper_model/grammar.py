r"""The tag grammar of a model turn: parse it, format it, and notice while it streams that it is complete.

A turn is ``<think>..</think>`` and one action: ``<depth-estimation>``, ``<segmentation>`` or ``<answer>``;
the short answer stands in ``\boxed{}``. Models break the grammar, so no function here raises on any text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from cooper_model.prompts import choice_letter
from cooper_model.types import Turn

Action = Literal['depth', 'segmentation', 'answer']
TAGS: dict[Action, str] = {'depth': 'depth-estimation', 'segmentation': 'segmentation', 'answer': 'answer'}
_THINK, _END_THINK = '<think>', '</think>'
_BOXED = '\\boxed{'


class _Found(NamedTuple):
    action: Action
    start: int
    body_start: int
    body_end: int


def tagged(action: Action, body: str) -> str:
    """Return ``body`` inside the tags of ``action``."""
    return f'<{TAGS[action]}>{body}</{TAGS[action]}>'


def boxed_answer(text: str) -> str:
    r"""Return the body of a turn that answers: ``\boxed{text}``."""
    return f'{_BOXED}{text}}}'


def format_turn(turn: Turn) -> str:
    """Return the text of a turn; a thought that is empty gets no tags."""
    thought = f'{_THINK}{turn.thought}{_END_THINK}' if turn.thought else ''
    return thought + (tagged(turn.action, turn.body) if turn.action else turn.body)


def parse_turn(text: str) -> Turn:
    """Read a model turn.

    The first complete action counts; where a depth tag was opened as well as a segmentation tag, depth counts
    as in the published model. Without a complete action, one that was opened counts up to the end of the
    text. Tags in a closed thought do not count. Without an action, ``body`` is what stands outside the
    thought.
    """
    thought, start = _thought(text)
    found = _complete(text, start) or _opened(text, start)
    if found is None:
        if thought is not None:
            return Turn(thought.strip(), None, text[start:].strip())
        unfinished, tag, rest = text.partition(_THINK)
        return Turn(rest.strip(), None, unfinished.strip()) if tag else Turn('', None, text.strip())
    if thought is None:
        thought = text[: found.start].rpartition(_THINK)[2]
    return Turn(thought.strip(), found.action, text[found.body_start : found.body_end].strip())


def without_action(text: str) -> str:
    """Return the text of a turn with its action, tags and all, taken out."""
    _, start = _thought(text)
    found = _complete(text, start) or _opened(text, start)
    return text if found is None else text[: found.start].rstrip()


class TurnScanner:
    """Collects a streaming turn and says when its action is complete, so that decoding can stop."""

    def __init__(self, text: str = '') -> None:
        self.text = text

    def feed(self, delta: str) -> bool:
        """Add text; return whether the turn now holds a complete action outside an open thought."""
        self.text += delta
        if '>' not in delta:
            return False
        thought, start = _thought(self.text)
        if thought is None and _THINK in self.text:
            return False
        return _complete(self.text, start) is not None


def boxed(text: str) -> str | None:
    r"""Return what the last ``\boxed{}`` holds, without a doubled pair of braces; None where there is none.

    A box that is not closed reaches to the end of the text or to the next tag.
    """
    before, mark, rest = text.rpartition(_BOXED)
    if not mark:
        return None
    depth = 1
    for brace in re.finditer(r'[{}]', rest):
        depth += 1 if brace.group() == '{' else -1
        if depth == 0:
            rest = rest[: brace.start()]
            break
    else:
        rest = rest.partition('<')[0]
    rest = rest.strip()
    return rest[1:-1].strip() if rest.startswith('{') and rest.endswith('}') else rest


def short_answer(turn: Turn) -> str:
    """Return the short answer of a turn: its box, or its body where it has none."""
    inside = boxed(turn.body)
    return turn.body if inside is None else inside


def match_choice(text: str, choices: Sequence[str]) -> int | None:
    """Return the index of the choice that ``text`` names by letter, words, or both; None if unclear."""
    said = text.strip().rstrip('.').casefold()
    words = [choice.strip().rstrip('.').casefold() for choice in choices]
    if words.count(said) == 1:
        return words.index(said)
    for index, choice in enumerate(words):
        letter = choice_letter(index).casefold()
        if said in (letter, f'({letter})', f'{letter})', f'{letter}. {choice}', f'{letter}: {choice}'):
            return index
    return None


_NUMBER = re.compile(
    r'(?<![\w.])([-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+)\s*([^\W\d]+|°|%)?'
)
_UNITS = {
    'm': ('m', 'meter', 'meters', 'metre', 'metres'),
    'cm': ('cm', 'centimeter', 'centimeters', 'centimetre', 'centimetres'),
    'mm': ('mm', 'millimeter', 'millimeters', 'millimetre', 'millimetres'),
    'km': ('km', 'kilometer', 'kilometers', 'kilometre', 'kilometres'),
    'in': ('in', 'inch', 'inches'),
    'ft': ('ft', 'foot', 'feet'),
    'deg': ('deg', 'degree', 'degrees', '°'),
    '%': ('%', 'percent'),
}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words}
_WORDS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine', 'ten')
_LONGEST_NUMERIC = 256


def parse_number(text: str) -> tuple[float, str] | None:
    """Return ``(value, unit)`` of the first number in a short answer, or None.

    The unit is one of m, cm, mm, km, in, ft, deg, % or empty where none of them follows. A lone number word
    up to ten is a number too. A text of more than 256 characters is no short answer and gives None.
    """
    text = text.strip()
    if len(text) > _LONGEST_NUMERIC:
        return None
    lone = text.rstrip('.').casefold()
    if lone in _WORDS:
        return float(_WORDS.index(lone)), ''
    match = _NUMBER.search(text)
    if match is None:
        return None
    value = float(match.group(1).replace(',', ''))
    if not math.isfinite(value):
        return None
    word = (match.group(2) or '').casefold()
    if word == 'in' and text[match.end() :].strip(' .'):
        word = ''  # a preposition, as in: 3 in the picture
    return value, _UNIT_OF.get(word, '')


def _thought(text: str) -> tuple[str | None, int]:
    """Return the closed thought (None where none is closed) and where the rest of the turn begins."""
    end = text.find(_END_THINK)
    if end < 0:
        return None, 0
    start = text.find(_THINK, 0, end)
    return text[start + len(_THINK) if start >= 0 else 0 : end], end + len(_END_THINK)


def _complete(text: str, start: int) -> _Found | None:
    """Return the action whose closing tag comes first, of those opened before it."""
    best: _Found | None = None
    for action, tag in TAGS.items():
        opening, closing = f'<{tag}>', f'</{tag}>'
        first = text.find(opening, start)
        end = text.find(closing, first) if first >= 0 else -1
        if end >= 0 and (best is None or end < best.body_end):
            last = text.rfind(opening, first, end)
            best = _Found(action, first, last + len(opening), end)
    if best is None or best.action != 'segmentation':
        return best
    return _depth_opened(text, start, best.body_end) or best


def _opened(text: str, start: int) -> _Found | None:
    """Return the action whose opening tag comes first and runs to the end of the text."""
    places = {action: text.find(f'<{tag}>', start) for action, tag in TAGS.items()}
    opened = {action: place for action, place in places.items() if place >= 0}
    if not opened:
        return None
    action = min(opened, key=opened.__getitem__)
    if action == 'segmentation' and 'depth' in opened:
        action = 'depth'
    body_start = opened[action] + len(TAGS[action]) + 2
    return _Found(action, min(opened.values()), body_start, len(text))


def _depth_opened(text: str, start: int, end: int) -> _Found | None:
    opening = f'<{TAGS["depth"]}>'
    first = text.find(opening, start, end)
    if first < 0:
        return None
    outer = text.find(f'<{TAGS["segmentation"]}>', start)
    return _Found('depth', min(first, outer), first + len(opening), end)
