"""Does perceiving help with a question: measured by answering with and without it, several times each.

The flags steer the cooperative perception-reasoning reward. They belong to the model that training starts from, and
are kept on disk, one line a question, so that no question is measured twice by runs that start from the same model.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import nn

from cooper_model.types import Mode
from training.datasets.base import Flag, QuestionExample
from training.rollouts import RolloutConfig

log = logging.getLogger(__name__)
Score = Callable[[str, QuestionExample], float]
Answer = Callable[[Sequence[QuestionExample], RolloutConfig], Sequence[Sequence[str]]]
CHUNK = 32


@dataclass(frozen=True)
class FlagConfig:
    """How flags are measured.

    :param folder: where they are kept, in files named after the model and the way of measuring
    :param samples: answers of each kind
    :param temperature: of sampling
    :param looking, blind: modes of the reasoner that answer with and without maps
    :param margin: by how much accuracy must differ before perceiving is said to help
    :raises ValueError: a value is out of range
    """

    folder: Path
    samples: int = 4
    temperature: float = 1.0
    looking: Mode = 'perception'
    blind: Mode = 'direct'
    margin: float = 0.25

    def __post_init__(self) -> None:
        if self.samples < 1 or not 0 < self.margin <= 1:
            raise ValueError(f'flags: samples {self.samples} must be 1 or more, margin {self.margin} in 0..1')


@dataclass(frozen=True)
class Measured:
    """Mean accuracy on one question, 0..1."""

    looking: float
    blind: float

    def flag(self, margin: float) -> Flag:
        """Return whether perceiving helps; ``boundary`` where it makes little difference or nothing is ever right.

        A question that is answered as well or better without perceiving is ``negative``.
        """
        gain = self.looking - self.blind
        if gain >= margin:
            return 'positive'
        return 'negative' if gain <= 0 and self.blind > 0 else 'boundary'


class FlagStore:
    """Flags on disk.

    :param model: whose flags they are, with the weights that it has now
    """

    def __init__(self, config: FlagConfig, model: nn.Module) -> None:
        self.config = config
        how = f'{config.looking}_{config.blind}_{config.samples}_{config.temperature:g}'
        self._stem = f'{fingerprint(model)}_{how}'

    def measure(
        self,
        ids: Sequence[str],
        load: Callable[[int], QuestionExample],
        answer: Answer,
        score: Score,
        share: tuple[int, int] = (0, 1),
    ) -> None:
        """Measure a share of the questions that are not known yet.

        :param load: returns a question by its place in ``ids``
        :param answer: lets the model answer questions; returns the short answers of each
        :param score: accuracy of a short answer, 0..1
        :param share: number of this process, and how many there are
        """
        known = self._known()
        process, processes = share
        # Shares depend on places alone: another process may already add to what is known.
        own = [number for number in range(process, len(ids), processes) if ids[number] not in known]
        path = self.config.folder / f'{self._stem}_{process:03d}.jsonl'
        log.info('%s: %d flags known, %d to measure here', path, len(known), len(own))
        for first in range(0, len(own), CHUNK):
            chunk = [load(number) for number in own[first : first + CHUNK]]
            looking, blind = (self._accuracy(chunk, mode, answer, score) for mode in self._modes)
            lines = [
                json.dumps({'id': example.id, **asdict(Measured(*pair))}) + '\n'
                for example, *pair in zip(chunk, looking, blind, strict=True)
            ]
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open('a', encoding='utf-8') as file:
                # A killed process may have left half a line.
                file.writelines(['\n', *lines] if first == 0 else lines)

    def flags(self, ids: Sequence[str]) -> Mapping[str, Flag]:
        """Return the flag of each question by id.

        :raises KeyError: one was not measured
        """
        known = self._known()
        return {name: known[name].flag(self.config.margin) for name in ids}

    @property
    def _modes(self) -> tuple[Mode, Mode]:
        return self.config.looking, self.config.blind

    def _accuracy(
        self, examples: Sequence[QuestionExample], mode: Mode, answer: Answer, score: Score
    ) -> list[float]:
        told = answer(examples, RolloutConfig(self.config.samples, mode, self.config.temperature))
        return [
            sum(score(text, example) if text else 0.0 for text in own) / len(own)
            for own, example in zip(told, examples, strict=True)
        ]

    def _known(self) -> dict[str, Measured]:
        found = {}
        for path in sorted(self.config.folder.glob(f'{self._stem}_*.jsonl')):
            for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), start=1):
                if not line:
                    continue
                try:
                    row = json.loads(line)
                    found[row['id']] = Measured(row['looking'], row['blind'])
                except (json.JSONDecodeError, KeyError):
                    log.warning('%s:%d is broken and counts for nothing', path, number)
        return found


def fingerprint(model: nn.Module) -> str:
    """Return a short text that differs between models of different weights."""
    found = hashlib.sha256()
    for name, p in model.named_parameters():
        found.update(f'{name} {float(p.detach().double().sum()):.9g}\n'.encode())
    return found.hexdigest()[:16]
