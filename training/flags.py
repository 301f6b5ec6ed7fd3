"""Does perceiving help with a question: measured by answering with and without it, several times each.

The flags steer the cooperative perception-reasoning reward. They belong to the model that training starts from, and
are kept on disk, one line a question, so that a run that was stopped measures none twice.
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

    :param file: where they are kept, JSON Lines
    :param samples: answers of each kind
    :param temperature: of sampling
    :param looking, blind: modes of the reasoner that answer with and without maps
    :param margin: by how much accuracy must differ before perceiving is said to help
    :raises ValueError: a value is out of range
    """

    file: str
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


def measure_flags(
    examples: Sequence[QuestionExample], answer: Answer, score: Score, config: FlagConfig, model: nn.Module
) -> Mapping[str, Flag]:
    """Return the flag of each question by id; measures what the file lacks.

    :param answer: lets the starting model answer questions; returns the short answers of each
    :param model: whose flags they are
    :raises ValueError: the file was measured in another way or with another model
    """
    path = Path(config.file)
    known = _read(path, _header(config, model))
    waiting = [example for example in examples if example.id not in known]
    log.info('%s: %d flags known, %d to measure', path, len(known), len(waiting))
    for first in range(0, len(waiting), CHUNK):
        chunk = waiting[first : first + CHUNK]
        means = []
        for mode in (config.looking, config.blind):
            told = answer(chunk, RolloutConfig(config.samples, mode, config.temperature))
            means.append([sum(score(text, e) for text in own) / len(own) for own, e in zip(told, chunk, strict=True)])
        found = {e.id: Measured(*pair) for e, *pair in zip(chunk, *means, strict=True)}
        with path.open('a', encoding='utf-8') as file:
            file.writelines(json.dumps({'id': key, **asdict(value)}) + '\n' for key, value in found.items())
        known |= found
    return {example.id: known[example.id].flag(config.margin) for example in examples}


def _header(config: FlagConfig, model: nn.Module) -> dict[str, object]:
    how = {name: getattr(config, name) for name in ('samples', 'temperature', 'looking', 'blind')}
    return how | {'model': fingerprint(model)}


def fingerprint(model: nn.Module) -> str:
    """Return a short text that differs between models of different weights."""
    found = hashlib.sha256()
    for name, p in model.named_parameters():
        found.update(f'{name} {float(p.detach().double().sum()):.9g}\n'.encode())
    return found.hexdigest()[:16]


def _read(path: Path, header: Mapping[str, object]) -> dict[str, Measured]:
    """Return what a file holds; begins it where there is none."""
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(header) + '\n', encoding='utf-8')
        return {}
    text = path.read_text(encoding='utf-8')
    if not text.endswith('\n'):
        # A killed process may leave half a line, which must not spoil the next.
        with path.open('a', encoding='utf-8') as file:
            file.write('\n')
    first, *lines = text.splitlines()
    if json.loads(first) != header:
        raise ValueError(f'{path} was measured with {first}, this run has {json.dumps(header)}; name another file')
    found = {}
    for number, line in enumerate(lines, start=2):
        try:
            row = json.loads(line)
            found[row['id']] = Measured(row['looking'], row['blind'])
        except (json.JSONDecodeError, KeyError):
            log.warning('%s:%d is broken and is measured again', path, number)
    return found
