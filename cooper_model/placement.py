"""Points and objects of a camera in another frame of the robot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from cooper_model import geometry
from cooper_model.types import CameraIntrinsics, DepthMap, SceneObject, Segmentation


@dataclass(frozen=True)
class RigidTransform:
    """``rotation @ point + translation`` brings a point from one frame into another.

    :param rotation: ``(3, 3)``
    :param translation: ``(3,)`` [m]
    """

    rotation: np.ndarray
    translation: np.ndarray

    @classmethod
    def identity(cls) -> RigidTransform:
        """Return the transform that moves nothing."""
        return cls(np.eye(3), np.zeros(3))

    def apply(self, points: np.ndarray) -> np.ndarray:
        """Return points ``(..., 3)`` in the other frame, of their own type."""
        return (points @ self.rotation.T + self.translation).astype(points.dtype)

    def __matmul__(self, first: RigidTransform) -> RigidTransform:
        """Return the transform that does ``first``, then this."""
        return RigidTransform(
            self.rotation @ first.rotation, self.rotation @ first.translation + self.translation
        )

    def inverse(self) -> RigidTransform:
        """Return the way back."""
        return RigidTransform(self.rotation.T, -self.rotation.T @ self.translation)


def placed(
    objects: Sequence[SceneObject],
    transform: RigidTransform,
    depth: DepthMap,
    segmentation: Segmentation,
    intrinsics: CameraIntrinsics,
) -> tuple[SceneObject, ...]:
    """Return metric objects with centre and size along the axes of another frame; all else stays as the camera saw it.

    :param objects: as `geometry.describe_objects` made them of the same maps
    :param transform: from the camera's optical frame
    :raises ValueError: the depth is not metric
    """
    if depth.metres is None:
        raise ValueError('objects without metres have no place in another frame; calibrate the camera')
    points = geometry.unproject(depth.metres, intrinsics)
    moved = []
    for item in objects:
        surface = geometry.surface_points(points, *np.nonzero(segmentation.instances == item.id))
        center, size = geometry.extent(None if surface is None else transform.apply(surface))
        moved.append(replace(item, center=center, size=size))
    return tuple(moved)
