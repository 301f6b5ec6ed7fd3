"""Scenes in words: what the model learns to say about objects, in dense and regular form.

An object's name is followed by where it is in the image, ``at`` percent from the left and from the top, so that a
thought finds the object before it says anything of it. Then come lengths in centimetres: ``x`` to the right of the
camera, ``e`` above it, ``z`` in front of it, ``d`` away from it, ``h`` and ``w`` the object's height and width. Numbers
go in steps of five: each is one token, and its neighbours are neighbours.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cooper_model.geometry import camera_distance
from cooper_sim.questions import Observed
from cooper_sim.types import VisibleObject

REQUEST = 'Describe the objects.'
KEYS = 'xezdh'
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


def quantity(thing: VisibleObject, key: str, observed: Observed) -> float:
    """Return the length that a key stands for [m]."""
    return {
        'x': thing.center[0],
        'e': float(np.dot(thing.center, observed.up)),
        'z': thing.center[2],
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


def describe(observed: Observed, rng: np.random.Generator) -> str:
    """Describe every object, in random order: were it from left to right, the order would give away the place."""
    things = seen(observed.visible)
    parts = [
        fact(things[n], KEYS, observed) + (' hidden' if things[n].visible_fraction < HIDDEN else '')
        for n in rng.permutation(len(things))
    ]
    return '; '.join(parts) + '.'


def order(observed: Observed, rng: np.random.Generator) -> tuple[str, str, str]:
    """Return a request to order objects by one of their numbers, the numbers, and the names in order.

    Comparing numbers is most of what answers take once the facts are there; an order of all objects teaches it faster
    than single answers.
    """
    key = str(rng.choice(list(KEYS)))
    things = seen(observed.visible)
    things = [things[n] for n in rng.permutation(len(things))]
    given = '; '.join(f'{thing.name} {number(thing, key, observed)}' for thing in things)
    ordered = sorted(things, key=lambda thing: quantity(thing, key, observed))
    return f'Order by {key}.', f'{given}.', ' ' + '; '.join(thing.name for thing in ordered) + '.'
