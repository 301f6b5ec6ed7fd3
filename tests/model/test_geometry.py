"""Points, objects and relations from depth, masks and the camera, against cases worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cooper_model import geometry
from cooper_model.types import Alignment, CameraIntrinsics, DepthMap, Frame, SceneObject, Segmentation

CAMERA = CameraIntrinsics(100.0, 100.0, 63.5, 47.5, 128, 96)


def thing(number, place, size=(0.2, 0.2, 0.2), name='red box', **changes):
    """Return an object with the box that a camera would see."""
    x, y, z = place
    u, v = CAMERA.fx * x / z + CAMERA.cx, CAMERA.fy * y / z + CAMERA.cy
    w, h = CAMERA.fx * size[0] / z, CAMERA.fy * size[1] / z
    box = (round(u - w / 2), round(v - h / 2), round(u + w / 2), round(v + h / 2))
    found = SceneObject(number, name, 1.0, box, int(w * h), place, size, z - size[2] / 2, True)
    return replace(found, **changes)


def stated(objects, up=None):
    return {(r.subject_id, r.predicate, r.object_id) for r in geometry.relations(objects, up)}


def test_unproject_inverts_the_projection():
    depth = np.random.default_rng(0).uniform(0.5, 4, (96, 128)).astype(np.float32)
    points = geometry.unproject(depth, CAMERA)
    assert points.dtype == np.float32
    u = CAMERA.fx * points[..., 0] / points[..., 2] + CAMERA.cx
    v = CAMERA.fy * points[..., 1] / points[..., 2] + CAMERA.cy
    row, column = np.mgrid[0:96, 0:128]
    np.testing.assert_allclose(u, column, atol=1e-3)
    np.testing.assert_allclose(v, row, atol=1e-3)
    np.testing.assert_array_equal(points[..., 2], depth)


@pytest.mark.parametrize('bad', [np.nan, np.inf, 0.0, -1.0])
def test_unproject_gives_no_point_where_depth_is_invalid(bad):
    depth = np.full((4, 5), 2.0, np.float32)
    depth[1, 2] = bad
    points = geometry.unproject(depth, CAMERA)
    assert np.isnan(points[1, 2]).all()
    assert np.isfinite(np.delete(points.reshape(-1, 3), 7, axis=0)).all()


def test_unproject_scales_the_camera_to_the_depth():
    whole = geometry.unproject(np.full((96, 128), 2.0, np.float32), CAMERA)
    half = geometry.unproject(np.full((48, 64), 2.0, np.float32), CAMERA)
    np.testing.assert_allclose(half, whole.reshape(48, 2, 64, 2, 3).mean(axis=(1, 3)), atol=1e-5)


def square(depth_value=2.0, metric=True):
    """Return a segmentation with one 20x10 px rectangle before a far wall, and its depth."""
    instances = np.zeros((96, 128), np.uint16)
    instances[40:50, 60:80] = 3
    labels = np.where(instances > 0, 1, 255).astype(np.uint8)
    metres = np.where(instances > 0, depth_value, 5.0).astype(np.float32)
    color = np.zeros((96, 128, 3), np.uint8)
    mask = Segmentation(labels, instances, np.full((96, 128), 0.8, np.float32), ('table', 'box'), color)
    return mask, DepthMap(metres / 10, metres if metric else None, color)


FRAME = Frame(np.zeros((96, 128, 3), np.uint8), CAMERA)


def test_objects_are_measured_in_metres():
    mask, depth = square()
    (found,) = geometry.describe_objects(mask, depth, FRAME)
    assert (found.id, found.name, found.box, found.area) == (3, 'box', (60, 40, 80, 50), 200)
    assert found.confidence == pytest.approx(0.8)
    assert found.metric and found.depth == pytest.approx(2.0)
    # 20 x 10 px at a focal length of 100 px and 2 m
    assert found.size[:2] == pytest.approx((0.4, 0.2), rel=0.1)
    assert found.center == pytest.approx(((69.5 - 63.5) / 50, (44.5 - 47.5) / 50, 2.0), abs=0.01)


def test_invalid_and_bleeding_depth_does_not_move_an_object():
    mask, depth = square()
    metres = depth.metres.copy()
    metres[40, 60:80] = 5.0
    metres[45, 60:70] = np.nan
    (found,) = geometry.describe_objects(mask, replace(depth, metres=metres), FRAME)
    assert found.depth == pytest.approx(2.0)
    assert found.center[2] == pytest.approx(2.0, abs=0.01)
    assert found.size[2] == pytest.approx(0.0, abs=0.01)


def test_depth_that_is_mostly_invalid_gives_no_lengths():
    mask, depth = square(depth_value=np.nan)
    (found,) = geometry.describe_objects(mask, depth, FRAME)
    assert (found.center, found.size, found.depth) == (None, None, None)


def test_without_scale_camera_or_depth_less_is_known():
    mask, depth = square(metric=False)
    (relative,) = geometry.describe_objects(mask, depth, FRAME)
    assert not relative.metric and relative.depth == pytest.approx(0.2)
    (uncalibrated,) = geometry.describe_objects(mask, depth, replace(FRAME, intrinsics=None))
    assert uncalibrated.center is None and uncalibrated.depth == pytest.approx(0.2)
    (flat,) = geometry.describe_objects(mask, None, FRAME)
    assert flat.depth is None and flat.center is None and flat.box == (60, 40, 80, 50)


def test_small_instances_are_left_out_and_sizes_must_agree():
    mask, depth = square()
    assert geometry.describe_objects(mask, depth, FRAME, min_area=201) == []
    with pytest.raises(ValueError, match='same resolution'):
        geometry.describe_objects(mask, DepthMap(depth.relative[:5], None, depth.color), FRAME)


def test_sides_and_distances():
    left, right = thing(1, (-0.4, 0, 1.0)), thing(2, (0.4, 0, 2.0))
    found = stated([left, right])
    assert {(1, 'left of', 2), (2, 'right of', 1)} <= found
    assert {(1, 'closer', 2), (2, 'farther', 1), (1, 'in front of', 2), (2, 'behind', 1)} <= found
    assert not {(2, 'left of', 1), (1, 'right of', 2), (2, 'closer', 1), (1, 'behind', 2)} & found
    (relation,) = (r for r in geometry.relations([left, right]) if r.predicate == 'left of')
    assert relation.distance == pytest.approx(np.hypot(0.8, 1.0))
    assert 0.5 < relation.confidence < 1


def test_small_differences_are_not_stated():
    found = stated([thing(1, (0, 0, 1.0)), thing(2, (0.05, 0.01, 1.03))])
    assert found <= {(1, 'next to', 2), (2, 'next to', 1)}


def test_confidence_grows_with_the_difference():
    def sure(x):
        pair = [thing(1, (-x, 0, 1.5)), thing(2, (x, 0, 1.5))]
        return next(r.confidence for r in geometry.relations(pair) if r.predicate == 'left of')

    assert 0.5 < sure(0.1) < sure(0.2) < sure(0.4) < 1


def tilted(points, degrees):
    """Return points of a level camera's frame, and up, as seen by a camera tilted down by ``degrees``."""
    angle = np.radians(degrees)
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    moved = [tuple(map(float, turn @ np.array(p))) for p in points]
    return moved, tuple(map(float, turn @ np.array((0.0, -1.0, 0.0))))


