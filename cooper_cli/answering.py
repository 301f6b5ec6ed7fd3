"""Timed work of a whole model on simulated camera frames: perceiving, first word, answers."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from cooper_cli.output import note
from cooper_model.types import Frame, ImageReady, TextDelta

if TYPE_CHECKING:
    from cooper_model.reasoner import Reasoner
    from cooper_sim.questions import Question

CAMERA = (640, 480)
SEARCHED_SCENES, QUESTIONS = 8, 2
# Questions that a depth map helps with.
CATEGORIES = {'relative_distance': 1.0, 'metric_distance': 1.0, 'front_behind': 1.0}


def camera_frames(count: int, seed: int) -> list[tuple[Frame, list[Question]]]:
    """Return simulated frames of a 640x480 camera, each with questions about depth."""
    from cooper_sim.distribution import Distribution
    from cooper_sim.questions import ask_questions
    from cooper_sim.render import Renderer
    from cooper_sim.sample import make_sample

    renderer, distribution = Renderer(*CAMERA), Distribution.load('eval')
    frames = []
    for number in range(count):
        sample = make_sample(seed + number, renderer, distribution)
        frame = Frame(sample.image, sample.intrinsics)
        questions = ask_questions(sample, np.random.default_rng(seed + number), QUESTIONS, CATEGORIES)
        frames.append((frame, questions))
    return frames


def answer_figures(reasoner: Reasoner, repeats: int, seed: int) -> dict[str, float | None]:
    """Return the figures of the ``nano`` workload but the way through ROS: medians [s].

    ``cooper_answer_s`` is a question that the model itself chose to answer with exactly one depth image; it is None
    where none is found among the simulated questions.
    """
    frames = camera_frames(SEARCHED_SCENES, seed)
    frame, questions = frames[0]
    text = questions[0].text

    def perceive() -> None:
        for _ in reasoner.perceive(frame, ('depth', 'segmentation'), seed=seed):
            pass

    def first_token() -> None:
        events = reasoner.ask(frame, text, mode='text', seed=seed)
        next((event for event in events if isinstance(event, TextDelta)), None)
        events.close()

    def direct() -> None:
        for _ in reasoner.ask(frame, text, mode='direct', seed=seed):
            pass

    figures: dict[str, float | None] = {
        'perception_s': _median(perceive, repeats),
        'first_token_s': _median(first_token, repeats),
        'direct_answer_s': _median(direct, repeats),
        'cooper_answer_s': None,
    }
    found = _with_one_depth(reasoner, frames, seed)
    if found is None:
        note(f'no question of {SEARCHED_SCENES} scenes made the model ask for exactly one depth image')
        return figures
    chosen_frame, chosen = found

    def cooper() -> None:
        for _ in reasoner.ask(chosen_frame, chosen.text, mode='auto', choices=chosen.choices, seed=seed):
            pass

    figures['cooper_answer_s'] = _median(cooper, repeats)
    return figures


def _with_one_depth(
    reasoner: Reasoner, frames: list[tuple[Frame, list[Question]]], seed: int
) -> tuple[Frame, Question] | None:
    for frame, questions in frames:
        for question in questions:
            events = reasoner.ask(frame, question.text, mode='auto', choices=question.choices, seed=seed)
            images = [event.modality for event in events if isinstance(event, ImageReady)]
            if images == ['depth']:
                return frame, question
    return None


def _median(work: Callable[[], None], repeats: int) -> float:
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)
