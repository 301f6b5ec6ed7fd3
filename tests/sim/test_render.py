"""The renderer's depth and ids against geometry worked out without it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cooper_model.types import CameraIntrinsics
from cooper_sim import Renderer, RenderError, make_sample
from cooper_sim.scenes import look_at
from cooper_sim.types import Light, Primitives, Scene, Shape

LIGHT = Light((0.0, 0.0, 3.0), (0.0, 0.0, -1.0), 0.6, 0.4)


def scene_of(rows, camera, target, fov=55.0):
    """Return a scene of ``(shape, half extents, position, id)`` primitives; id 0 is background."""
    count = len(rows)
    shapes, sizes, positions, ids = zip(*rows, strict=True) if rows else ([], [], [], [])
    parts = Primitives(
        np.array(shapes, int),
        np.array(sizes, float).reshape(count, 3),
        np.array(positions, float).reshape(count, 3),
        np.tile(np.eye(3), (count, 1, 1)),
        np.tile((0.7, 0.4, 0.3, 1.0), (count, 1)),
        np.full(count, -1),
        np.array(ids, int),
    )
    return Scene(0, (), parts, look_at(np.array(camera), np.array(target)), fov, (LIGHT,), 'test')


def rays_of(scene, renderer):
    """Return the viewing ray of each pixel with z = 1 in the optical frame, turned into the world."""
    camera = CameraIntrinsics.from_vertical_fov(scene.fov_y, renderer.width, renderer.height)
    row, column = np.mgrid[0 : renderer.height, 0 : renderer.width]
    x, y = (column - camera.cx) / camera.fx, (row - camera.cy) / camera.fy
    rays = np.stack([x, y, np.ones(row.shape)], axis=-1)
    return rays @ scene.camera_pose[:3, :3].T


FLOOR = (Shape.BOX, (6, 6, 0.5), (0, 0, -0.5), 0)


def test_depth_of_a_floor_is_metric_z(renderer):
    box = (Shape.BOX, (0.1, 0.1, 0.1), (0.0, 0.0, 0.1), 1)
    scene = scene_of([FLOOR, box], (0.0, -1.2, 1.0), (0.0, 0.3, 0.0))
    _, depth, ids = renderer.render(scene)
    expected = -scene.camera_pose[2, 3] / rays_of(scene, renderer)[..., 2]
    floor = (ids == 0) & (expected > 0) & (expected < 3)
    assert floor.mean() > 0.5
    np.testing.assert_allclose(depth[floor], expected[floor], rtol=2e-3)


def test_depth_of_a_sphere_follows_its_surface(renderer):
    center, radius = np.array([0.05, 0.1, 0.3]), 0.3
    scene = scene_of([FLOOR, (Shape.SPHERE, (radius,) * 3, center, 7)], (0.0, -1.2, 0.9), (0.0, 0.0, 0.2))
    _, depth, ids = renderer.render(scene)
    rays = rays_of(scene, renderer)
    away = scene.camera_pose[:3, 3] - center
    a, b = (rays**2).sum(-1), rays @ away
    root = b**2 - a * (away @ away - radius**2)
    hit = root > 0
    np.testing.assert_array_equal(np.unique(ids), [0, 7])
    assert (hit != (ids == 7)).sum() <= 0.05 * hit.sum()  # the outline is a polygon
    sure = root > 0.2 * root.max()
    expected = ((-b - np.sqrt(np.maximum(root, 0))) / a)[sure]
    np.testing.assert_allclose(depth[sure], expected, atol=0.01)


def test_ids_of_boxes_are_where_their_projections_are(renderer):
    places = ((-0.4, 1), (0.0, 2), (0.4, 200))
    boxes = [(Shape.BOX, (0.1, 0.1, 0.1), (x, 0.0, 0.1), number) for x, number in places]
    scene = scene_of([FLOOR, *boxes], (0.0, -1.5, 0.8), (0.0, 0.0, 0.1))
    _, _, ids = renderer.render(scene)
    assert set(np.unique(ids)) == {0, 1, 2, 200}
    camera = CameraIntrinsics.from_vertical_fov(scene.fov_y, renderer.width, renderer.height)
    for _, _, position, number in boxes:
        x, y, z = scene.camera_pose[:3, :3].T @ (np.array(position) - scene.camera_pose[:3, 3])
        assert ids[round(camera.fy * y / z + camera.cy), round(camera.fx * x / z + camera.cx)] == number


def test_a_nearer_thing_hides_a_farther_one(renderer):
    near = (Shape.BOX, (0.3, 0.05, 0.5), (0.0, -0.3, 0.5), 1)
    far = (Shape.CYLINDER, (0.1, 0.1, 0.1), (0.0, 0.3, 0.1), 2)
    camera = (0.0, -1.5, 0.4), (0.0, 0.0, 0.3)
    assert 2 in renderer.render(scene_of([FLOOR, far], *camera))[2]
    assert 2 not in renderer.render(scene_of([FLOOR, near, far], *camera))[2]


def test_a_cylinder_has_its_own_height(renderer):
    cylinder = (Shape.CYLINDER, (0.1, 0.1, 0.3), (0, 0, 0.3), 1)
    scene = scene_of([FLOOR, cylinder], (0.0, -2.0, 0.3), (0.0, 0.0, 0.3))
    rows, columns = np.nonzero(renderer.render(scene)[2] == 1)
    focal = 48 / np.tan(np.radians(27.5))
    assert np.ptp(columns) + 1 == pytest.approx(focal * 0.2 / 2.0, abs=2)
    assert np.ptp(rows) + 1 == pytest.approx(focal * 0.6 / 1.95, abs=3)


def test_sizes_share_a_process(samples, distribution, renderer):
    """The larger picture shows the same scene; the smaller one still works afterwards."""
    first = samples[3]
    large = make_sample(3, Renderer(256, 192), distribution)
    assert large.image.shape == (192, 256, 3)
    assert large.intrinsics == first.intrinsics.scaled(256, 192)
    agree = large.ids[::2, ::2] == first.ids
    assert agree.mean() > 0.97
    again = make_sample(3, renderer, distribution)
    np.testing.assert_array_equal(again.image, first.image)
    np.testing.assert_array_equal(again.depth, first.depth)


def test_shadows_darken_only_the_picture(renderer, samples):
    scene = next(s.scene for s in samples if s.scene.lights[0].shadow)
    with_shadows = renderer.render(scene)
    unlit = replace(scene, lights=tuple(replace(light, shadow=False) for light in scene.lights))
    without = renderer.render(unlit)
    assert with_shadows[0].mean() < without[0].mean()
    np.testing.assert_array_equal(with_shadows[1], without[1])
    np.testing.assert_array_equal(with_shadows[2], without[2])


def test_an_empty_picture_is_an_error(renderer):
    with pytest.raises(RenderError, match='constant picture'):
        renderer.render(scene_of([], (0.0, -1.0, 1.0), (0.0, 0.0, 0.0)))


def test_other_sampling_in_one_process_is_refused(renderer):
    with pytest.raises(RenderError, match='another process'):
        Renderer(64, 48, samples=0)
