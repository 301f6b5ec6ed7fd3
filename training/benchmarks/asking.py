"""Put a question of a benchmark to a reasoner and keep what it said."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cooper_model.reasoner import Reasoner
from cooper_model.types import AnswerReady, Frame, ImageReady, Mode, TurnDone
from training.benchmarks import images
from training.benchmarks.items import Item
from training.benchmarks.results import Record
from training.benchmarks.scorings import SCORINGS


@dataclass(frozen=True)
class Asker:
    """Asks one reasoner in one way.

    :param folders: where image files are looked up
    :param join: show several images side by side; without it such a question is refused, since a model takes one
    """

    reasoner: Reasoner[Any]
    mode: Mode
    seed: int
    folders: Sequence[Path]
    join: bool = False

    def ask(self, item: Item) -> Record:
        """Return everything about one question but its score.

        :raises ValueError: it cannot be asked: an image is missing or broken, there are several, the text is too long
        """
        shown = images.load(item, self.folders)
        if len(shown) > 1 and not self.join:
            raise ValueError(f'{len(shown)} images, the model takes one; --join-images shows them side by side')
        frame = Frame(images.join(shown))
        start = time.perf_counter()
        events = self.reasoner.ask(frame, item.question, mode=self.mode, choices=item.choices, seed=self.seed)
        said, drawn = '', []
        for event in events:
            if isinstance(event, ImageReady):
                drawn.append(event.modality)
            elif isinstance(event, TurnDone):
                said = event.parsed.body
            elif isinstance(event, AnswerReady):
                answer = event.answer
        return {
            'index': item.index,
            'row': item.row,
            'category': item.category,
            'groups': dict(item.groups),
            'cluster': hashlib.sha256('\n'.join(item.images).encode()).hexdigest()[:16],
            'question': item.question,
            'options': list(item.truth.options),
            'truth': item.truth.answer,
            'scoring': item.scoring,
            'thoughts': list(answer.thoughts),
            'said': said,
            'answer': answer.text,
            'images': drawn,
            'forced': answer.forced,
            'confidence': answer.confidence,
            'seconds': time.perf_counter() - start,
            **unscored(),
        }


def unscored() -> Record:
    """Return the part of a result that scoring fills in."""
    return {'score': None, 'right': None, 'read': None, 'figures': {}}


def scored(record: Record, item: Item) -> Record:
    """Return a result with its score by the exact rules."""
    found = SCORINGS[item.scoring].score(record['said'], item.truth)
    return {**record, **_values(found.value, found.read), 'figures': dict(found.figures)}


def judged(record: Record, verdict: float) -> Record:
    """Return a result with the score that a judge gave."""
    return {**record, **_values(verdict, record['answer']), 'figures': {}}


def _values(score: float | None, read: str | None) -> Record:
    # Of a score that is neither 0 nor 1 at least half counts as right.
    return {'score': score, 'right': None if score is None else score >= 0.5, 'read': read}
