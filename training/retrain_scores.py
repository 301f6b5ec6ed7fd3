"""How good a checkpoint is on frames of robots' folders, frame by frame, and what one checkpoint gains over another."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from cooper_model.loading import load
from cooper_model.reasoner import MODALITIES, Reasoner
from cooper_model.types import Frame
from cooper_sim.grading import Truth, is_right
from training.benchmarks.statistics import difference
from training.datasets.base import Example, ModelInput
from training.datasets.images import read_rgb
from training.datasets.report import LeftOut
from training.evaluation import generate_maps, request_ids
from training.retrain_data import RobotFolder

QUESTIONS = 4
LARGE_LOSS = 0.03


@dataclass(frozen=True)
class Task:
    """One frame to measure a checkpoint on."""

    checkpoint: str
    folder: str
    frame: str


@dataclass(frozen=True)
class FrameScore:
    """What was measured on one frame; empty where the frame has no truth for it, or cannot be read.

    :param depth: share of pixels whose depth is within a quarter of the true one (delta1)
    :param masks: IoU of each true object
    :param answers: 1 or 0 for each question, in the mode auto
    """

    frame: str
    depth: tuple[float, ...] = ()
    masks: tuple[float, ...] = ()
    answers: tuple[float, ...] = ()


FIGURES: dict[str, str] = {
    'depth': 'depth, share within 25 % of the truth',
    'masks': 'masks, mean IoU of objects',
    'answers': 'answers, share right',
}
"""The figures that checkpoints are compared by, all 0..1 and better the higher, with their names for people."""


@dataclass(frozen=True)
class Gain:
    """One figure of two checkpoints on the same frames.

    :param low, high: 95 % interval of the difference, frames resampled
    :param n: values that were compared
    """

    before: float
    after: float
    low: float
    high: float
    n: int

    @property
    def difference(self) -> float:
        """What the second scores above the first."""
        return self.after - self.before

    @property
    def is_worse(self) -> bool:
        """Whether something was lost: surely, or so much that few frames are no excuse."""
        return self.high < 0 or self.difference < -LARGE_LOSS


@dataclass(frozen=True)
class Verdict:
    """Whether a new checkpoint is to be installed.

    :param reason: what was lost or that nothing was gained, with figures; empty where it is better
    """

    better: bool
    reason: str = ''


def measure(tasks: Sequence[Task], workers: int) -> list[FrameScore]:
    """Measure tasks in order, in this process or in several."""
    if workers <= 1:
        return [_measure(task) for task in tasks]
    # Fresh processes: torch's threads do not survive a fork.
    os.environ.setdefault('OMP_NUM_THREADS', '1')
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        return list(pool.map(_measure, tasks))


@lru_cache(1)
def _reasoner(checkpoint: str) -> Reasoner:
    return load(checkpoint, 'torch')


@lru_cache(2)
def _folder(folder: str, checkpoint: str) -> RobotFolder:
    reasoner = _reasoner(checkpoint)
    return RobotFolder(folder, ModelInput(reasoner.backend.config, reasoner.tokenizer, reasoner.prompts))


def _measure(task: Task) -> FrameScore:
    reasoner, folder = _reasoner(task.checkpoint), _folder(task.folder, task.checkpoint)
    try:
        example = folder.example(task.frame)
    except LeftOut:
        return FrameScore(task.frame)
    found: dict[str, Sequence[float]] = {}
    if example.targets:
        values = _maps(reasoner, folder, example)
        found = {'depth': values.get('delta1', ()), 'masks': values.get('miou', ())}
    answers = _answers(reasoner, folder, task)
    return FrameScore(task.frame, tuple(found.get('depth', ())), tuple(found.get('masks', ())), answers)


def _maps(reasoner: Reasoner, folder: RobotFolder, example: Example) -> Mapping[str, Sequence[float]]:
    """Return the metrics of generated maps; of a map without a truth there is none."""
    sampler = replace(reasoner.sampler, text_scale=1.0, image_scale=1.0)
    requests = request_ids(reasoner.prompts, reasoner.tokenizer)
    pictures = generate_maps(reasoner.backend, example.image, {kind: requests[kind] for kind in MODALITIES}, sampler)
    return folder.pictures.score(example, pictures)


def _answers(reasoner: Reasoner, folder: RobotFolder, task: Task) -> tuple[float, ...]:
    frame = folder.frame(task.frame)
    questions = folder.questions.get(task.frame, [])[:QUESTIONS]
    if not questions:
        return ()
    # Without the measured depth: what is measured is the model.
    shown = Frame(read_rgb(folder.folder / frame.image), frame.intrinsics)
    right = []
    for question in questions:
        choices = question.choices if question.form == 'choice' else ()
        *_, last = reasoner.ask(shown, question.question, choices=choices)
        truth = Truth(question.answer, question.value, question.unit, question.choices)
        right.append(float(is_right(last.answer.text, truth)))
    return tuple(right)


def compare(before: Sequence[FrameScore], after: Sequence[FrameScore]) -> dict[str, Gain]:
    """Return each figure that the frames have a truth for, over the same frames."""
    gains = {}
    for name in FIGURES:
        first = [value for score in before for value in getattr(score, name)]
        second = [value for score in after for value in getattr(score, name)]
        owners = [score.frame for score in before for _ in getattr(score, name)]
        if first:
            found = difference(first, second, owners)
            gains[name] = Gain(float(np.mean(first)), float(np.mean(second)), found.low, found.high, found.n)
    return gains


def judge(robot: Mapping[str, Gain], old: Mapping[str, Gain]) -> Verdict:
    """Decide: nothing may be lost, here or there, and something must be gained on the robot's own frames.

    Lost is a figure whose interval lies below zero, or that fell by more than 0.03. Gained is a mean over the robot's
    figures above zero.
    """
    lost = [
        f'{FIGURES[name]} on {where}: {gain.before:.3f} before, {gain.after:.3f} after ({gain.difference:+.3f})'
        for where, gains in (("the robot's held-out frames", robot), ('simulated scenes', old))
        for name, gain in gains.items()
        if gain.is_worse
    ]
    if lost:
        return Verdict(False, 'worse: ' + '; '.join(lost))
    mean = float(np.mean([gain.difference for gain in robot.values()])) if robot else 0.0
    if mean <= 0:
        return Verdict(False, f"no better on the robot's held-out frames: {mean:+.3f} in the mean of all figures")
    return Verdict(True)


def as_record(gains: Mapping[str, Gain]) -> dict[str, Any]:
    """Return gains for a JSON file."""
    return {name: {**asdict(gain), 'difference': gain.difference} for name, gain in gains.items()}


def spread(names: Sequence[str], count: int) -> Iterable[str]:
    """Return at most ``count`` names, evenly from first to last."""
    if len(names) <= count:
        return names
    return [names[int(n)] for n in np.linspace(0, len(names) - 1, count).round()]
