"""Bad input gets an error that names the value and the remedy, and the node answers the next question."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rclpy.node import Node  # noqa: E402
from sensor_msgs.msg import Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from cooper_msgs.srv import GetRelations, Query  # noqa: E402
from cooper_ros.conversions import image_message, stamp_from_ns  # noqa: E402

QUESTION = 'Which is closer, the red ball or the blue box?'


@pytest.fixture(scope='module')
def node(start_node):
    return start_node('perception_rate:=10.0', 'max_image_age:=2.0')


@pytest.fixture(scope='module')
def probe(node, tools):
    process, probe = node
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    return probe


def query(probe, question=QUESTION, **request):
    return probe.call(Query, 'query', Query.Request(question=question, mode='direct', **request))


def status_of(probe, part, matches):
    def find(message):
        name = f'{probe.target[1:]}: {part}'
        return next((status for status in message.status if status.name == name and matches(status)), None)

    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        return find(topic.next(find, f'a {part} status'))


def test_no_camera(probe):
    for response in (query(probe), probe.call(GetRelations, 'get_relations', GetRelations.Request())):
        assert not response.success
        assert 'no camera image on /image_raw yet' in response.message
        assert 'remap image_raw' in response.message
    assert status_of(probe, 'camera', lambda status: status.level == DiagnosticStatus.STALE)


@pytest.fixture(scope='module')
def camera(probe, picture, tools):
    camera = tools.camera(probe, picture)
    tools.wait_for(lambda: query(probe).success, 'frames')
    yield camera
    camera.stop()


def shortened(image):
    image.data = image.data[:500]
    return image


def emptied(image):
    image.data = array.array('B')
    return image


def zero_sized(image):
    return Image(header=image.header, encoding='rgb8')


def unknown(image):
    image.encoding = 'rgb9000'
    return image


def narrow_step(image):
    image.step = 7
    return image


BROKEN = {
    'truncated': (shortened, 'data is truncated: 500 bytes'),
    'empty': (emptied, 'data is truncated: 0 bytes'),
    'zero-sized': (zero_sized, 'size is 0 x 0'),
    'unknown encoding': (unknown, "'rgb9000' is unknown"),
    'step below a row': (narrow_step, 'step is 7 bytes'),
}


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_camera_image(probe, node, camera, tools, kind):
    change, says = BROKEN[kind]
    with probe.collect(Image, 'depth/color') as topic:
        topic.next()
        camera.change = change
        try:
            response = tools.wait_for(
                lambda: (r if not (r := query(probe)).success and says in r.message else None), 'the error'
            )
            assert response.header.frame_id == ''
            # Continuous perception meets the same image, reports it, and goes on.
            status = status_of(probe, 'camera', lambda status: says in status.message)
            assert status.level == DiagnosticStatus.ERROR
        finally:
            camera.change = None
        tools.wait_for(lambda: query(probe).success, 'an answer')
        topic.next()
    process, _ = node
    assert says in process.text()
    for part in ('camera', 'model'):
        assert status_of(probe, part, lambda status: status.level == DiagnosticStatus.OK)


@pytest.mark.parametrize('kind', BROKEN)
def test_broken_image_of_a_request(probe, camera, picture, kind):
    change, says = BROKEN[kind]
    response = query(probe, image=change(image_message(picture, 'rgb8', Header())))
    assert not response.success
    assert says in response.message
    assert query(probe).success


@pytest.mark.parametrize('shape', [(1, 1), (1, 300), (300, 1), (3, 2)])
def test_images_of_extreme_shape_are_answered(probe, camera, shape):
    image = image_message(np.full((*shape, 3), 99, np.uint8), 'rgb8', Header())
    response = probe.call(Query, 'query', Query.Request(question=QUESTION, mode='perception', image=image))
    assert response.success, response.message
    assert (response.depth_color.height, response.depth_color.width) == shape
    assert query(probe).success


@pytest.mark.parametrize('value', [math.nan, 0.0])
def test_intrinsics_without_meaning_cost_the_metres_alone(probe, node, camera, tools, value):
    process, _ = node
    camera.k = [value] * 9
    try:
        said = f'camera_info: K has fx {value}'
        with probe.collect(PointCloud2, 'points') as clouds, probe.collect(Image, 'depth/relative') as depths:
            tools.wait_for(lambda: said in process.text(), 'the warning')
            first = depths.next()
            for _ in range(3):
                depths.next()
            later = [cloud for cloud in clouds.messages if cloud.header.stamp.sec > first.header.stamp.sec + 1]
            assert later == []
        for response in (query(probe), probe.call(GetRelations, 'get_relations', GetRelations.Request())):
            assert response.success
            assert said in response.message and 'calibrate it' in response.message
        assert process.text().count(said) == 1
    finally:
        camera.k = None
    with probe.collect(PointCloud2, 'points') as clouds:
        clouds.next()
    assert query(probe).message == ''


@pytest.mark.parametrize(
    ('question', 'says'),
    [('', 'empty'), ('   \n', 'empty'), ('why ' * 25_000, '(99999 characters), at most')],
    ids=['empty', 'blank', '100 kB'],
)
def test_questions_that_cannot_be_answered(probe, camera, question, says):
    response = query(probe, question)
    assert not response.success
    assert says in response.message
    assert len(response.message) < 1000
    assert query(probe).success


def test_unknown_mode(probe, camera):
    response = probe.call(Query, 'query', Query.Request(question=QUESTION, mode='guess'))
    assert not response.success
    assert "'guess'" in response.message and 'perception' in response.message
    assert query(probe).success


def test_a_camera_that_stopped(probe, camera, tools):
    camera.change = lambda image: None
    try:
        response = tools.wait_for(lambda: (r if not (r := query(probe)).success else None), 'the error')
        assert 's old, more than max_image_age 2 s' in response.message
        relations = probe.call(GetRelations, 'get_relations', GetRelations.Request())
        assert not relations.success and 'max_image_age' in relations.message
        own = image_message(np.zeros((40, 50, 3), np.uint8), 'rgb8', Header())
        assert query(probe, image=own).success
    finally:
        camera.change = None
    tools.wait_for(lambda: query(probe).success, 'an answer')


def test_two_nodes_of_one_name_are_noticed_and_named(probe, camera):
    other = Node('cooper', context=probe.context)
    try:
        status = status_of(probe, 'node', lambda status: status.level == DiagnosticStatus.WARN)
        assert 'another node is called /cooper' in status.message and '__node:=NAME' in status.message
    finally:
        other.destroy_node()
    assert status_of(probe, 'node', lambda status: status.level == DiagnosticStatus.OK)


@pytest.mark.parametrize(
    ('stamp_of', 'level', 'told'),
    [
        (lambda now: now + 60, DiagnosticStatus.WARN, 'before their stamps'),
        (lambda now: now + 90_000, DiagnosticStatus.WARN, 'before their stamps'),  # no recording is of tomorrow
        (lambda now: 5, DiagnosticStatus.WARN, 'after their stamps'),  # of a simulation, or of a clock never set
        (lambda now: now - 90_000, DiagnosticStatus.OK, 'of a recording'),
    ],
)
def test_stamps_of_another_clock_are_noticed_and_named(probe, camera, stamp_of, level, told):
    def shifted(image):
        image.header.stamp.sec = stamp_of(image.header.stamp.sec)
        return image

    camera.change = shifted
    try:
        status = status_of(probe, 'camera', lambda status: told in status.message)
        assert status.level == level
        assert ('synchronise the clocks' in status.message) == (level == DiagnosticStatus.WARN)
    finally:
        camera.change = None
    assert status_of(probe, 'camera', lambda status: status.message == 'images arrive')


def test_depth_in_the_wrong_unit_is_noticed_and_named(probe, node, camera, tools):
    process, _ = node
    publisher = probe.node.create_publisher(Image, '/depth_registered/image_rect', 1)
    try:
        tools.wait_for(lambda: publisher.get_subscription_count() > 0, 'the subscription')

        def told():
            measured = image_message(np.full(tools.size, 1500.0), '32FC1', Header())
            measured.header.stamp = stamp_from_ns(next(reversed(camera.sent)))  # the last, whatever clocks came before
            publisher.publish(measured)
            return query(probe).success and 'depth declared 32FC1' in process.text()

        tools.wait_for(told, 'the warning')
        assert 'median of 1500: read as millimetres' in process.text()
    finally:
        probe.node.destroy_publisher(publisher)


def test_nothing_was_lost_on_the_way(probe, node, camera):
    process, _ = node
    assert process.running
    assert 'Traceback' not in process.text()
    assert probe.state() == 'active'


def test_a_folder_that_is_no_checkpoint(start_node, camera, tmp_path, random_checkpoint, tools):
    process, probe = start_node(checkpoint=tmp_path, name='lost')
    tools.wait_for(lambda: str(tmp_path) in process.text(), 'the error')
    assert probe.state() == 'unconfigured'
    response = query(probe)
    assert not response.success and 'not active' in response.message
    status = status_of(probe, 'model', lambda status: 'could not be loaded' in status.message)
    assert status.level == DiagnosticStatus.ERROR
    assert str(tmp_path) in status.message
    # The remedy needs no restart.
    assert probe.set_parameters(checkpoint=str(random_checkpoint))[0].successful
    assert probe.change_state('configure') and probe.change_state('activate')
    tools.wait_for(lambda: query(probe).success, 'an answer')
