"""The room around a scene: floor, walls, ceiling, and its lights."""

from __future__ import annotations

import math

import numpy as np

from cooper_sim.distribution import Color, Distribution, RoomStyle
from cooper_sim.textures import TEXTURES
from cooper_sim.types import Light, Shape

FARTHEST = 5.6  # longest distance from the camera to a corner of the floor [m]
THICKNESS = 0.1  # of walls, floor and ceiling [m]
HOME = RoomStyle(
    floor_colors=(
        (0.62, 0.48, 0.34), (0.48, 0.36, 0.26), (0.6, 0.6, 0.62), (0.74, 0.7, 0.63), (0.42, 0.46, 0.52),
        (0.55, 0.6, 0.52),
    ),
    wall_colors=(
        (0.82, 0.8, 0.75), (0.7, 0.76, 0.8), (0.78, 0.72, 0.62), (0.68, 0.74, 0.66), (0.8, 0.7, 0.7),
        (0.6, 0.6, 0.63),
    ),
    floor_textures=('checker', 'planks', 'tiles', 'carpet'),
    wall_textures=('bricks', 'stripes', 'carpet', 'planks'),
)  # fmt: skip


def draw_room(
    rng: np.random.Generator, distribution: Distribution, points: np.ndarray, reach: np.ndarray
) -> tuple[list[tuple], np.ndarray]:
    """Return the rows of the room's primitives, and where its walls are.

    :param points: ``(N, 3)`` what must lie inside, the camera last [m]
    :param reach: ``(N,)`` free distance that each needs [m]
    :returns: rows of `Primitives`, and ``(3, 2)``: lower x y, upper x y, (yaw, wall height)
    """
    yaw = rng.uniform(-math.pi, math.pi)
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    local = points[:, :2] @ turn
    low = (local - reach[:, None]).min(axis=0) - rng.uniform(*distribution.margin, 2)
    high = (local + reach[:, None]).max(axis=0) + rng.uniform(*distribution.margin, 2)
    low, high = _within_reach(local[-1], low, high)
    rotation = np.eye(3)
    rotation[:2, :2] = turn
    height = distribution.wall_height
    middle, half = (low + high) / 2, (high - low) / 2
    rows = []

    def add(center: tuple, across: tuple[float, float], frame: np.ndarray, finish: tuple) -> None:
        size = (*across, THICKNESS / 2)
        rows.append((int(Shape.BOX), size, rotation @ np.array(center), rotation @ frame, *finish, 0))

    level = (half[0] + THICKNESS, half[1] + THICKNESS)
    style = distribution.room or HOME
    floor = _finish(rng, style.floor_colors, style.floor_textures, distribution.textured[0])
    add((*middle, -THICKNESS / 2), level, np.eye(3), floor)
    add((*middle, height + THICKNESS / 2), level, np.eye(3), ((0.9, 0.9, 0.88, 1.0), -1))
    walls = _finish(rng, style.wall_colors, style.wall_textures, distribution.textured[1])
    for axis in (0, 1):
        # Local x along the wall, local y up, so that textures stand upright.
        along, up = np.eye(3)[1 - axis], np.array([0.0, 0.0, 1.0])
        frame = np.stack([along, up, np.cross(along, up)], axis=1)
        for side in (-1, 1):
            center = [*middle, height / 2]
            center[axis] += side * (half[axis] + THICKNESS / 2)
            add(tuple(center), (half[1 - axis] + THICKNESS, height / 2), frame, walls)
    return rows, np.array([low, high, (yaw, height)])


def _within_reach(camera: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pull in walls behind which a corner would be farther from the camera than `FARTHEST`."""
    limit = FARTHEST / math.sqrt(2)
    return np.maximum(low, camera - limit), np.minimum(high, camera + limit)


def _finish(
    rng: np.random.Generator, colors: tuple[Color, ...], names: tuple[str, ...], textured: float
) -> tuple[tuple[float, ...], int]:
    """Return the colour (RGBA) and the texture (-1 for none) of a surface."""
    color = np.clip(np.array(colors[int(rng.integers(len(colors)))]) * rng.uniform(0.85, 1.15), 0, 1)
    textures = [number for number, (name, _) in enumerate(TEXTURES) if name in names]
    return (*color, 1.0), int(rng.choice(textures)) if rng.random() < textured else -1


def draw_lights(
    rng: np.random.Generator, distribution: Distribution, walls: np.ndarray, camera: np.ndarray
) -> tuple[Light, ...]:
    """Return a main light under the ceiling, and a weak one above the camera that fills in what faces it.

    :param walls: as `draw_room` returns them
    :param camera: ``(3,)`` position of the camera [m]
    """
    low, high, (yaw, height) = walls
    turn = np.array([[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]])
    place = turn @ (low + (high - low) * rng.uniform(0.15, 0.85, 2))
    main = np.array([*place, height - rng.uniform(0.1, 0.6)])
    fill = camera + np.array([*rng.normal(0, 0.3, 2), 0.5])
    strength, ambient = rng.uniform(*distribution.light_strength), rng.uniform(*distribution.ambient)
    return (
        _lamp(rng, main, strength, 0.0, rng.random() < distribution.shadows),
        _lamp(rng, fill, strength * rng.uniform(0.3, 0.6), ambient, False),
    )


def _lamp(
    rng: np.random.Generator, position: np.ndarray, diffuse: float, ambient: float, shadow: bool
) -> Light:
    aim = np.array([*rng.normal(0, 0.3, 2), 0.3]) - position
    aim /= np.linalg.norm(aim)
    return Light(tuple(position), tuple(aim), diffuse, ambient, 70.0, bool(shadow))
