"""Transforms between frames at a time, from messages alone."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from geometry_msgs.msg import Quaternion, TransformStamped, Vector3  # noqa: E402

from cooper_ros.conversions import stamp_from_ns  # noqa: E402
from cooper_ros.encodings import ConversionError  # noqa: E402
from cooper_ros.transform_tree import NoTransform, TransformTree  # noqa: E402

SECOND = 1_000_000_000


def message(parent, child, x=0.0, yaw=0.0, seconds=0.0):
    """Return a transform: ``child`` stands ``x`` metres ahead of ``parent``, turned left by ``yaw``."""
    found = TransformStamped(child_frame_id=child)
    found.header.frame_id = parent
    found.header.stamp = stamp_from_ns(round(seconds * SECOND))
    found.transform.translation = Vector3(x=x)
    found.transform.rotation = Quaternion(z=math.sin(yaw / 2), w=math.cos(yaw / 2))
    return found


@pytest.fixture
def tree():
    """Return map -> base (moving) -> mast (static, turned left) -> camera (static), and base -> arm (static)."""
    tree = TransformTree()
    for seconds in (1.0, 2.0, 3.0):
        tree.add(message('map', 'base', 10 * seconds, 0.2 * seconds, seconds), static=False)
    tree.add(message('base', 'mast', 1.0, math.pi / 2), static=True)
    tree.add(message('mast', 'camera', 2.0), static=True)
    tree.add(message('/base', '/arm', -1.0), static=True)
    return tree


def origin(tree, target, source, seconds):
    return tree.lookup(target, source, round(seconds * SECOND)).apply(np.zeros(3))


def test_static_transforms_hold_at_every_time_and_in_both_directions(tree):
    for seconds in (0.5, 99.0):
        np.testing.assert_allclose(origin(tree, 'base', 'camera', seconds), (1, 2, 0), atol=1e-12)
        np.testing.assert_allclose(origin(tree, 'camera', 'base', seconds), (-2, 1, 0), atol=1e-12)
        np.testing.assert_allclose(origin(tree, 'arm', 'camera', seconds), (2, 2, 0), atol=1e-12)
    np.testing.assert_allclose(origin(tree, 'base', 'base', 0.5), 0)


@pytest.mark.parametrize('seconds', [1.0, 1.25, 2.0, 2.9])
def test_moving_transforms_are_those_of_the_time_asked_for(tree, seconds):
    yaw = 0.2 * seconds
    ahead, left = np.array((math.cos(yaw), math.sin(yaw), 0)), np.array((-math.sin(yaw), math.cos(yaw), 0))
    expected = np.array((10 * seconds, 0, 0)) + ahead * 1 + left * 2
    np.testing.assert_allclose(origin(tree, 'map', 'camera', seconds), expected, atol=1e-9)


def test_a_time_out_of_reach_is_not_guessed(tree):
    with pytest.raises(NoTransform, match=r"to 'map' is 0.500 s too old") as late:
        tree.lookup('map', 'camera', round(3.5 * SECOND))
    assert late.value.late
    with pytest.raises(NoTransform, match=r'0.250 s too new') as early:
        tree.lookup('map', 'camera', round(0.75 * SECOND))
    assert not early.value.late


def test_frames_without_connection_are_named_with_what_they_hang_from(tree):
    with pytest.raises(NoTransform, match=r"connects 'camera' \(camera < mast < base < map\) with 'table' \(table\)"):
        tree.lookup('table', 'camera', SECOND)


def test_only_ten_seconds_are_kept_and_a_bag_may_begin_again(tree):
    for seconds in np.arange(4.0, 20.0, 0.5):
        tree.add(message('map', 'base', 10 * seconds, 0.0, seconds), static=False)
    with pytest.raises(NoTransform, match='too new'):
        tree.lookup('map', 'base', 5 * SECOND)
    tree.add(message('map', 'base', 7.0, 0.0, 1.0), static=False)
    np.testing.assert_allclose(origin(tree, 'map', 'base', 1.0), (7, 0, 0))
    with pytest.raises(NoTransform):
        tree.lookup('map', 'base', 19 * SECOND)


def test_messages_in_any_order_give_the_same(tree):
    tree.add(message('map', 'base', 0.0, 0.0, 1.5), static=False)
    np.testing.assert_allclose(origin(tree, 'map', 'base', 1.25), (5, 0, 0))


@pytest.mark.parametrize(('x', 'w'), [(math.nan, 1.0), (0.0, 0.0), (0.0, math.nan), (0.0, 2.0)])
def test_what_is_no_transform_is_refused(tree, x, w):
    broken = message('base', 'mast', x)
    broken.transform.rotation = Quaternion(w=w)
    with pytest.raises(ConversionError, match='correct its publisher'):
        tree.add(broken, static=True)
    np.testing.assert_allclose(origin(tree, 'base', 'mast', 0), (1, 0, 0))


def test_a_circle_ends(tree):
    tree.add(message('camera', 'map'), static=True)
    with pytest.raises(NoTransform):
        tree.lookup('table', 'camera', SECOND)
