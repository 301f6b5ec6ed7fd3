"""Objects in another frame: what is measured there is what is measured in points moved there."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cooper_model import geometry
from cooper_model.placement import RigidTransform, placed
from cooper_model.types import CameraIntrinsics, DepthMap, Frame, Segmentation

CAMERA = CameraIntrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)


def transform(seed):
    rng = np.random.default_rng(seed)
    rotation, _ = cv2.Rodrigues(rng.normal(size=3))
    return RigidTransform(rotation, rng.normal(size=3))


def scene():
    """Return maps with a slanted rectangle before a far wall, their frame, and the objects in them."""
    instances = np.zeros((96, 128), np.uint16)
    instances[40:60, 60:90] = 3
    labels = np.where(instances > 0, 0, 255).astype(np.uint8)
    slope = np.broadcast_to(np.linspace(1.5, 2.5, 128), (96, 128))
    metres = np.where(instances > 0, slope, 5.0).astype(np.float32)
    color = np.zeros((96, 128, 3), np.uint8)
    mask = Segmentation(labels, instances, np.ones((96, 128), np.float32), ('box',), color)
    depth = DepthMap(metres / 10, metres, color)
    return mask, depth, tuple(geometry.describe_objects(mask, depth, Frame(color, CAMERA)))


def test_transforms_compose_and_go_back():
    one, other = transform(1), transform(2)
    points = np.random.default_rng(3).normal(size=(4, 5, 3))
    np.testing.assert_allclose((one @ other).apply(points), one.apply(other.apply(points)))
    np.testing.assert_allclose(one.inverse().apply(one.apply(points)), points)
    np.testing.assert_array_equal(RigidTransform.identity().apply(points), points)
    single = points.astype(np.float32)
    assert one.apply(single).dtype == np.float32


def test_nothing_moves_where_the_frames_are_the_same():
    mask, depth, objects = scene()
    assert placed(objects, RigidTransform.identity(), depth, mask, CAMERA) == objects


def test_axes_of_an_upright_robot_give_height_along_z():
    mask, depth, (item,) = scene()
    # Optical axes (right, down, forward) to those of a body (forward, left, up), REP 103.
    body = RigidTransform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.2, 0, 1.0]))
    (moved,) = placed((item,), body, depth, mask, CAMERA)
    x, y, z = item.center
    assert moved.center == pytest.approx((z + 0.2, -x, -y + 1.0), abs=1e-5)
    assert moved.size == pytest.approx((item.size[2], item.size[0], item.size[1]), abs=1e-5)
    assert (moved.depth, moved.box, moved.evidence) == (item.depth, item.box, item.evidence)


def test_extents_are_those_of_the_points_themselves():
    mask, depth, objects = scene()
    move = transform(5)
    (moved,) = placed(objects, move, depth, mask, CAMERA)
    points = move.apply(geometry.unproject(depth.metres, CAMERA))[mask.instances == 3]
    low, high = np.percentile(points, (5, 95), axis=0)
    np.testing.assert_allclose(moved.center, (low + high) / 2, atol=1e-4)
    np.testing.assert_allclose(moved.size, (high - low) / 0.9, atol=1e-4)


def test_without_metres_there_is_no_place():
    mask, depth, objects = scene()
    with pytest.raises(ValueError, match='calibrate the camera'):
        placed(objects, transform(1), DepthMap(depth.relative, None, depth.color), mask, CAMERA)
