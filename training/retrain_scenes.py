"""Simulated scenes as a robot's folder: what a checkpoint could do before is rehearsed, and measured, on these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cooper_model.types import Frame
from cooper_sim.distribution import Distribution
from cooper_sim.questions import ask_questions
from cooper_sim.robot_format import RobotQuestion, RobotWriter
from cooper_sim.sample import make_sample
from cooper_sim.types import Sample


def write_scenes(
    folder: Path, distribution: str, seeds: Sequence[int], size: tuple[int, int], questions: int, masks: bool = True
) -> tuple[str, ...]:
    """Render scenes into a folder, those that are not there yet; return the ids of all of them.

    :param distribution: name of a committed distribution
    :param size: height and width [px]
    :param questions: questions a scene, with true answers
    :param masks: also write masks; for a checkpoint that has no colours for the simulation's objects they say nothing
    :raises RenderError: there is no rendering context
    """
    # Imported here: a folder that is there already is read without MuJoCo.
    from cooper_sim.render import Renderer

    writer, drawn = RobotWriter(folder), Distribution.load(distribution)
    names = {f'{distribution}_{seed}': seed for seed in seeds}
    asked = {question.frame for question in writer.questions}
    renderer = None
    for name, seed in names.items():
        if name in writer.frames and name in asked:
            continue
        renderer = renderer or Renderer(size[1], size[0])
        sample = make_sample(seed, renderer, drawn)
        if name not in writer.frames:
            frame = Frame(sample.image, sample.intrinsics, sample.depth, seed)
            seen = (sample.ids, sample.visible) if masks else (None, ())
            writer.add_frame(name, frame, *seen, sample.up)
        for question in _questions(name, sample, seed, questions):
            writer.add_question(question)
    return tuple(names)


def _questions(name: str, sample: Sample, seed: int, count: int) -> list[RobotQuestion]:
    asked = ask_questions(sample, np.random.default_rng(seed), count)
    return [
        RobotQuestion(
            name, each.text, each.answer, each.form, each.choices, each.value, each.unit, each.category, each.object_ids
        )
        for each in asked
    ]
