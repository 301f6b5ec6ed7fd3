"""What is visible, read from a rendered instance image and the scene behind it."""

from __future__ import annotations

import cv2
import numpy as np

from cooper_model.types import CameraIntrinsics
from cooper_sim.types import Primitives, Scene, Shape, VisibleObject

PADDING = 0.5  # border around the image in which silhouettes are still drawn, as a share of its size
CANVAS = 768  # width that silhouettes are drawn at [px]; fine, because OpenCV paints their outline too


def visible_objects(
    scene: Scene, ids: np.ndarray, depth: np.ndarray, intrinsics: CameraIntrinsics
) -> tuple[VisibleObject, ...]:
    """Return the truth about each object of ``scene`` with at least one pixel in ``ids``, by id.

    :param ids: ``(H, W)`` uint8 instance image
    :param depth: ``(H, W)`` float32 z [m]
    """
    found = []
    for thing in scene.objects:
        mask = ids == thing.id
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not rows.size:
            continue
        area = int(np.count_nonzero(mask))
        inside, everywhere = silhouette_areas(scene, thing.id, intrinsics)
        center = scene.camera_pose[:3, :3].T @ (np.array(thing.position) - scene.camera_pose[:3, 3])
        found.append(
            VisibleObject(
                thing.id, thing.kind, thing.color, thing.name,
                (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1),
                area,
                float(min(1.0, area / max(inside, 1.0))),
                float(min(1.0, inside / max(everywhere, 1.0))),
                tuple(float(v) for v in center),
                view_aligned_size(thing.size, thing.yaw, scene.camera_pose),
                float(np.median(depth[mask])),
            )
        )  # fmt: skip
    return tuple(found)


def view_aligned_size(
    size: tuple[float, float, float], yaw: float, camera_pose: np.ndarray
) -> tuple[float, float, float]:
    """Return width across the view, height, and horizontal depth of an upright bounding box [m]."""
    forward = np.arctan2(camera_pose[1, 2], camera_pose[0, 2])
    c, s = abs(np.cos(yaw - forward)), abs(np.sin(yaw - forward))
    return (float(s * size[0] + c * size[1]), float(size[2]), float(c * size[0] + s * size[1]))


def silhouette_areas(scene: Scene, object_id: int, intrinsics: CameraIntrinsics) -> tuple[float, float]:
    """Return the area of an object's silhouette, nothing before it: inside the image, and altogether [px].

    Primitives are convex, so the silhouette is the union of the hulls of their projected surface points.
    """
    camera = intrinsics.scaled(CANVAS, round(CANVAS * intrinsics.height / intrinsics.width))
    pad_x, pad_y = int(PADDING * camera.width), int(PADDING * camera.height)
    canvas = np.zeros((camera.height + 2 * pad_y, camera.width + 2 * pad_x), np.uint8)
    parts = scene.primitives.of(object_id)
    for index in range(len(parts.shapes)):
        points = surface_points(parts, index)
        seen = (points - scene.camera_pose[:3, 3]) @ scene.camera_pose[:3, :3]
        seen = seen[seen[:, 2] > 0.05]
        if len(seen) < 3:
            continue
        u = camera.fx * seen[:, 0] / seen[:, 2] + camera.cx + pad_x
        v = camera.fy * seen[:, 1] / seen[:, 2] + camera.cy + pad_y
        hull = cv2.convexHull(np.rint(np.stack([u, v], axis=1) * 16).astype(np.int32))
        cv2.fillConvexPoly(canvas, hull, 1, shift=4)
    inner = canvas[pad_y : pad_y + camera.height, pad_x : pad_x + camera.width]
    pixel = intrinsics.width * intrinsics.height / (camera.width * camera.height)
    return cv2.countNonZero(inner) * pixel, cv2.countNonZero(canvas) * pixel


def surface_points(parts: Primitives, index: int) -> np.ndarray:
    """Return ``(N, 3)`` points of a primitive whose convex hull nearly is the primitive, in the world [m]."""
    unit = _UNIT_POINTS[Shape(int(parts.shapes[index]))]
    return parts.positions[index] + (unit * parts.sizes[index]) @ parts.rotations[index].T


def _unit_points() -> dict[Shape, np.ndarray]:
    corners = np.array([(x, y, z) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)
    angles = np.linspace(0, 2 * np.pi, 28, endpoint=False)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rims = np.concatenate([np.column_stack([ring, np.full(len(ring), z)]) for z in (-1.0, 1.0)])
    tilts = np.linspace(-np.pi / 2, np.pi / 2, 15)
    ball = np.concatenate([np.column_stack([ring * np.cos(t), np.full(len(ring), np.sin(t))]) for t in tilts])
    return {Shape.BOX: corners, Shape.CYLINDER: rims, Shape.SPHERE: ball, Shape.ELLIPSOID: ball}


_UNIT_POINTS = _unit_points()
