"""Yes or no (true or false), by the first such word of the answer or the only one in it."""

from __future__ import annotations

import re

from training.benchmarks.items import Row, Score, Scoring, Truth
from training.benchmarks.words import final_text

TYPE = 'YN'
_MEANING = {'yes': True, 'true': True, 'no': False, 'false': False}


def read(said: str) -> bool | None:
    """Return what an answer says, None where it says neither, or both, or is negated ('not true')."""
    words = re.findall(r"[a-z']+", final_text(said).casefold())
    if words and words[0] in _MEANING:
        return _MEANING[words[0]]
    found = {_MEANING[word] for word in words if word in _MEANING}
    negated = any(word == 'not' or word.endswith("n't") for word in words)
    return found.pop() if len(found) == 1 and not negated else None


def _claims(row: Row) -> bool:
    return row.get('type') == TYPE or row['answer'].casefold() in _MEANING


def _truth(row: Row) -> Truth:
    said = read(row['answer'])
    if said is None:
        raise ValueError(f'answer {row["answer"]!r} is neither yes nor no')
    return Truth('yes' if said else 'no')


def _score(said: str, truth: Truth) -> Score:
    found = read(said)
    if found is None:
        return Score(0.0)
    word = 'yes' if found else 'no'
    return Score(float(word == truth.answer), word)


YES_NO = Scoring('yes_no', _claims, _truth, _score)
