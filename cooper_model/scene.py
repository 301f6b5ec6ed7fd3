"""Objects and relations of a frame from its maps and its camera: the source that needs no words."""

from __future__ import annotations

import math
from dataclasses import replace

from cooper_model import geometry
from cooper_model.types import CameraIntrinsics, DepthMap, Frame, Relation, SceneObject, Segmentation

ASSUMED_FOV_DEG = 60.0
"""Field of view along the longer side of an image whose camera is unknown."""


def assumed_intrinsics(width: int, height: int) -> CameraIntrinsics:
    """Return a centred pinhole camera with square pixels and the assumed field of view."""
    focal = max(width, height) / 2 / math.tan(math.radians(ASSUMED_FOV_DEG) / 2)
    return CameraIntrinsics(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)


def describe_scene(
    frame: Frame, depth: DepthMap | None, segmentation: Segmentation | None
) -> tuple[tuple[SceneObject, ...], tuple[Relation, ...]]:
    """Return the objects of a segmentation and the relations between them; both empty without a segmentation.

    Lengths are metres only where the frame has intrinsics and the depth is metric. With an assumed camera
    they are in units of the depth range, which still tells order and direction.
    """
    if segmentation is None:
        return (), ()
    height, width = frame.image.shape[:2]
    if frame.intrinsics is None:
        frame = replace(frame, intrinsics=assumed_intrinsics(width, height))
        depth = None if depth is None else replace(depth, metres=None)
    objects = tuple(geometry.describe_objects(segmentation, depth, frame))
    up = None
    if depth is not None and depth.metres is not None:
        up = geometry.estimate_up(geometry.unproject(depth.metres, frame.intrinsics))
    return objects, tuple(geometry.relations(objects, up))
