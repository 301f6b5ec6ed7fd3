"""Objects built from convex primitives, each kind with an outline of its own.

A part is given in the object's frame: origin at the centre of the bounding box, z up, front towards -y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cooper_sim.types import Shape

Vector = tuple[float, float, float]
GREY: Vector = (0.62, 0.62, 0.64)
DARK: Vector = (0.13, 0.12, 0.12)
PAPER: Vector = (0.93, 0.90, 0.82)


@dataclass(frozen=True)
class Part:
    """One primitive: half extents ``size`` and ``position`` [m] in the object's frame."""

    shape: Shape
    size: Vector
    position: Vector
    rgb: Vector


@dataclass(frozen=True)
class Surface:
    """A level rectangle that carries things, in the object's frame [m]; ``clearance`` is the free height."""

    position: Vector
    half_x: float
    half_y: float
    clearance: float


def _box(half: Vector, position: Vector, rgb: Vector) -> Part:
    return Part(Shape.BOX, half, position, rgb)


def _disc(radius: float, bottom: float, top: float, rgb: Vector, x: float = 0.0, y: float = 0.0) -> Part:
    return Part(Shape.CYLINDER, (radius, radius, (top - bottom) / 2), (x, y, (top + bottom) / 2), rgb)


def _darker(rgb: Vector, factor: float = 0.6) -> Vector:
    return (rgb[0] * factor, rgb[1] * factor, rgb[2] * factor)


def _legs(w: float, d: float, bottom: float, top: float, thickness: float, rgb: Vector) -> list[Part]:
    half = thickness / 2
    xs, ys = w / 2 - half, d / 2 - half
    center, height = (top + bottom) / 2, (top - bottom) / 2
    return [_box((half, half, height), (x, y, center), rgb) for x in (-xs, xs) for y in (-ys, ys)]


