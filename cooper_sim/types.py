"""What the simulation exchanges: objects, primitives to draw, scenes, and rendered samples with their truth.

World frame: metres, z up, floor at z = 0. Camera: REP 103 optical frame (x right, y down, z forward).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from cooper_model.types import CameraIntrinsics

KINDS: tuple[str, ...] = (
    'table', 'shelf', 'chair', 'stool', 'box', 'ball', 'mug', 'bottle', 'can', 'lamp', 'bowl', 'book',
)  # fmt: skip
FURNITURE: frozenset[str] = frozenset({'table', 'shelf', 'chair', 'stool'})
COLORS: dict[str, tuple[float, float, float]] = {
    'red': (0.80, 0.06, 0.06),
    'orange': (1.00, 0.45, 0.02),
    'yellow': (0.95, 0.85, 0.08),
    'green': (0.08, 0.55, 0.12),
    'blue': (0.06, 0.20, 0.80),
    'purple': (0.48, 0.10, 0.62),
    'white': (0.93, 0.93, 0.93),
    'black': (0.06, 0.06, 0.07),
}


class Shape(IntEnum):
    """Convex primitives, numbered as MuJoCo's ``mjtGeom``."""

    SPHERE = 2
    ELLIPSOID = 4
    CYLINDER = 5
    BOX = 6


@dataclass(frozen=True)
class SimObject:
    """One object of a scene.

    :param id: value in the instance image, from 1
    :param name: colour and kind, unique in its scene, for example ``red mug``
    :param position: centre of the bounding box in the world frame [m]
    :param size: full extents of the bounding box along the object's own x, y, z [m]
    :param yaw: rotation about the world's z [rad]
    """

    id: int
    kind: str
    color: str
    name: str
    position: tuple[float, float, float]
    size: tuple[float, float, float]
    yaw: float


@dataclass(frozen=True)
class Light:
    """A spot light inside the room, or the soft light that is everywhere (``ambient``).

    :param position, direction: in the world frame [m], unit vector
    :param cutoff: half angle of the cone [deg]
    """

    position: tuple[float, float, float]
    direction: tuple[float, float, float]
    diffuse: float
    ambient: float
    cutoff: float = 85.0
    shadow: bool = True


@dataclass(frozen=True, eq=False)
class Primitives:
    """N convex primitives in the world frame, ready to draw.

    :param shapes: ``(N,)`` int, values of `Shape`
    :param sizes: ``(N, 3)`` half extents [m]; a cylinder is (radius, radius, half height)
    :param positions: ``(N, 3)`` [m]
    :param rotations: ``(N, 3, 3)`` world from primitive
    :param rgba: ``(N, 4)`` in 0..1
    :param materials: ``(N,)`` index of a texture of the renderer, -1 for none
    :param object_ids: ``(N,)`` id of the object, 0 for floor and walls
    """

    shapes: np.ndarray
    sizes: np.ndarray
    positions: np.ndarray
    rotations: np.ndarray
    rgba: np.ndarray
    materials: np.ndarray
    object_ids: np.ndarray

    def of(self, object_id: int) -> Primitives:
        """Return the primitives of one object."""
        chosen = self.object_ids == object_id
        return Primitives(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))


@dataclass(frozen=True, eq=False)
class Scene:
    """Everything that a renderer needs, settled under gravity.

    :param camera_pose: ``(4, 4)`` world from optical frame [m]
    :param fov_y: vertical field of view [deg]
    :param arrangement: name of the arrangement in the distribution that it was drawn from
    """

    seed: int
    objects: tuple[SimObject, ...]
    primitives: Primitives
    camera_pose: np.ndarray
    fov_y: float
    lights: tuple[Light, ...]
    arrangement: str

    @property
    def up(self) -> tuple[float, float, float]:
        """The world's up direction in the optical frame."""
        return tuple(float(value) for value in self.camera_pose[2, :3])


@dataclass(frozen=True)
class VisibleObject:
    """The truth about one object that has at least one visible pixel.

    :param box: ``(left, top, right, bottom)`` of the visible pixels, right and bottom exclusive
    :param area: visible pixels
    :param visible_fraction: visible pixels over the pixels that it would have if nothing hid it, inside the
        image
    :param in_frame: share of its unhidden silhouette that lies inside the image
    :param center: centre of the object's bounding box in the optical frame [m]
    :param size: width (along the camera's horizontal), height (along gravity), depth (horizontally away) [m]
    :param depth: median z of the visible pixels [m]
    """

    id: int
    kind: str
    color: str
    name: str
    box: tuple[int, int, int, int]
    area: int
    visible_fraction: float
    in_frame: float
    center: tuple[float, float, float]
    size: tuple[float, float, float]
    depth: float
    metric: bool = True
    confidence: float = 1.0


@dataclass(frozen=True, eq=False)
class Sample:
    """A rendered scene with its truth.

    :param image: ``(height, width, 3)`` uint8 RGB
    :param depth: ``(height, width)`` float32, z in the optical frame [m]
    :param ids: ``(height, width)`` uint8, 0 for floor and walls, otherwise `SimObject.id`
    """

    image: np.ndarray
    depth: np.ndarray
    ids: np.ndarray
    scene: Scene
    intrinsics: CameraIntrinsics
    visible: tuple[VisibleObject, ...]

    @property
    def up(self) -> tuple[float, float, float]:
        """The world's up direction in the optical frame."""
        return self.scene.up