@pytest.mark.parametrize('degrees', [0, 20, 40])
@pytest.mark.parametrize('known', [True, False])
def test_a_farther_thing_on_the_same_floor_is_not_above(degrees, known):
    (near, far), up = tilted([(0, 0.5, 1.0), (0, 0.5, 2.0)], degrees)
    found = stated([thing(1, near), thing(2, far)], up if known else None)
    assert not {p for _, p, _ in found} & {'above', 'below', 'on'}


@pytest.mark.parametrize('degrees', [0, 20, 40])
def test_a_mug_on_a_table(degrees):
    (top, table), up = tilted([(0.1, 0.3, 1.4), (0, 0.65, 1.5)], degrees)
    mug = thing(1, top, (0.15, 0.2, 0.15), 'red mug')
    found = stated([mug, thing(2, table, (0.8, 0.5, 0.6), 'blue table')], up)
    assert {(1, 'on', 2), (1, 'above', 2), (2, 'below', 1)} <= found
    assert not {(2, 'on', 1), (1, 'inside', 2), (1, 'next to', 2)} & found


def test_a_mug_before_a_table_is_not_on_it():
    mug = thing(1, (0.1, 0.8, 0.9), (0.15, 0.2, 0.15), 'red mug')
    found = stated([mug, thing(2, (0, 0.65, 1.5), (0.8, 0.5, 0.6), 'blue table')])
    assert (1, 'on', 2) not in found and (1, 'in front of', 2) in found


