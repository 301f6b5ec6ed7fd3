"""What would a model answer if the maps that it looks at were true? The same questions with its own and with true ones.

    python -m bench.true_maps [--checkpoint DIR] [--scenes 100] [--seed 7] [--out runs/true_maps.json]
    python -m bench.true_maps --out runs/true_maps.json --table docs/results.md --mark true_maps

Where true maps help and its own do not, drawing is what falls short; where neither helps, the answer takes nothing from
the map. Answers in the mode auto, and in perception, where maps are always drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import track

from bench.tables import fill_file
from cooper_cli.evaluation import DISTRIBUTION, QUESTIONS, model_size, scene_seeds, truth_of
from cooper_cli.machine import describe_machine
from cooper_cli.output import plain
from cooper_model.loading import default_checkpoint, load
from cooper_model.reasoner import Reasoner
from cooper_model.types import AnswerReady, Frame, ImageReady, Modality, Mode
from cooper_sim.distribution import Distribution
from cooper_sim.grading import is_right
from cooper_sim.questions import Question, ask_questions
from cooper_sim.render import Renderer
from cooper_sim.sample import make_sample
from training.benchmarks.report import compare
from training.datasets.simulation import Pictures, true_pictures

MODES: tuple[Mode, ...] = ('auto', 'perception')


class Informed(Reasoner):
    """A reasoner whose maps are the true ones of the frame, as long as ``truth`` is set."""

    truth: Pictures | None = None

    def _steps(self, work: Any, guidance: Any, modality: Modality, turn: int) -> Generator[Any, None, np.ndarray]:
        if self.truth is None:
            return (yield from super()._steps(work, guidance, modality, turn))
        return getattr(self.truth, modality).astype(np.float32) / 255


@dataclass(frozen=True)
class Asked:
    """One question to one reasoner."""

    reasoner: Informed
    frame: Frame
    question: Question
    index: str
    scene: int

    def record(self, mode: Mode) -> dict[str, Any]:
        """Return the graded answer, as results are compared."""
        question = self.question
        choices = question.choices if question.form == 'choice' else ()
        events = list(self.reasoner.ask(self.frame, question.text, mode=mode, choices=choices))
        answer = next(event.answer for event in events if isinstance(event, AnswerReady))
        truth = truth_of(question)
        return {
            'index': self.index, 'cluster': self.scene, 'category': question.category, 'question': question.text,
            'truth': truth.answer, 'score': float(is_right(answer.text, truth)),
            'images': sum(isinstance(event, ImageReady) for event in events),
        }  # fmt: skip


def measure(checkpoint: Path, scenes: int, seed: int) -> dict[str, Any]:
    """Return, by mode, what answers gain from true maps: over all questions, and where a map was looked at."""
    own = load(checkpoint)
    reasoner = Informed(own.backend, own.tokenizer, own.prompts, sampler=own.sampler)
    size, (height, width) = model_size(reasoner)
    renderer, distribution = Renderer(width, height), Distribution.load(DISTRIBUTION)
    found: dict[Mode, tuple[list, list]] = {mode: ([], []) for mode in MODES}
    for scene in track(scene_seeds(scenes, seed), 'scenes', console=Console(stderr=True), transient=True):
        sample = make_sample(scene, renderer, distribution)
        truth = true_pictures(sample, reasoner.backend.config)
        questions = ask_questions(sample, np.random.default_rng(scene), per_scene=QUESTIONS)
        for number, question in enumerate(questions):
            asked = Asked(reasoner, Frame(sample.image, sample.intrinsics), question, f'{scene}/{number}', scene)
            for mode, records in found.items():
                for side, maps in enumerate((None, truth)):
                    reasoner.truth = maps
                    records[side].append(asked.record(mode))
    return {mode: _compared(*records) for mode, records in found.items()}


def _compared(own: list[dict[str, Any]], true: list[dict[str, Any]]) -> dict[str, Any]:
    looked = {one['index'] for one in own if one['images']}
    entry = {'all': compare(own, true)}
    if looked:
        entry['looked'] = compare(*([one for one in side if one['index'] in looked] for side in (own, true)))
    return entry


def table(record: dict[str, Any]) -> str:
    """Return a record as Markdown."""
    rows = ['| mode | questions | n | own maps | true maps | difference |', '|---|---|---|---|---|---|']
    for mode, parts in record['by_mode'].items():
        for name, part in parts.items():
            told = {'all': 'all', 'looked': 'where it looked at a map'}[name]
            low, high = part['difference_95']
            rows.append(
                f'| {mode} | {told} | {part["n"]} | {part["first"]:.3f} | {part["second"]:.3f} '
                f'| {part["difference"]:+.3f} ({low:+.3f} to {high:+.3f}) |'
            )
    where = f'{record["checkpoint"]}, {record["scenes"]} scenes, seed {record["seed"]}'
    return '\n'.join([*rows, '', f'`python -m bench.true_maps`; {where}; {record["machine"]}; {record["date"]}'])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, metavar='DIR', help='default the shipped nano')
    parser.add_argument('--scenes', type=int, default=100)
    parser.add_argument('--seed', type=int, default=7)
    parser.add_argument('--out', type=Path, default=Path('runs/true_maps.json'))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')
    parser.add_argument('--mark', default='true_maps', help='name of the place in the document')
    given = parser.parse_args()
    try:
        if given.table:
            record = json.loads(given.out.read_text(encoding='utf-8'))
            fill_file(given.table, {given.mark: table(record)})
            return
        named = 'nano' if given.checkpoint is None else given.checkpoint.parent.name
        record = {'checkpoint': named, 'scenes': given.scenes, 'seed': given.seed, **describe_machine()}
        record['by_mode'] = measure(given.checkpoint or default_checkpoint(), given.scenes, given.seed)
        given.out.parent.mkdir(parents=True, exist_ok=True)
        given.out.write_text(json.dumps(plain(record), indent=1), encoding='utf-8')
        sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == '__main__':
    main()
