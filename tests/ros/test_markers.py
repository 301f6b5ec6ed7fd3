"""What RViz is shown of a scene."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from builtin_interfaces.msg import Time  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from visualization_msgs.msg import Marker  # noqa: E402

from cooper_model.placement import RigidTransform  # noqa: E402
from cooper_model.types import Relation, SceneObject  # noqa: E402
from cooper_ros.markers import NAMESPACES, are_current, scene_markers  # noqa: E402

HEADER = Header(frame_id='camera_optical_frame')


def thing(number, name, center, size=(0.2, 0.4, 0.1), metric=True):
    return SceneObject(number, name, 0.9, (0, 0, 5, 5), 25, center, size, center and center[2], metric)


BALL = thing(1, 'red ball', (0.1, 0.2, 1.5))
BOX = thing(2, 'blue box', (-0.3, 0.2, 2.0), size=(0.3, 0.3, 0.0))
RELATIONS = (
    Relation(1, 'red ball', 'right of', 2, 'blue box', 0.6, 0.7),
    Relation(1, 'red ball', 'closer', 2, 'blue box', 0.6, 0.9),
    Relation(2, 'blue box', 'farther', 1, 'red ball', 0.6, 0.9),
)


def by_namespace(objects, relations=(), answer='', transform=None):
    markers = scene_markers(objects, relations, answer, HEADER, transform).markers
    assert markers[0].action == Marker.DELETEALL
    assert all(marker.header == HEADER for marker in markers)
    found = {}
    for marker in markers[1:]:
        assert marker.action == Marker.ADD
        assert marker.pose.orientation.w == 1
        assert marker.color.a > 0
        assert (marker.ns, marker.id) not in {(m.ns, m.id) for m in found.get(marker.ns, [])}
        found.setdefault(marker.ns, []).append(marker)
    return found


def test_objects_are_boxes_with_names_above_them():
    found = by_namespace([BALL, BOX])
    ball, box = found['objects']
    assert (ball.type, ball.id) == (Marker.CUBE, 1)
    assert (ball.pose.position.x, ball.pose.position.y, ball.pose.position.z) == (0.1, 0.2, 1.5)
    assert (ball.scale.x, ball.scale.y, ball.scale.z) == (0.2, 0.4, 0.1)
    assert box.scale.z > 0
    name = found['names'][0]
    assert name.type == Marker.TEXT_VIEW_FACING
    assert name.text == 'red ball 1.50 m'
    # Up is -y in the optical frame.
    assert name.pose.position.y < 0.2 - 0.4 / 2
    assert name.scale.z > 0


def test_a_pair_has_one_arrow_with_its_surest_relation():
    found = by_namespace([BALL, BOX], RELATIONS)
    (arrow,), (label,) = found['relations'], found['predicates']
    assert arrow.type == Marker.ARROW
    assert [(p.x, p.y, p.z) for p in arrow.points] == [BALL.center, BOX.center]
    assert label.text == 'closer'
    assert label.pose.position.x == pytest.approx(-0.1)


def test_things_without_metres_are_not_drawn():
    flat = thing(3, 'poster', None, None, metric=False)
    unknown = thing(4, 'mug', (0, 0, 0.5), metric=False)
    related = (Relation(1, 'red ball', 'closer', 4, 'mug', math.nan, 0.9),)
    assert set(by_namespace([flat, unknown, BALL], related)) == {'objects', 'names'}
    assert by_namespace([flat, unknown]) == {}


def test_the_namespaces_are_those_that_rviz_lists():
    assert set(by_namespace([BALL, BOX], RELATIONS, 'the ball')) == set(NAMESPACES)


def test_in_another_frame_names_and_answer_stay_above_in_the_picture():
    # An upright robot's axes: x ahead, y left, z up.
    body = RigidTransform(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), np.array([0.0, 0, 1.0]))
    ball = thing(1, 'red ball', (1.5, -0.1, 0.8), (0.1, 0.2, 0.4))
    found = by_namespace([ball], answer='the ball', transform=body)
    name, answer = found['names'][0].pose.position, found['answer'][0].pose.position
    assert (name.x, name.y) == pytest.approx((1.5, -0.1))
    assert answer.z > name.z > 0.8 + 0.4 / 2
    (alone,) = by_namespace([], answer='nothing', transform=body)['answer']
    assert alone.pose.position.x == pytest.approx(1.5) and alone.pose.position.z == pytest.approx(1.4)


@pytest.mark.parametrize('objects', [[], [BALL, BOX]])
def test_the_answer_stands_above_everything(objects):
    (answer,) = by_namespace(objects, answer='the ball')['answer']
    assert answer.text == 'the ball'
    assert answer.pose.position.z > 0
    assert all(answer.pose.position.y < item.center[1] - item.size[1] / 2 for item in objects)


@pytest.mark.parametrize(('seconds', 'current'), [(0, True), (3, True), (-3, True), (8, False), (-8, False)])
def test_boxes_of_another_time_do_not_stand_beside_an_answer(seconds, current):
    asked, boxes = (Header(stamp=Time(sec=100 + later)) for later in (0, seconds))
    assert are_current(boxes, asked) is current