def test_inside_needs_a_container():
    ball = thing(1, (0.05, 0.1, 1.5), (0.15, 0.15, 0.15), 'red ball')
    for name, holds in (('green shelf', True), ('green chair', False)):
        found = stated([ball, thing(2, (0, 0, 1.5), (0.8, 0.9, 0.3), name)])
        assert ((1, 'inside', 2) in found) is holds
        assert (2, 'inside', 1) not in found


def test_next_to_needs_a_small_gap_and_one_level():
    near = [thing(1, (-0.15, 0, 1.5)), thing(2, (0.12, 0, 1.5))]
    assert {(1, 'next to', 2), (2, 'next to', 1)} <= stated(near)
    assert (1, 'next to', 2) not in stated([near[0], thing(2, (0.5, 0, 1.5))])
    assert (1, 'next to', 2) not in stated([near[0], thing(2, (0.1, -0.25, 1.5))])


def test_without_depth_only_the_image_plane_counts():
    unknown = {'center': None, 'depth': None, 'metric': False}
    flat = [thing(1, (-0.4, -0.4, 1.0), **unknown), thing(2, (0.4, 0.4, 1.0), **unknown)]
    assert stated(flat) == {(1, 'left of', 2), (2, 'right of', 1), (1, 'above', 2), (2, 'below', 1)}
    assert all(np.isnan(r.distance) for r in geometry.relations(flat))


def test_unknown_scale_gives_relations_without_a_distance():
    pair = [thing(1, (-0.4, 0, 1.0), metric=False), thing(2, (0.4, 0, 2.0), metric=False)]
    found = geometry.relations(pair)
    assert any(r.predicate == 'closer' for r in found)
    assert all(np.isnan(r.distance) for r in found)


def test_degenerate_objects_give_no_spatial_relation():
    nan = (float('nan'),) * 3
    broken = replace(thing(1, (-0.4, 0, 1.0)), center=nan, size=nan, depth=float('nan'))
    found = geometry.relations([broken, thing(2, (0.4, 0, 2.0))])
    assert {r.predicate for r in found} <= {'left of', 'right of'}


def test_predicates_are_the_ones_that_relations_state():
    mug = thing(1, (0.1, 0.3, 1.4), (0.15, 0.2, 0.15), 'red mug')
    objects = [
        mug,
        thing(2, (0, 0.65, 1.5), (0.8, 0.5, 0.6), 'blue table'),
        thing(3, (0.9, 0.2, 3.0), (0.8, 1.2, 0.4), 'shelf'),
        thing(4, (0.9, 0.2, 3.0), (0.1, 0.2, 0.1), 'ball'),
        thing(5, (-0.75, 0.75, 1.5), (0.3, 0.3, 0.3), 'stool'),
        thing(6, (-1.05, 0.75, 1.5), (0.3, 0.3, 0.3), 'box'),
    ]
    assert {r.predicate for r in geometry.relations(objects)} == set(geometry.PREDICATES)


@pytest.mark.parametrize(
    ('place', 'degrees'), [((1, 0, 1), 90), ((-1, 0, 1), -90), ((0, 0, 3), 0), ((0.5, 0.3, 1.5), 45)]
)
def test_bearing_from_an_objects_point_of_view(place, degrees):
    viewer, target = thing(1, (0, 0, 1.0)), thing(2, (0, 0.1, 2.0))
    angle = geometry.bearing(viewer, target, thing(3, place))
    assert np.degrees(angle) == pytest.approx(degrees, abs=1e-6)
    # Facing the camera instead, left and right change places.
    turned = geometry.bearing(viewer, thing(2, (0, 0, 0.2)), thing(3, place))
    assert abs(np.degrees(turned)) == pytest.approx(180 - abs(degrees), abs=1e-6)
    assert degrees == 0 or np.sign(turned) == -np.sign(degrees)


