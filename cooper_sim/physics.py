"""Let things come to rest under gravity, in a small MuJoCo model compiled for each scene.

Collision shapes are simple (one box or sphere a thing, one box a board of furniture); furniture does not
move.
"""

from __future__ import annotations

import math
import os

import numpy as np

from cooper_sim.layout import Placed
from cooper_sim.shapes import build
from cooper_sim.types import FURNITURE, Shape

os.environ.setdefault('MUJOCO_GL', 'egl')
import mujoco  # noqa: E402

TIME_STEP = 0.005  # [s]
LONGEST = 1.2  # simulated time after which a scene that still moves is given up [s]
RESTING_SPEED = 0.03  # largest generalised speed of a scene at rest [m/s, rad/s]
SHIFT, TILT = 0.05, 8.0  # movement that counts as falling away [m, deg]


class Fell(Exception):
    """Something did not stay where it was put; draw again."""


def settle(placed: list[Placed]) -> tuple[np.ndarray, np.ndarray]:
    """Return ``(N, 3)`` positions [m] and ``(N, 3, 3)`` rotations (world from object) at rest.

    :raises Fell: something moved, tipped over, or was still moving in the end
    """
    model = _model(placed)
    data = mujoco.MjData(model)
    for _ in range(int(LONGEST / 0.05)):
        mujoco.mj_step(model, data, nstep=int(0.05 / TIME_STEP))
        if data.time > 0.09 and (not model.nv or np.abs(data.qvel).max() < RESTING_SPEED):
            break
    else:
        raise Fell
    positions = data.xpos[1:].copy()
    rotations = data.xmat[1:].reshape(-1, 3, 3).copy()
    for thing, position, rotation in zip(placed, positions, rotations, strict=True):
        moved = np.linalg.norm(position - thing.position)
        if moved > SHIFT or rotation[2, 2] < math.cos(math.radians(TILT)):
            raise Fell
    return positions, rotations


def _model(placed: list[Placed]) -> mujoco.MjModel:
    spec = mujoco.MjSpec()
    spec.option.timestep = TIME_STEP
    spec.option.iterations = 15
    world = spec.worldbody
    world.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[5, 5, 0.1], friction=[0.9, 0.01, 0.01])
    for thing in placed:
        half_yaw = thing.yaw / 2
        body = world.add_body(pos=list(thing.position), quat=[math.cos(half_yaw), 0, 0, math.sin(half_yaw)])
        if thing.kind in FURNITURE:
            _add_boards(body, thing)
            continue
        body.add_freejoint()
        half = [side / 2 for side in thing.size]
        round_one = thing.kind == 'ball'
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE if round_one else mujoco.mjtGeom.mjGEOM_BOX,
            size=half,
            density=300.0,
            friction=[0.9, 0.02, 0.02],
            condim=6 if round_one else 3,
        )
    return spec.compile()


def _add_boards(body: mujoco.MjsBody, thing: Placed) -> None:
    for part in build(thing.kind, thing.size, (0.5, 0.5, 0.5)):
        legs = part.size[2] > max(part.size[0], part.size[1]) and thing.kind != 'shelf'
        if legs:
            continue  # what stands on the floor is kept away from furniture already
        x, y, z = part.size
        half = [x * 0.9, y * 0.9, z] if part.shape is Shape.CYLINDER else [x, y, z]
        body.add_geom(
            type=mujoco.mjtGeom.mjGEOM_BOX, size=half, pos=list(part.position), friction=[0.9, 0.02, 0.02]
        )