def table(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    board = 0.045
    top = _box((w / 2, d / 2, board / 2), (0, 0, h / 2 - board / 2), rgb)
    return [top, *_legs(0.94 * w, 0.92 * d, -h / 2, h / 2 - board, 0.06, _darker(rgb, 0.75))]


def shelf(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    board = 0.03
    inner = _darker(rgb, 0.8)
    sides = [_box((board / 2, d / 2, h / 2), (x, 0, 0), rgb) for x in (-w / 2 + board / 2, w / 2 - board / 2)]
    levels = [_box((w / 2 - board, d / 2, board / 2), (0, 0, z), rgb) for z in _shelf_levels(h, board)]
    back = _box((w / 2 - board, board / 4, h / 2), (0, d / 2 - board / 4, 0), inner)
    return [*sides, *levels, back]


def _shelf_levels(h: float, board: float) -> tuple[float, float, float]:
    return (-h / 2 + board / 2 + 0.03, 0.0, h / 2 - board / 2)


def chair(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    seat = -h / 2 + 0.48 * h
    leg = 0.045
    xs, rear = w / 2 - leg / 2, d / 2 - leg / 2
    posts = [_box((leg / 2, leg / 2, h / 4), (x, rear, h / 4), rgb) for x in (-xs, xs)]
    back = _box((w / 2 - leg, 0.015, 0.15 * h), (0, rear, h / 2 - 0.15 * h), rgb)
    plate = _box((w / 2, d / 2, 0.02), (0, 0, seat - 0.02), rgb)
    return [plate, back, *posts, *_legs(w, d, -h / 2, seat - 0.04, leg, _darker(rgb, 0.75))]


def stool(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d
    spread = 0.3 * w
    places = ((spread, 0.0), (-0.5 * spread, 0.87 * spread), (-0.5 * spread, -0.87 * spread))
    legs = [_disc(0.025, -h / 2, h / 2 - 0.05, _darker(rgb, 0.75), x, y) for x, y in places]
    return [_disc(w / 2, h / 2 - 0.05, h / 2, rgb), *legs]


def box(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    tape = _box((0.1 * w, d / 2 + 0.003, h / 2 + 0.003), (0, 0, 0), _darker(rgb, 0.72))
    return [_box((w / 2, d / 2, h / 2), (0, 0, 0), rgb), tape]


def ball(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d, h
    return [Part(Shape.SPHERE, (w / 2, w / 2, w / 2), (0, 0, 0), rgb)]


def mug(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    radius = d / 2
    x = -w / 2 + radius
    reach = w - d
    thick = 0.05 * h + 0.004
    handle_x = w / 2 - reach / 2
    bars = [
        _box((reach / 2 + 0.1 * d, thick, thick), (handle_x - 0.1 * d, 0, z * h), rgb) for z in (-0.2, 0.24)
    ]
    grip = _box((thick, thick, 0.22 * h + thick), (w / 2 - thick, 0, 0.02 * h), rgb)
    inside = _disc(0.84 * radius, h / 2 - 0.01, h / 2 + 0.004, DARK, x)
    return [_disc(radius, -h / 2, h / 2, rgb, x), inside, *bars, grip]


def bottle(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d
    r = w / 2
    shoulder = Part(Shape.ELLIPSOID, (r, r, 0.17 * h), (0, 0, 0.1 * h), rgb)
    label = _disc(1.01 * r, -0.32 * h, -0.08 * h, PAPER)
    cap = _disc(0.42 * r, 0.41 * h, h / 2, GREY)
    return [_disc(r, -h / 2, 0.1 * h, rgb), label, shoulder, _disc(0.36 * r, 0.1 * h, 0.42 * h, rgb), cap]


def can(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d
    r = w / 2
    return [
        _disc(0.93 * r, -h / 2, -0.44 * h, GREY),
        _disc(r, -0.44 * h, 0.42 * h, rgb),
        _disc(0.93 * r, 0.42 * h, h / 2, GREY),
    ]


def lamp(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d
    r = w / 2
    low, step = 0.12 * h, 0.095 * h
    shade = [_disc(r * (1 - 0.14 * i), low + step * i, low + step * (i + 1), rgb) for i in range(4)]
    return [
        _disc(0.62 * r, -h / 2, -h / 2 + 0.05 * h, DARK),
        _disc(0.025 + 0.02 * r, -h / 2, 0.2 * h, GREY),
        *shade,
    ]


def bowl(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    del d
    r = w / 2
    radii = (0.5, 0.74, 0.9, 1.0)
    rings = [_disc(r * k, -h / 2 + h / 4 * i, -h / 2 + h / 4 * (i + 1), rgb) for i, k in enumerate(radii)]
    return [*rings, _disc(0.86 * r, h / 2 - 0.01, h / 2 + 0.004, _darker(rgb, 0.45))]


def book(w: float, d: float, h: float, rgb: Vector) -> list[Part]:
    cover = 0.14 * h
    pages = _box((w / 2 - 0.008, d / 2 - 0.008, h / 2 - cover), (0.004, 0, 0), PAPER)
    boards = [
        _box((w / 2, d / 2, cover / 2), (0, 0, z), rgb) for z in (-h / 2 + cover / 2, h / 2 - cover / 2)
    ]
    spine = _box((cover / 2, d / 2, h / 2), (-w / 2 + cover / 2, 0, 0), rgb)
    return [pages, *boards, spine]


BUILDERS: dict[str, Callable[[float, float, float, Vector], list[Part]]] = {
    f.__name__: f for f in (table, shelf, chair, stool, box, ball, mug, bottle, can, lamp, bowl, book)
}
ROUND = frozenset({'stool', 'ball', 'bottle', 'can', 'lamp', 'bowl'})


def build(kind: str, size: Vector, rgb: Vector) -> list[Part]:
    """Return the parts of one object of full extents ``size`` [m].

    :raises ValueError: unknown kind
    """
    if kind not in BUILDERS:
        raise ValueError(f'unknown kind of object {kind!r}, expected one of {", ".join(BUILDERS)}')
    return BUILDERS[kind](*size, rgb)


def carrying_surfaces(kind: str, size: Vector) -> list[Surface]:
    """Return where things can be put on an object of this kind and size; empty where nothing can."""
    w, d, h = size
    if kind == 'shelf':
        low, middle, top = _shelf_levels(h, 0.03)
        half_x, half_y = w / 2 - 0.05, d / 2 - 0.03
        return [
            Surface((0, 0, low + 0.015), half_x, half_y, middle - low - 0.03),
            Surface((0, 0, middle + 0.015), half_x, half_y, top - middle - 0.03),
            Surface((0, 0, h / 2), half_x, half_y, 1.0),
        ]
    if kind == 'chair':
        return [Surface((0, -0.03, -0.02 * h), w / 2 - 0.02, d / 2 - 0.05, 1.0)]
    if kind in ('table', 'box', 'book'):
        return [Surface((0, 0, h / 2), w / 2, d / 2, 1.0)]
    if kind == 'stool':
        return [Surface((0, 0, h / 2), 0.35 * w, 0.35 * w, 1.0)]
    return []
