"""Simulated scenes as camera shots, with what is true of them. The only place in cooper_ros that draws simulations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from cooper_ros.camera_parameters import CameraParameters
from cooper_ros.sources import Masks, Shot, SourceError
from cooper_sim.distribution import Distribution
from cooper_sim.questions import ask_questions
from cooper_sim.render import Renderer, RenderError
from cooper_sim.sample import make_sample
from cooper_sim.types import COLORS, KINDS, Sample

CLASSES: dict[int, str] = dict(enumerate((f'{color} {kind}' for color in COLORS for kind in KINDS), start=1))


def simulated_shots(parameters: CameraParameters) -> Iterator[Shot]:
    """Yield the scenes of consecutive seeds, or one for ever with ``hold``.

    :raises SourceError: there is no rendering context or no such distribution
    """
    try:
        distribution = Distribution.load(parameters.distribution)
        renderer = Renderer(parameters.width, parameters.height)
    except (RenderError, OSError, ValueError) as error:
        raise SourceError(f'the simulated camera cannot start: {error}') from error
    seed = parameters.seed
    shot = _shot(make_sample(seed, renderer, distribution), parameters)
    yield shot
    while True:
        if not parameters.hold:
            seed += 1
            shot = _shot(make_sample(seed, renderer, distribution), parameters)
        yield shot


def _shot(sample: Sample, parameters: CameraParameters) -> Shot:
    truth = json.dumps(truth_of(sample, parameters))
    pose = sample.scene.camera_pose
    return Shot(sample.image, parameters.scene_period, sample.intrinsics, sample.depth, truth, masks_of(sample), pose)


def masks_of(sample: Sample) -> Masks:
    """Return the masks of a scene; each colour of each kind is a class, as ``red mug``."""
    numbers = {name: number for number, name in CLASSES.items()}
    table = np.zeros(256, np.uint8)
    for item in sample.visible:
        table[item.id] = numbers[item.name]
    return Masks(sample.ids, table[sample.ids], CLASSES)


def truth_of(sample: Sample, parameters: CameraParameters) -> dict[str, Any]:
    """Return what is true of a scene: seed, visible objects, and questions with their answers."""
    rng = np.random.default_rng(sample.scene.seed)
    questions = ask_questions(sample, rng, parameters.questions) if parameters.questions else []
    return {
        'seed': sample.scene.seed,
        'distribution': parameters.distribution,
        'objects': [{'name': item.name, 'box': item.box, 'depth': item.depth} for item in sample.visible],
        'questions': [asdict(question) for question in questions],
    }
