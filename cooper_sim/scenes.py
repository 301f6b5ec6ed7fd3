"""Draw whole scenes: arrangement, things at rest, room, camera, light. One seed, one scene."""

from __future__ import annotations

import math

import numpy as np

from cooper_sim.distribution import Arrangement, Distribution
from cooper_sim.layout import NoRoom, Placed, plan
from cooper_sim.physics import Fell, settle
from cooper_sim.room import draw_lights, draw_room
from cooper_sim.shapes import build
from cooper_sim.types import COLORS, FURNITURE, Primitives, Scene, SimObject

ATTEMPTS = 300
PATIENCE = 40  # draws after which one object fewer is tried
ASPECT = 4 / 3  # of the view that scenes are composed for
GREY = 0.5
MODEL_HEIGHT = 96  # pixel sizes in a distribution are at 128x96


def generate_scene(seed: int, distribution: Distribution) -> Scene:
    """Return the scene of ``seed``: the same one each time.

    :raises ValueError: the seed is out of range
    :raises RuntimeError: no draw of the distribution gave a scene at rest in view of the camera
    """
    rng = np.random.default_rng(distribution.stream(seed))
    weights = np.array([a.weight for a in distribution.arrangements])
    arrangement = distribution.arrangements[int(rng.choice(len(weights), p=weights / weights.sum()))]
    wanted = int(rng.integers(arrangement.count[0], arrangement.count[1] + 1))
    for attempt in range(ATTEMPTS):
        if attempt and attempt % PATIENCE == 0:
            wanted = max(arrangement.count[0], wanted - 1)
        view = rng.uniform(-math.pi, math.pi)
        try:
            placed = plan(rng, distribution, arrangement, wanted, view)
            pose, fov = _draw_camera(rng, distribution, arrangement, placed, view)
            positions, rotations = settle(placed)
        except (NoRoom, Fell):
            continue
        objects = _name_objects(placed, positions, rotations)
        corners = np.concatenate([positions, pose[None, :3, 3]])
        reach = np.array([p.radius for p in placed] + [0.15])
        room, walls = draw_room(rng, distribution, corners, reach)
        return Scene(
            seed, objects, _primitives(rng, distribution, objects, rotations, room), pose, fov,
            draw_lights(rng, distribution, walls, pose[:3, 3]), arrangement.name,
        )  # fmt: skip
    raise RuntimeError(
        f'scene {seed} of distribution {distribution.name!r}: no scene at rest in {ATTEMPTS} draws of '
        f'{arrangement.name!r}; its counts, sizes and camera ranges do not fit together'
    )


def look_at(position: np.ndarray, target: np.ndarray, roll: float = 0.0) -> np.ndarray:
    """Return the ``(4, 4)`` pose (world from optical) of a camera looking at ``target``; ``roll`` [rad]."""
    forward = target - position
    forward = forward / np.linalg.norm(forward)
    right = np.cross(forward, (0.0, 0.0, 1.0))
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = math.cos(roll), math.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, -s * right + c * down, forward], axis=1)
    pose[:3, 3] = position
    return pose


def _draw_camera(
    rng: np.random.Generator,
    distribution: Distribution,
    arrangement: Arrangement,
    placed: list[Placed],
    view: float,
) -> tuple[np.ndarray, float]:
    """Return pose and vertical field of view [deg] of a camera that has every thing in view.

    :raises NoRoom: none of a few draws has
    """
    things = [p for p in placed if p.kind not in FURNITURE] or placed
    middle = np.mean([p.position for p in things], axis=0)
    for _ in range(12):
        fov = rng.uniform(*distribution.fov)
        pitch = math.radians(rng.uniform(*arrangement.pitch))
        distance = rng.uniform(*arrangement.distance)
        target = middle + rng.normal(0, 0.05, 3)
        away = np.array([math.cos(view) * math.cos(pitch), math.sin(view) * math.cos(pitch), math.sin(pitch)])
        pose = look_at(target + distance * away, target, math.radians(rng.normal(0, distribution.roll)))
        if pose[2, 3] > 0.22 and _all_in_view(placed, pose, fov, distribution.min_pixels):
            return pose, fov
    raise NoRoom


def _all_in_view(placed: list[Placed], pose: np.ndarray, fov: float, min_pixels: float) -> bool:
    half_height = math.tan(math.radians(fov) / 2)
    focal = MODEL_HEIGHT / 2 / half_height
    for thing in placed:
        x, y, z = pose[:3, :3].T @ (np.array(thing.position) - pose[:3, 3])
        big = thing.kind in FURNITURE
        bulk = max(thing.size) / 2
        if z < bulk + 0.2:
            return False
        slack = 0.95 if big else 0.88
        own = 0.0 if big else min(thing.size) / 2
        if (
            abs(y) + 0.7 * own > slack * half_height * z
            or abs(x) + 0.7 * own > slack * half_height * ASPECT * z
        ):
            return False
        flat = sorted(thing.size)
        if flat[1] * flat[2] * (focal / z) ** 2 < min_pixels * 1.6:
            return False
    return True


def _name_objects(
    placed: list[Placed], positions: np.ndarray, rotations: np.ndarray
) -> tuple[SimObject, ...]:
    return tuple(
        SimObject(
            index + 1, p.kind, p.color, f'{p.color} {p.kind}', tuple(map(float, positions[index])), p.size,
            float(math.atan2(rotations[index][1, 0], rotations[index][0, 0])),
        )
        for index, p in enumerate(placed)
    )  # fmt: skip


def _primitives(
    rng: np.random.Generator,
    distribution: Distribution,
    objects: tuple[SimObject, ...],
    rotations: np.ndarray,
    room: list[tuple],
) -> Primitives:
    """Return the room's and the objects' parts in the world frame; ``room`` holds finished rows."""
    rows = list(room)
    for thing, rotation in zip(objects, rotations, strict=True):
        color = (1 - distribution.fade) * np.array(COLORS[thing.color]) + distribution.fade * GREY
        tint = np.clip(color * rng.uniform(*distribution.tint) + rng.normal(0, 0.015, 3), 0, 1)
        for part in build(thing.kind, thing.size, tuple(tint)):
            position = np.array(thing.position) + rotation @ np.array(part.position)
            rows.append((int(part.shape), part.size, position, rotation, (*part.rgb, 1.0), -1, thing.id))
    shapes, sizes, positions, turns, rgba, materials, ids = zip(*rows, strict=True)
    return Primitives(
        np.array(shapes), np.array(sizes, np.float64), np.array(positions, np.float64),
        np.array(turns, np.float64), np.array(rgba, np.float64), np.array(materials), np.array(ids),
    )  # fmt: skip