def test_bearing_is_unknown_where_nothing_is_faced():
    viewer = thing(1, (0, 0, 1.0))
    assert geometry.bearing(viewer, thing(2, (0, 0.5, 1.0)), thing(3, (1, 0, 1))) is None
    assert geometry.bearing(viewer, thing(2, (0, 0, 2), center=None), thing(3, (1, 0, 1))) is None


@pytest.mark.parametrize('degrees', [0, 15, 35])
def test_up_is_found_from_floor_and_wall(degrees):
    """A floor 1 m below the camera and a wall 3 m away, seen by a camera that looks down."""
    _, up = tilted([], degrees)
    row, column = np.mgrid[0:96, 0:128]
    x, y = (column - CAMERA.cx) / CAMERA.fx, (row - CAMERA.cy) / CAMERA.fy
    rays = np.stack([x, y, np.ones(row.shape)], axis=-1)
    ahead = np.cross((1.0, 0.0, 0.0), np.array(up))
    ahead *= np.sign(ahead[2])
    with np.errstate(divide='ignore'):
        floor = np.where(rays @ np.array(up) < 0, -1 / (rays @ np.array(up)), np.inf)
        wall = np.where(rays @ ahead > 0, 3 / (rays @ ahead), np.inf)
    depth = np.minimum(floor, wall) + np.random.default_rng(1).normal(0, 0.003, row.shape)
    found = geometry.estimate_up(geometry.unproject(depth.astype(np.float32), CAMERA))
    assert np.degrees(np.arccos(np.dot(found, up))) < 2


def test_up_is_unknown_before_a_wall():
    assert geometry.estimate_up(geometry.unproject(np.full((96, 128), 2.0, np.float32), CAMERA)) is None
    assert geometry.estimate_up(np.full((96, 128, 3), np.nan, np.float32)) is None


def test_a_relation_names_the_pixels_and_the_depth_that_it_rests_on():
    mask, depth = square()
    instances = mask.instances.copy()
    instances[20:40, 10:30] = 5
    labels = np.where(instances > 0, 1, 255).astype(np.uint8)
    mask = replace(mask, labels=labels, instances=instances)
    metres = depth.metres.copy()
    metres[instances == 5] = 3.0
    metres[20:30, 10:30] = np.nan
    measured = np.full((96, 128), np.nan, np.float32)
    measured[30:35, 10:30] = 3.0
    fused = replace(depth, metres=metres, alignment=Alignment(1.0, 0.0, 0.1, 0.0))
    objects = geometry.describe_objects(mask, fused, replace(FRAME, depth=measured))
    (relation,) = (r for r in geometry.relations(objects) if (r.subject_id, r.predicate) == (5, 'left of'))
    of_subject, of_object = relation.evidence
    assert mask.instances[of_subject.pixel[1], of_subject.pixel[0]] == 5
    assert abs(of_subject.pixel[0] - 19.5) < 1 and abs(of_subject.pixel[1] - 29.5) < 1
    assert (of_subject.pixels, of_subject.depth, of_subject.measured) == (200, 3.0, 0.5)
    assert (of_object.pixels, of_object.depth, of_object.measured) == (200, 2.0, 0.0)
    # Without a fit nothing was measured, whatever the sensor said.
    unfused = geometry.describe_objects(mask, replace(fused, alignment=None), replace(FRAME, depth=measured))
    assert [item.evidence.measured for item in unfused] == [0.0, 0.0]


def test_the_pixel_of_a_ring_lies_on_the_ring():
    mask, depth = square()
    instances = mask.instances.copy()
    instances[42:48, 62:78] = 0
    (found,) = geometry.describe_objects(replace(mask, instances=instances), depth, FRAME)
    x, y = found.evidence.pixel
    assert instances[y, x] == 3


def test_objects_without_depth_have_pixels_and_no_depth_as_evidence():
    mask, _ = square()
    (found,) = geometry.describe_objects(mask, None, FRAME)
    assert (found.evidence.pixels, found.evidence.depth, found.depth) == (0, None, None)
