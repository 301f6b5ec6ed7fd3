"""Choose what stands where, before gravity has its say."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cooper_sim.distribution import Arrangement, Distribution
from cooper_sim.shapes import ROUND, carrying_surfaces
from cooper_sim.types import COLORS, FURNITURE

DROP = 0.004  # height above its support from which a thing is let go [m]


@dataclass(frozen=True)
class Placed:
    """An object at a planned pose: ``position`` of its centre [m], ``yaw`` [rad], full ``size`` [m]."""

    kind: str
    color: str
    size: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float

    @property
    def radius(self) -> float:
        """Radius of the outline seen from above [m]."""
        w, d, _ = self.size
        return w / 2 if self.kind in ROUND else 0.46 * math.hypot(w, d)


@dataclass(frozen=True)
class _Support:
    """A level rectangle in the world; ``owner`` is the index of the object it is part of, -1: the floor."""

    owner: int
    center: tuple[float, float, float]
    yaw: float
    half: tuple[float, float]
    clearance: float


class NoRoom(Exception):
    """The draw cannot be completed; draw again."""


def plan(
    rng: np.random.Generator, distribution: Distribution, arrangement: Arrangement, wanted: int, view: float
) -> list[Placed]:
    """Draw the objects of a scene around the origin of the floor.

    :param wanted: number of objects beside the carrier
    :param view: direction from the origin to the camera [rad]; open sides of shelves are turned towards it
    :raises NoRoom: an object found no place
    """
    placed: list[Placed] = []
    if arrangement.carrier:
        placed.append(_furniture(rng, distribution, arrangement.carrier, view))
    spread = rng.uniform(*arrangement.spread)
    scale = rng.uniform(*arrangement.scale)
    for _ in range(wanted):
        kind, color = _draw_name(rng, distribution, arrangement, placed)
        size = _draw_size(rng, distribution.sizes[kind], kind, 1.0 if kind in FURNITURE else scale)
        thing = Placed(kind, color, size, (0.0, 0.0, 0.0), _draw_yaw(rng, kind, view))
        spot = _find_spot(rng, distribution, arrangement, placed, thing, spread)
        if spot is None:
            raise NoRoom
        placed.append(spot)
    return placed


def _furniture(rng: np.random.Generator, distribution: Distribution, kind: str, view: float) -> Placed:
    size = _draw_size(rng, distribution.sizes[kind], kind, 1.0)
    color = str(rng.choice(list(COLORS)))
    return Placed(kind, color, size, (0.0, 0.0, size[2] / 2), _draw_yaw(rng, kind, view))


def _draw_yaw(rng: np.random.Generator, kind: str, view: float) -> float:
    if kind == 'shelf':
        return view + math.pi / 2 + rng.uniform(-0.6, 0.6)  # its front is -y
    if kind == 'chair':
        return view + math.pi / 2 + rng.uniform(-2.4, 2.4)
    return rng.uniform(-math.pi, math.pi)


def _draw_size(
    rng: np.random.Generator, ranges: tuple, kind: str, scale: float
) -> tuple[float, float, float]:
    w, d, h = (rng.uniform(*r) * scale for r in ranges)
    if kind == 'ball':
        return (w, w, w)
    return (w, w, h) if kind in ROUND else (w, d, h)


def _draw_name(
    rng: np.random.Generator, distribution: Distribution, arrangement: Arrangement, placed: list[Placed]
) -> tuple[str, str]:
    kinds = list(arrangement.kinds)
    repeated = [p.kind for p in placed if p.kind in kinds and p.kind not in ('table', 'shelf')]
    fresh = [k for k in kinds if k not in {p.kind for p in placed}] or kinds
    if repeated and rng.random() < distribution.repeat_kind:
        kind = str(rng.choice(repeated))
    else:
        weights = np.array([arrangement.kinds[k] for k in fresh])
        kind = str(rng.choice(fresh, p=weights / weights.sum()))
    taken = {p.color for p in placed if p.kind == kind} | {p.color for p in placed[:1] if arrangement.carrier}
    return kind, str(rng.choice([c for c in COLORS if c not in taken]))


def _supports(placed: list[Placed], arrangement: Arrangement, spread: float, floor: bool) -> list[_Support]:
    if floor:
        return [_Support(-1, (0.0, 0.0, 0.0), 0.0, (spread, spread), 9.0)]
    found = []
    for index, thing in enumerate(placed[:1]):
        found += _surfaces_of(index, thing)
    return found


def _surfaces_of(index: int, thing: Placed) -> list[_Support]:
    c, s = math.cos(thing.yaw), math.sin(thing.yaw)
    x, y, z = thing.position
    return [
        _Support(
            index,
            (
                x + c * f.position[0] - s * f.position[1],
                y + s * f.position[0] + c * f.position[1],
                z + f.position[2],
            ),
            thing.yaw,
            (f.half_x, f.half_y),
            f.clearance,
        )
        for f in carrying_surfaces(thing.kind, thing.size)
    ]


def _find_spot(
    rng: np.random.Generator,
    distribution: Distribution,
    arrangement: Arrangement,
    placed: list[Placed],
    thing: Placed,
    spread: float,
) -> Placed | None:
    bases = [i for i, p in enumerate(placed) if p.kind in ('box', 'book')]
    if bases and thing.kind not in FURNITURE | {'ball'} and rng.random() < distribution.stack:
        index = int(rng.choice(bases))
        stacked = _try_support(rng, distribution, placed, thing, _surfaces_of(index, placed[index])[0], 0.0)
        if stacked is not None:
            return stacked
    floor = not arrangement.carrier or thing.kind in FURNITURE or rng.random() < arrangement.on_floor
    supports = _supports(placed, arrangement, spread, floor)
    for _ in range(20):
        support = supports[int(rng.integers(len(supports)))]
        found = _try_support(rng, distribution, placed, thing, support, 1.0)
        if found is not None:
            return found
    return None


def _try_support(
    rng: np.random.Generator,
    distribution: Distribution,
    placed: list[Placed],
    thing: Placed,
    support: _Support,
    freedom: float,
) -> Placed | None:
    """Put ``thing`` somewhere on ``support``, or return None if it does not fit or hits something there."""
    w, d, h = thing.size
    if h + 0.02 > support.clearance:
        return None
    # Over an edge by up to a fifth still rests safely, except for things that roll.
    reach = thing.radius if support.owner < 0 else (0.8 * thing.radius if freedom else 0.6 * min(w, d) / 2)
    room = (support.half[0] - reach, support.half[1] - reach)
    if support.owner >= 0 and min(room) < 0:
        return None
    local = [rng.uniform(-max(r, 0.0), max(r, 0.0)) * freedom for r in room]
    c, s = math.cos(support.yaw), math.sin(support.yaw)
    x = support.center[0] + c * local[0] - s * local[1]
    y = support.center[1] + s * local[0] + c * local[1]
    lift = DROP if thing.kind not in FURNITURE else 0.0
    candidate = Placed(
        thing.kind, thing.color, thing.size, (x, y, support.center[2] + h / 2 + lift), thing.yaw
    )
    for index, other in enumerate(placed):
        if index != support.owner and _collide(candidate, other, distribution.gap):
            return None
    return candidate


def _collide(a: Placed, b: Placed, gap: float) -> bool:
    apart_z = abs(a.position[2] - b.position[2]) - (a.size[2] + b.size[2]) / 2
    if apart_z > -0.001 and 'table' not in (a.kind, b.kind):
        return False
    if apart_z > 0.001:
        return False
    distance = math.hypot(a.position[0] - b.position[0], a.position[1] - b.position[1])
    if distance >= a.radius + b.radius + gap:
        return False
    if b.kind in ('table', 'shelf'):
        return _beside(a, b) < a.radius + gap
    return True


def _beside(a: Placed, b: Placed) -> float:
    """Return the distance from ``a``'s axis to ``b``'s rectangular outline [m]."""
    c, s = math.cos(b.yaw), math.sin(b.yaw)
    dx, dy = a.position[0] - b.position[0], a.position[1] - b.position[1]
    local = (c * dx + s * dy, -s * dx + c * dy)
    return math.hypot(max(abs(local[0]) - b.size[0] / 2, 0.0), max(abs(local[1]) - b.size[1] / 2, 0.0))
