"""Measure a model on simulated scenes: what it perceives and what it answers, scene by scene.

Frames are drawn three times as large as the model sees them, as a camera's are; maps are compared at the model's
own size. Three is odd, so that the centre of each of the model's pixels is the centre of a pixel of the frame.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from cooper_cli.options import ModelChoice
from cooper_cli.session import open_reasoner
from cooper_model.types import AnswerReady, DepthMap, Frame, ImageReady, Mode, Segmentation
from cooper_sim.grading import Truth, is_right
from cooper_sim.scoring import DepthScore, boundary_f1, depth_score, nearest, object_ious

if TYPE_CHECKING:
    from cooper_model.answerer import Answerer
    from cooper_sim.questions import Question
    from cooper_sim.types import Sample

FRAME_SCALES = (3, 1)
QUESTIONS = 4
DISTRIBUTION = 'eval'


@dataclass(frozen=True)
class Setup:
    """What to measure and with what."""

    model: ModelChoice
    modes: tuple[Mode, ...]
    seed: int


@dataclass(frozen=True)
class GivenAnswer:
    """One answer: whether it is right, how many images were generated on the way, and how long it took [s]."""

    text: str
    right: bool
    images: int
    forced: bool
    seconds: float


@dataclass(frozen=True)
class SceneResult:
    """Everything measured on one scene.

    :param depth: None where the model's depth is not metric
    :param ious: one of each true object of at least 64 px at the model's size
    :param questions: category and truth of each question
    :param answers: by mode, in the order of the questions
    """

    depth: DepthScore | None
    ious: tuple[float, ...]
    boundary_f1: float
    questions: tuple[tuple[str, Truth], ...]
    answers: dict[str, tuple[GivenAnswer, ...]] = field(default_factory=dict)
    perceive_seconds: float = 0.0


def scene_seeds(count: int, seed: int) -> list[int]:
    """Return the seeds of an evaluation's scenes."""
    return [int(value) for value in np.random.SeedSequence(seed).generate_state(count)]


class Evaluator:
    """Measures scenes of the evaluation distribution, one at a time, with one model and one renderer."""

    def __init__(self, reasoner: Answerer, modes: Sequence[Mode], seed: int) -> None:
        from cooper_sim.distribution import Distribution
        from cooper_sim.render import Renderer

        self._reasoner, self._modes, self._seed = reasoner, tuple(modes), seed
        self.size, frame_size = model_size(reasoner)
        self._renderer = Renderer(frame_size[1], frame_size[0])
        self._distribution = Distribution.load(DISTRIBUTION)

    def measure(self, scene: int) -> SceneResult:
        """Perceive and answer on the scene of a seed."""
        from cooper_sim.questions import ask_questions
        from cooper_sim.sample import make_sample

        sample = make_sample(scene, self._renderer, self._distribution)
        frame = Frame(sample.image, sample.intrinsics)
        start = time.perf_counter()
        events = self._reasoner.perceive(frame, ('depth', 'segmentation'), seed=self._seed)
        maps = {event.modality: event.image for event in events if isinstance(event, ImageReady)}
        seconds = time.perf_counter() - start
        depth, ious, outline = self._score(sample, maps['depth'], maps['segmentation'])
        questions = ask_questions(sample, np.random.default_rng(scene), per_scene=QUESTIONS)
        truths = tuple((question.category, truth_of(question)) for question in questions)
        answers = {mode: tuple(self._answer(frame, question, mode) for question in questions) for mode in self._modes}
        return SceneResult(depth, ious, outline, truths, answers, seconds)

    def _score(
        self, sample: Sample, depth: DepthMap, segmentation: Segmentation
    ) -> tuple[DepthScore | None, tuple[float, ...], float]:
        true_depth, true_ids = nearest(sample.depth, *self.size), nearest(sample.ids, *self.size)
        instances = nearest(segmentation.instances, *self.size)
        ious = tuple(float(iou) for iou in object_ious(instances, true_ids))
        score = None if depth.metres is None else depth_score(nearest(depth.metres, *self.size), true_depth)
        return score, ious, boundary_f1(instances, true_ids)

    def _answer(self, frame: Frame, question: Question, mode: Mode) -> GivenAnswer:
        start = time.perf_counter()
        images = 0
        answer = None
        # Yes and no need no list; the options of a multiple-choice question are listed below it.
        choices = question.choices if question.form == 'choice' else ()
        events = self._reasoner.ask(frame, question.text, mode=mode, choices=choices, seed=self._seed)
        for event in events:
            images += isinstance(event, ImageReady)
            if isinstance(event, AnswerReady):
                answer = event.answer
        assert answer is not None, 'a reasoner ends with an answer'
        right = is_right(answer.text, truth_of(question))
        return GivenAnswer(answer.text, right, images, answer.forced, time.perf_counter() - start)


def model_size(reasoner: Answerer) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return ``(height, width)`` at which the model sees a 4:3 camera, and the size of frames to draw for it."""
    height, width = reasoner.image_size(480, 640)
    for scale in FRAME_SCALES:
        frame = (height * scale, width * scale)
        if reasoner.image_size(*frame) == (height, width):
            return (height, width), frame
    return reasoner.image_size(height, width), (height, width)


def truth_of(question: Question) -> Truth:
    """Return what grades an answer to a simulated question."""
    return Truth(question.answer, question.value, question.unit, tuple(question.choices))


def measure_scenes(setup: Setup, seeds: Sequence[int], workers: int) -> Iterator[SceneResult]:
    """Measure scenes in order, in this process or in several."""
    if workers <= 1:
        evaluator = _open(setup)
        yield from (evaluator.measure(seed) for seed in seeds)
        return
    # Fresh processes: neither torch's threads nor a rendering context survive a fork.
    os.environ.setdefault('OMP_NUM_THREADS', str(setup.model.threads or 1))
    context = multiprocessing.get_context('spawn')
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(setup,)) as pool:
        yield from pool.map(_measure, seeds)


def _open(setup: Setup) -> Evaluator:
    return Evaluator(open_reasoner(setup.model), setup.modes, setup.seed)


_evaluator: Evaluator | None = None


def _start(setup: Setup) -> None:
    global _evaluator
    model = setup.model
    # A server has threads of its own.
    _evaluator = _open(setup if model.server else replace(setup, model=replace(model, threads=model.threads or 1)))


def _measure(seed: int) -> SceneResult:
    assert _evaluator is not None, 'workers are started by _start'
    return _evaluator.measure(seed)
