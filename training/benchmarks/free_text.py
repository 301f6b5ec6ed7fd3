"""Free text: right where the words are the same, unless a judge decides."""

from __future__ import annotations

from training.benchmarks.items import Row, Score, Scoring, Truth
from training.benchmarks.words import final_text, plain


def _truth(row: Row) -> Truth:
    if not row['answer']:
        raise ValueError('the answer is empty')
    return Truth(row['answer'])


def _score(said: str, truth: Truth) -> Score:
    words = plain(final_text(said))
    return Score(float(words == plain(truth.answer)), words or None)


FREE_TEXT = Scoring('text', lambda row: True, _truth, _score, judged=True)
