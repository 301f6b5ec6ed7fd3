"""Scenes in words: what the model learns to say about objects, in dense and regular form.

Lengths are centimetres in steps of five, so that a number is one token and its neighbours are neighbours: ``x`` to
the right of the camera, ``e`` above it, ``z`` in front of it, ``d`` away from it, ``h`` and ``w`` the object's height
and width.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cooper_model.geometry import camera_distance
from cooper_sim.types import VisibleObject

REQUEST = 'Describe the objects.'
STEP_CM = 5
MIN_AREA = 64
HIDDEN = 0.8

Vector = tuple[float, float, float]


def centimetres(metres: float) -> int:
    """Return a length in centimetres, rounded to the step of descriptions."""
    return round(metres * 100 / STEP_CM) * STEP_CM


def fact(thing: VisibleObject, keys: str, up: Vector) -> str:
    """Return the name and some of the numbers of an object, for example ``red mug x -30 z 125``."""
    values = {
        'x': thing.center[0],
        'e': float(np.dot(thing.center, up)),
        'z': thing.center[2],
        'd': camera_distance(thing),
        'w': thing.size[0],
        'h': thing.size[1],
    }
    return ' '.join([thing.name, *(f'{key} {centimetres(values[key])}' for key in keys)])


def seen(things: Iterable[VisibleObject]) -> list[VisibleObject]:
    """Return the objects that are large enough to speak of, from left to right."""
    return sorted((t for t in things if t.area >= MIN_AREA), key=lambda t: t.box[0] + t.box[2])


def describe(things: Iterable[VisibleObject], up: Vector) -> str:
    """Describe every object, from left to right."""
    parts = [
        fact(thing, 'xezdh', up) + (' hidden' if thing.visible_fraction < HIDDEN else '') for thing in seen(things)
    ]
    return '; '.join(parts) + '.'
