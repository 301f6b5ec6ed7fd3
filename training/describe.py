"""Scenes in words: what the model learns to say about objects, in dense and regular form.

An object's name is followed by where it is in the image, ``at`` percent from the left and from the top, so that a
thought finds the object before it says anything of it. Then come lengths in centimetres: ``x`` to the right of the
camera, ``e`` above it, ``z`` along its axis, ``f`` ahead of it along the floor, ``d`` away from it, ``h`` and ``w`` the
object's height and width. ``x``, ``e`` and ``f`` are at right angles, so that what lies between two objects follows
from them. Numbers go in steps of five: each is one token, and its neighbours are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cooper_model.geometry import camera_distance
from cooper_sim.questions import Observed
from cooper_sim.types import VisibleObject

REQUEST = 'Describe the objects.'
LIST_REQUEST = 'List the objects.'
KEYS = 'xezfdh'
STEP = 5
MIN_AREA = 64
HIDDEN = 0.8


def rounded(value: float) -> int:
    """Return a number rounded to the step of descriptions."""
    return round(value / STEP) * STEP


def centimetres(metres: float) -> int:
    """Return a length in centimetres, rounded to the step of descriptions."""
    return rounded(metres * 100)


def place(thing: VisibleObject, observed: Observed) -> str:
    """Return where the middle of an object's visible pixels is in the image, for example ``at 35 60``."""
    left, top, right, bottom = thing.box
    across = 50 * (left + right) / observed.intrinsics.width
    down = 50 * (top + bottom) / observed.intrinsics.height
    return f'at {rounded(across)} {rounded(down)}'


def fact(thing: VisibleObject, keys: str, observed: Observed) -> str:
    """Return name, place and some of the numbers of an object, for example ``red mug at 35 60 x -30 z 125``."""
    return ' '.join([thing.name, place(thing, observed), *(number(thing, key, observed) for key in keys)])


def ahead(observed: Observed) -> np.ndarray:
    """Return the unit vector that lies level under the camera's axis, in the optical frame."""
    up = np.array(observed.up)
    axis = np.array((0.0, 0.0, 1.0)) if abs(up[2]) < 0.999 else np.array((0.0, -1.0, 0.0))
    level = axis - np.dot(axis, up) * up
    return level / np.linalg.norm(level)


def quantity(thing: VisibleObject, key: str, observed: Observed) -> float:
    """Return the length that a key stands for [m]."""
    return {
        'x': thing.center[0],
        'e': float(np.dot(thing.center, observed.up)),
        'z': thing.center[2],
        'f': float(np.dot(thing.center, ahead(observed))),
        'd': camera_distance(thing),
        'w': thing.size[0],
        'h': thing.size[1],
    }[key]


def number(thing: VisibleObject, key: str, observed: Observed) -> str:
    """Return a key and its number, for example ``x -30``."""
    return f'{key} {centimetres(quantity(thing, key, observed))}'


def seen(things: Iterable[VisibleObject]) -> list[VisibleObject]:
    """Return the objects that are large enough to speak of, from left to right."""
    return sorted((t for t in things if t.area >= MIN_AREA), key=lambda t: t.box[0] + t.box[2])


def listing(observed: Observed) -> str:
    """Name every object from left to right, ``none`` where there is none."""
    return '; '.join(fact(thing, '', observed) for thing in seen(observed.visible)) or 'none'


def describe(observed: Observed, rng: np.random.Generator) -> str:
    """Describe every object, in random order: were it from left to right, the order would give away the place."""
    things = seen(observed.visible)
    parts = [
        fact(things[n], KEYS, observed) + (' hidden' if things[n].visible_fraction < HIDDEN else '')
        for n in rng.permutation(len(things))
    ]
    return '; '.join(parts) + '.'
