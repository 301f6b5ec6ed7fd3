"""``target_frame`` with a real node and real transforms: none, a rotated camera on a moving mast, late ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason='needs tf2_msgs; run tools/build_interfaces.py')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from geometry_msgs.msg import Quaternion, TransformStamped, Vector3  # noqa: E402
from rclpy.qos import DurabilityPolicy, QoSProfile  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from visualization_msgs.msg import MarkerArray  # noqa: E402

from cooper_model.geometry import unproject  # noqa: E402
from cooper_model.types import CameraIntrinsics  # noqa: E402
from cooper_msgs.msg import QueryRecord, SceneGraph  # noqa: E402
from cooper_msgs.srv import GetRelations, Query  # noqa: E402
from cooper_ros.conversions import stamp_from_ns, stamp_to_ns  # noqa: E402

OPTICAL, MAST, TARGET = 'camera_optical_frame', 'mast', 'base_link'
LATE = 0.1
SPEED = 0.5
# A camera that looks forward and 30 degrees down: optical axes in those of the mast (x ahead, y left, z up).
TILT = math.radians(30)
ROTATION = np.array([[0, -math.sin(TILT), math.cos(TILT)], [-1, 0, 0], [0, -math.cos(TILT), -math.sin(TILT)]])
HEIGHT = 1.2


def quaternion(matrix):
    w = math.sqrt(1 + np.trace(matrix)) / 2
    x, y, z = (matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0], matrix[1, 0] - matrix[0, 1])
    return Quaternion(x=x / (4 * w), y=y / (4 * w), z=z / (4 * w), w=w)


def stamped(parent, child, stamp_ns, translation, rotation):
    found = TransformStamped(child_frame_id=child)
    found.header.frame_id, found.header.stamp = parent, stamp_from_ns(stamp_ns)
    found.transform.translation = Vector3(**dict(zip('xyz', map(float, translation), strict=True)))
    found.transform.rotation = rotation
    return tf2_msgs.TFMessage(transforms=[found])


def moved(stamp_ns):
    """Return how far the mast has gone at a time [m]; a metre is enough to tell any two times apart."""
    return (stamp_ns / 1e9 % 100) * SPEED


@pytest.fixture(scope='module')
def probe(start_node, picture, tools):
    process, probe = start_node('perception_rate:=10.0', f'target_frame:={TARGET}')
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    camera = tools.camera(probe, picture)
    tools.wait_for(lambda: probe.call(Query, 'query', Query.Request(question='?', mode='direct')).success, 'frames')
    probe.process = process
    yield probe
    camera.stop()


@pytest.fixture(scope='module')
def transforms(probe):
    """Publish a static transform, and a moving one that comes late."""
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    fixed = probe.node.create_publisher(tf2_msgs.TFMessage, '/tf_static', latched)
    fixed.publish(stamped(MAST, OPTICAL, 0, (0, 0, HEIGHT), quaternion(ROTATION)))
    moving = probe.node.create_publisher(tf2_msgs.TFMessage, '/tf', QoSProfile(depth=100))
    upright = Quaternion(w=1.0)

    def tick():
        stamp = probe.node.get_clock().now().nanoseconds - round(LATE * 1e9)
        moving.publish(stamped(TARGET, MAST, stamp, (moved(stamp), 0, 0), upright))

    timer = probe.node.create_timer(0.02, tick)
    yield
    probe.node.destroy_timer(timer)
    for publisher in (fixed, moving):
        probe.node.destroy_publisher(publisher)


def node_status(probe, matches):
    def find(message):
        return next((s for s in message.status if s.name == 'cooper: node' and matches(s)), None)

    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        return find(topic.next(find, 'a status of the node'))


def test_without_a_transform_geometry_stays_in_the_optical_frame_and_the_node_says_so(probe):
    with probe.collect(SceneGraph, 'scene') as scenes, probe.collect(PointCloud2, 'points') as clouds:
        assert scenes.next().header.frame_id == OPTICAL
        assert clouds.next().header.frame_id == OPTICAL
    response = probe.call(GetRelations, 'get_relations', GetRelations.Request())
    assert response.success and response.header.frame_id == OPTICAL
    status = node_status(probe, lambda status: 'no transform' in status.message)
    assert status.level == DiagnosticStatus.WARN
    for part in (OPTICAL, TARGET, 'nothing on /tf and /tf_static connects'):
        assert part in status.message
    assert probe.process.text().count('no transform from') < 10


def cloud_points(cloud):
    kind = np.dtype({'names': ['x', 'y', 'z'], 'formats': ['<f4'] * 3, 'offsets': [0, 4, 8], 'itemsize': 16})
    values = np.frombuffer(cloud.data, kind).reshape(cloud.height, cloud.width)
    return np.stack([values['x'], values['y'], values['z']], axis=-1)


def in_target(points, stamp_ns):
    """Return optical points in the target frame, by the transforms that were published."""
    return points @ ROTATION.T + np.array((moved(stamp_ns), 0, HEIGHT))


def matching(tools, ones, others, frame_id):
    """Return two messages of one stamp, the first in a frame."""

    def pair():
        stamps = {stamp_to_ns(m.header.stamp): m for m in list(others.messages)}
        placed = [m for m in list(ones.messages) if m.header.frame_id == frame_id]
        return next(((m, stamps[s]) for m in placed if (s := stamp_to_ns(m.header.stamp)) in stamps), None)

    return tools.wait_for(pair, f'two messages of one stamp, one in {frame_id}')


def test_points_stand_where_the_moving_rotated_camera_was_at_the_image_s_stamp(probe, transforms, tools):
    with probe.collect(PointCloud2, 'points') as clouds, probe.collect(Image, 'depth/image') as depths:
        cloud, depth = matching(tools, clouds, depths, TARGET)
    assert depth.header.frame_id == OPTICAL
    height, width = tools.size
    metres = np.frombuffer(depth.data, '<f4').reshape(height, width)
    optical = unproject(metres, CameraIntrinsics.from_vertical_fov(55, width, height))
    expected = in_target(optical, stamp_to_ns(cloud.header.stamp))
    np.testing.assert_allclose(cloud_points(cloud), expected, atol=2e-3)


def test_scene_markers_and_relations_of_one_image_stand_in_one_frame(probe, transforms, tools):
    with probe.collect(SceneGraph, 'scene') as scenes, probe.collect(MarkerArray, 'markers') as arrays:
        scene = scenes.next(lambda message: message.header.frame_id == TARGET and message.objects)
        stamp = scene.header.stamp
        array = arrays.wait(lambda message: message.markers[0].header.stamp == stamp)
    assert {marker.header.frame_id for marker in array.markers} == {TARGET}
    boxes = {marker.id: marker for marker in array.markers if marker.ns == 'objects'}
    for item in scene.objects:
        if math.isnan(item.center.x):
            continue
        place = boxes[item.id].pose.position
        assert (place.x, place.y, place.z) == (item.center.x, item.center.y, item.center.z)
        # What is 0..5 m before a camera that looks down from a mast is ahead of the mast, and not far above it.
        assert item.center.x > moved(stamp_to_ns(stamp)) - 0.5
        assert item.center.z < HEIGHT + 5
    for relation in scene.relations:
        assert relation.subject_evidence.pixels > 0
        assert 0 <= relation.subject_evidence.x < tools.size[1]


def test_answers_and_relations_by_request_carry_the_frame_of_their_objects(probe, transforms, tools):
    def asked():
        request = Query.Request(question='How far away is the ball?', mode='perception')
        response = probe.call(Query, 'query', request)
        return response if response.success and response.header.frame_id == TARGET else None

    with probe.collect(QueryRecord, 'answers') as records:
        response = tools.wait_for(asked, f'an answer in {TARGET}')
        record = records.wait(lambda message: message.query_id == response.query_id)
    assert response.depth_color.header.frame_id == OPTICAL
    assert (record.header, record.objects) == (response.header, response.objects)
    assert (record.answer, record.question) == (response.answer, 'How far away is the ball?')

    def related():
        response = probe.call(GetRelations, 'get_relations', GetRelations.Request())
        return response.success and response.header.frame_id == TARGET

    # On a machine that is busy a transform may come later than it is waited for.
    tools.wait_for(related, f'relations in {TARGET}')
    direct = probe.call(Query, 'query', Query.Request(question='How many?', mode='direct'))
    assert direct.success and not direct.objects and direct.header.frame_id == OPTICAL


def test_the_warning_ends_with_its_reason(probe, transforms):
    status = node_status(probe, lambda status: status.level == DiagnosticStatus.OK)
    assert {item.key for item in status.values} >= {'others of this name', 'memory [MB]'}
    assert 'Traceback' not in probe.process.text()
