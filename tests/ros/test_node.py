"""Each row of the ROS interface, through real DDS: the node in its own process, the client in this one."""

from __future__ import annotations

import array

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from action_msgs.msg import GoalStatus  # noqa: E402
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from rcl_interfaces.srv import GetParameters  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, PointCloud2  # noqa: E402
from std_msgs.msg import Header  # noqa: E402
from std_srvs.srv import SetBool  # noqa: E402
from visualization_msgs.msg import Marker, MarkerArray  # noqa: E402

from cooper_model.geometry import PREDICATES  # noqa: E402
from cooper_model.types import CameraIntrinsics  # noqa: E402
from cooper_msgs.action import Ask  # noqa: E402
from cooper_msgs.msg import SceneGraph  # noqa: E402
from cooper_msgs.srv import GetRelations, Query  # noqa: E402
from cooper_ros.conversions import image_message, stamp_from_ns, stamp_to_ns  # noqa: E402
from cooper_ros.readings import intrinsics_from_message  # noqa: E402

QUESTION = 'Which is closer, the red ball or the blue box?'
NEAR, FAR = 0.0, 5.0


@pytest.fixture(scope='module')
def node(start_node):
    return start_node('perception_rate:=10.0', 'query_timeout:=50.0')


@pytest.fixture(scope='module')
def probe(node, tools):
    process, probe = node
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    return probe


@pytest.fixture(scope='module')
def camera(probe, picture, tools):
    camera = tools.camera(probe, picture)
    tools.wait_for(lambda: query(probe, mode='direct').success, 'frames')
    yield camera
    camera.stop()


@pytest.fixture(scope='module')
def action(probe):
    client = ActionClient(probe.node, Ask, f'{probe.target}/ask')
    assert client.wait_for_server(30)
    yield client
    client.destroy()


@pytest.fixture
def slow(probe):
    """Make each map take many steps, so that there is time to do something meanwhile."""
    names = ('sampler__num_timesteps', 'sampler__image_scale', 'sampler__text_scale')
    for result in probe.set_parameters(**dict(zip(names, (1000, 2.0, 4.0), strict=True))):
        assert result.successful, result.reason
    yield
    for result in probe.set_parameters(**dict(zip(names, (0, 0.0, 0.0), strict=True))):
        assert result.successful, result.reason


def query(probe, **request):
    return probe.call(Query, 'query', Query.Request(question=QUESTION, **request))


def pixels(image, dtype):
    return np.frombuffer(image.data, dtype).reshape(image.height, image.width, -1).squeeze()


# Topics

IMAGES = {
    'depth/image': ('32FC1', '<f4'),
    'depth/relative': ('32FC1', '<f4'),
    'depth/color': ('rgb8', 'u1'),
    'segmentation/mask': ('mono8', 'u1'),
    'segmentation/instances': ('mono16', '<u2'),
    'segmentation/overlay': ('rgb8', 'u1'),
    'segmentation/confidence': ('mono8', 'u1'),
}


@pytest.mark.parametrize('name', IMAGES)
def test_images_have_the_size_and_the_header_of_the_input(probe, camera, tools, name):
    encoding, dtype = IMAGES[name]
    with probe.collect(Image, name) as topic:
        image = topic.next()
    assert (image.height, image.width) == tools.size
    assert image.encoding == encoding
    assert image.step * image.height == len(image.data)
    assert image.header.frame_id == 'camera_optical_frame'
    assert stamp_to_ns(image.header.stamp) in camera.sent
    values = pixels(image, dtype)
    if name == 'depth/image':
        valid = values[np.isfinite(values)]
        assert valid.size and valid.min() >= NEAR and valid.max() <= FAR
    if name == 'depth/relative':
        assert 0 <= values.min() <= values.max() <= 1


def test_mask_and_instances_of_one_frame_agree(probe, camera, tools):
    with probe.collect(Image, 'segmentation/mask') as masks, probe.collect(Image, 'segmentation/instances') as others:

        def pair():
            stamps = {stamp_to_ns(m.header.stamp): m for m in list(others.messages)}
            found = [(m, stamps.get(stamp_to_ns(m.header.stamp))) for m in list(masks.messages)]
            return next(((mask, other) for mask, other in found if other is not None), None)

        mask, instances = tools.wait_for(pair, 'a mask and instances with one stamp')
    np.testing.assert_array_equal(pixels(mask, 'u1') == 255, pixels(instances, '<u2') == 0)


def test_depth_has_the_camera_info_of_the_input(probe, camera, tools):
    height, width = tools.size
    with probe.collect(CameraInfo, 'depth/camera_info') as topic:
        info = topic.next()
    expected = CameraIntrinsics.from_vertical_fov(55, width, height)
    assert intrinsics_from_message(info, width, height) == expected
    assert stamp_to_ns(info.header.stamp) in camera.sent


def test_points_are_organised_coloured_metric_and_aligned_with_the_depth(probe, camera, picture, tools):
    height, width = tools.size
    with probe.collect(PointCloud2, 'points') as clouds, probe.collect(Image, 'depth/image') as depths:

        def pair():
            stamps = {stamp_to_ns(m.header.stamp): m for m in list(depths.messages)}
            found = [(m, stamps.get(stamp_to_ns(m.header.stamp))) for m in list(clouds.messages)]
            return next(((cloud, depth) for cloud, depth in found if depth is not None), None)

        cloud, depth = tools.wait_for(pair, 'a cloud and depth with one stamp')
    assert cloud.header == depth.header
    assert (cloud.height, cloud.width, cloud.is_dense) == (height, width, False)
    fields = np.dtype({'names': ['x', 'y', 'z', 'rgb'], 'formats': ['<f4', '<f4', '<f4', '<u4'],
                       'offsets': [f.offset for f in cloud.fields], 'itemsize': cloud.point_step})
    points = np.frombuffer(cloud.data, fields).reshape(height, width)
    metres = pixels(depth, '<f4')
    valid = np.isfinite(metres) & (metres > 0)
    np.testing.assert_allclose(points['z'][valid], metres[valid])
    assert np.isnan(points['z'][~valid]).all()
    lens = CameraIntrinsics.from_vertical_fov(55, width, height)
    columns = np.broadcast_to(np.arange(width), (height, width))
    u = points['x'][valid] / points['z'][valid] * lens.fx + lens.cx
    np.testing.assert_allclose(u, columns[valid], atol=1e-2)
    np.testing.assert_array_equal(points['rgb'] >> 16 & 255, picture[..., 0])


def test_markers_begin_by_deleting_the_old_ones_and_show_the_last_answer(probe, camera):
    with probe.collect(MarkerArray, 'markers') as topic:
        answer = query(probe, mode='direct')
        array_ = topic.next(lambda message: any(marker.ns == 'answer' for marker in message.markers))
    assert array_.markers[0].action == Marker.DELETEALL
    assert {marker.header.frame_id for marker in array_.markers} == {'camera_optical_frame'}
    assert [marker.text for marker in array_.markers if marker.ns == 'answer'] == [answer.answer]
    keys = [(marker.ns, marker.id) for marker in array_.markers[1:]]
    assert len(keys) == len(set(keys))


def test_scene_names_objects_and_relations_between_them(probe, camera):
    with probe.collect(SceneGraph, 'scene') as topic:
        scene = topic.next()
    assert stamp_to_ns(scene.header.stamp) in camera.sent
    names = {item.id: item.name for item in scene.objects}
    for relation in scene.relations:
        assert names[relation.subject_id] == relation.subject
        assert names[relation.object_id] == relation.object
        assert relation.predicate in PREDICATES
        assert 0 < relation.confidence <= 1


def test_a_depth_image_of_the_robot_is_accepted(probe, camera, tools):
    publisher = probe.node.create_publisher(Image, '/depth_registered/image_rect', 1)
    try:
        tools.wait_for(lambda: publisher.get_subscription_count() > 0, 'the subscription')
        measured = image_message(np.full(tools.size, 2000, np.uint16), '16UC1', Header())
        measured.header.stamp = stamp_from_ns(max(camera.sent))
        publisher.publish(measured)
        assert query(probe, mode='direct').success
    finally:
        probe.node.destroy_publisher(publisher)


def test_diagnostics_tell_of_camera_and_model(probe, camera):
    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        message = topic.next(lambda message: any('cooper: camera' in status.name for status in message.status))
    status = {status.name.split(': ')[1]: status for status in message.status}
    assert set(status) == {'node', 'camera', 'model', 'recording'}
    assert status['camera'].level == DiagnosticStatus.OK, status['camera'].message
    values = {item.key: item.value for name in ('camera', 'model') for item in status[name].values}
    received, used, dropped = (int(values[key]) for key in ('received', 'used', 'dropped'))
    assert received > 0
    assert 0 <= received - used - dropped <= 1
    assert int(values['answered']) > 0
    parts = ('waiting', 'depth', 'segmentation', 'publishing')
    assert all(float(values[f'last perception: {part} [s]']) >= 0 for part in parts)
    assert any(key.startswith('last answer: ') for key in values)
    assert abs(float(values['from stamp to arrival [s]'])) < 60
    node = {item.key: item.value for item in status['node'].values}
    assert int(node['memory [MB]']) > 10
    assert node['others of this name'] == '0'


# Questions

@pytest.mark.parametrize('mode', ['', 'auto', 'direct', 'text', 'perception'])
def test_query_answers_in_every_mode(probe, camera, tools, mode):
    response = query(probe, mode=mode, choices=['red ball', 'blue box'])
    assert response.success, response.message
    assert response.message == ''
    assert len(response.query_id) == 32
    assert stamp_to_ns(response.header.stamp) in camera.sent
    assert 0 <= response.confidence <= 1
    if mode == 'perception':
        for image in (response.depth_color, response.segmentation):
            assert (image.height, image.width) == tools.size
            assert image.encoding == 'rgb8'
            assert image.header == response.header
    if mode in ('direct', 'text'):
        assert response.depth_color.width == response.segmentation.width == 0


def test_a_stamp_names_a_recent_frame(probe, camera, tools):
    before = len(camera.sent)
    tools.wait_for(lambda: len(camera.sent) > before + 5, 'some frames')
    wanted = sorted(camera.sent)[-4]
    response = query(probe, mode='direct', stamp=stamp_from_ns(wanted + 1000))
    assert response.success, response.message
    assert stamp_to_ns(response.header.stamp) == wanted


def test_a_stamp_without_a_frame_says_how_far_off_it_is(probe, camera):
    response = query(probe, mode='direct', stamp=stamp_from_ns(max(camera.sent) + 100 * 10**9))
    assert not response.success
    assert 'the nearest of the last' in response.message and ' s before it' in response.message


def test_a_question_may_bring_its_own_image(probe, camera):
    own = image_message(np.full((45, 61, 3), 90, np.uint8), 'rgb8', Header(frame_id='album'))
    own.header.stamp = stamp_from_ns(12_345_678_901)
    response = query(probe, mode='perception', image=own)
    assert response.success, response.message
    assert response.header == own.header
    assert (response.depth_color.height, response.depth_color.width) == (45, 61)


def padded(pixels, encoding):
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, 13)))
    image = Image(encoding=encoding, height=pixels.shape[0], width=pixels.shape[1], step=rows.shape[1])
    image.data = array.array('B', rows.tobytes())
    return image


def test_one_picture_in_any_encoding_gives_one_answer(probe, camera, picture):
    opaque = np.full((*picture.shape[:2], 1), 255, np.uint8)
    forms = {
        'rgb8': picture,
        'bgr8': picture[..., ::-1],
        '8UC3': picture[..., ::-1],
        'rgba8': np.dstack([picture, opaque]),
        'bgra8': np.dstack([picture[..., ::-1], opaque]),
    }
    responses = [query(probe, mode='perception', image=padded(form, encoding)) for encoding, form in forms.items()]
    assert all(response.success for response in responses)
    assert len({response.answer for response in responses}) == 1
    assert len({response.depth_color.data.tobytes() for response in responses}) == 1


def ask(probe, action, mode='perception', feedback=None):
    goal = probe.wait(
        action.send_goal_async(Ask.Goal(question=QUESTION, mode=mode), feedback_callback=feedback), 'goal response'
    )
    assert goal.accepted
    return goal


def test_ask_streams_stages_and_images_before_its_result(probe, camera, action, tools):
    heard = []
    goal = ask(probe, action, feedback=lambda message: heard.append(message.feedback))
    outcome = probe.wait(goal.get_result_async(), 'result')
    assert outcome.status == GoalStatus.STATUS_SUCCEEDED
    assert outcome.result.success, outcome.result.message
    tools.wait_for(lambda: any(feedback.stage == 'answer' for feedback in heard), 'the last feedback')
    images = [feedback.stage for feedback in heard if feedback.image.width]
    assert images == ['depth', 'segmentation']
    assert all((f.image.height, f.image.width) == tools.size for f in heard if f.image.width)
    assert [f.text for f in heard if f.stage == 'answer'] == [outcome.result.answer]
    assert outcome.result.depth_color.data == next(f.image.data for f in heard if f.image.width)


def test_ask_ends_within_a_model_step_when_cancelled(probe, camera, action, slow, tools):
    heard = []
    goal = ask(probe, action, feedback=lambda message: heard.append(message.feedback))
    tools.wait_for(lambda: any(feedback.stage == 'depth' for feedback in heard), 'the first map to begin')
    cancelled = probe.wait(goal.cancel_goal_async(), 'cancel response')
    assert len(cancelled.goals_canceling) == 1
    outcome = probe.wait(goal.get_result_async(), 'result')
    assert outcome.status == GoalStatus.STATUS_CANCELED
    assert not outcome.result.success
    # The map that had begun was not finished.
    assert not any(feedback.image.width for feedback in heard)
    assert query(probe, mode='direct').success


def test_the_node_answers_others_while_a_question_runs(probe, camera, action, slow):
    goal = ask(probe, action)
    running = goal.get_result_async()
    values = probe.call(GetParameters, 'get_parameters', GetParameters.Request(names=['seed'])).values
    assert values[0].integer_value == 0
    assert probe.call(SetBool, 'enable', SetBool.Request(data=True)).success
    assert not running.done()
    probe.wait(goal.cancel_goal_async(), 'cancel response')
    assert probe.wait(running, 'result').status == GoalStatus.STATUS_CANCELED


def test_goals_wait_for_their_turn_and_too_many_are_told_busy(probe, camera, action, slow, tools):
    goal = Ask.Goal(question=QUESTION, mode='perception')
    sent = [action.send_goal_async(goal) for _ in range(9)]
    goals = [probe.wait(future, 'goal response') for future in sent]
    assert all(goal.accepted for goal in goals)
    results = [goal.get_result_async() for goal in goals]
    refused = tools.wait_for(lambda: next((r for r in results if r.done()), None), 'one goal to end').result()
    assert refused.status == GoalStatus.STATUS_ABORTED
    assert refused.result.message.startswith('busy: 8 questions')
    busy = query(probe, mode='direct')
    assert not busy.success and 'busy' in busy.message
    for goal in goals:
        probe.wait(goal.cancel_goal_async(), 'cancel response')
    ends = sorted(probe.wait(result, 'result').status for result in results)
    assert ends == [GoalStatus.STATUS_CANCELED] * 8 + [GoalStatus.STATUS_ABORTED]
    assert query(probe, mode='direct').success


def test_goals_at_the_same_time_all_get_an_answer(probe, camera, action):
    results = [ask(probe, action).get_result_async() for _ in range(3)]
    outcomes = [probe.wait(result, 'result') for result in results]
    assert [outcome.status for outcome in outcomes] == [GoalStatus.STATUS_SUCCEEDED] * 3
    assert len({outcome.result.query_id for outcome in outcomes}) == 3


def test_relations_are_filtered(probe, camera, tools):
    def relations(**request):
        response = probe.call(GetRelations, 'get_relations', GetRelations.Request(**request))
        assert response.success, response.message
        return response

    # Without new frames every call speaks of the same one.
    camera.change = lambda image: None
    try:
        everything = tools.wait_for(
            lambda: (first := relations()).header == (second := relations()).header
            and first.relations == second.relations and second, 'the last frame to be perceived'
        )  # fmt: skip
        assert stamp_to_ns(everything.header.stamp) in camera.sent
        for field in ('subject', 'predicate', 'object'):
            for wanted in {getattr(relation, field) for relation in everything.relations}:
                expected = [r for r in everything.relations if getattr(r, field) == wanted]
                found = relations(**{field: wanted})
                assert [r for r in found.relations if getattr(r, field) == wanted] == expected
                ids = {each for r in found.relations for each in (r.subject_id, r.object_id)}
                assert {item.id for item in found.objects} == ids
        assert relations(subject='unicorn').relations == []
    finally:
        camera.change = None


def test_relations_are_perceived_on_demand(probe, camera):
    assert probe.set_parameters(perception_rate=0.0)[0].successful
    try:
        newest = max(camera.sent)
        response = probe.call(GetRelations, 'get_relations', GetRelations.Request())
        assert response.success, response.message
        assert stamp_to_ns(response.header.stamp) >= newest - 10**9
    finally:
        assert probe.set_parameters(perception_rate=10.0)[0].successful


def test_maps_made_for_a_question_or_on_demand_are_published(probe, camera, tools):
    assert probe.set_parameters(perception_rate=0.0)[0].successful
    try:
        # What is still perceived of an earlier image would serve, and was published before anybody listens here.
        before = len(camera.sent)
        tools.wait_for(lambda: len(camera.sent) > before + 5, 'newer images')
        with probe.collect(Image, 'depth/color') as colours, probe.collect(SceneGraph, 'scene') as scenes:
            response = query(probe, mode='perception')
            published = colours.wait(lambda image: image.header == response.header)
            assert published.data == response.depth_color.data
            relations = probe.call(GetRelations, 'get_relations', GetRelations.Request())
            # Of the same image there may be the scene of the question, too, whose maps are others.
            scene = scenes.wait(
                lambda scene: scene.header == relations.header and scene.objects == relations.objects
            )
            assert scene.relations == relations.relations
    finally:
        assert probe.set_parameters(perception_rate=10.0)[0].successful


def test_enable_stops_and_resumes_perception_but_not_questions(probe, camera, tools):
    with probe.collect(Image, 'depth/color') as topic:
        topic.next()
        assert probe.call(SetBool, 'enable', SetBool.Request(data=False)).success
        # What was under way when it was stopped may still come.
        after = max(camera.sent)
        tools.wait_for(lambda: len([s for s in camera.sent if s > after]) > 8, 'further frames')
        assert query(probe, mode='direct').success
        late = [m for m in topic.messages if stamp_to_ns(m.header.stamp) > after + 3 * 10**8]
        assert late == []
        assert probe.call(SetBool, 'enable', SetBool.Request(data=True)).success
        topic.next()


# Lifecycle

def test_an_inactive_node_says_so_and_works_again_when_activated(probe, camera, action, tools):
    assert probe.change_state('deactivate')
    try:
        response = query(probe, mode='direct')
        assert not response.success
        assert 'not active' in response.message and 'ros2 lifecycle set' in response.message
        goal = probe.wait(action.send_goal_async(Ask.Goal(question=QUESTION)), 'goal response')
        assert not goal.accepted
        relations = probe.call(GetRelations, 'get_relations', GetRelations.Request())
        assert not relations.success and 'not active' in relations.message
    finally:
        assert probe.change_state('activate')
    tools.wait_for(lambda: query(probe, mode='direct').success, 'frames')


def test_compressed_images_after_reconfiguring(probe, camera, picture, tools):
    from sensor_msgs.msg import CompressedImage

    assert probe.change_state('deactivate') and probe.change_state('cleanup')
    assert probe.state() == 'unconfigured'
    assert probe.set_parameters(image_transport='compressed')[0].successful
    assert probe.change_state('configure') and probe.change_state('activate')
    publisher = probe.node.create_publisher(CompressedImage, '/image_raw/compressed', 1)
    try:
        tools.wait_for(lambda: publisher.get_subscription_count() > 0, 'the subscription')
        assert 'image_raw/compressed' in query(probe, mode='direct').message
        _, data = cv2.imencode('.jpg', picture[..., ::-1])
        message = CompressedImage(format='jpeg', data=array.array('B', data.tobytes()))
        message.header = Header(stamp=stamp_from_ns(77 * 10**9), frame_id='camera_optical_frame')

        def answered():
            publisher.publish(message)
            response = query(probe, mode='direct')
            return response.success and response

        assert tools.wait_for(answered, 'an answer').header == message.header
    finally:
        probe.node.destroy_publisher(publisher)
        assert probe.change_state('deactivate') and probe.change_state('cleanup')
        assert probe.set_parameters(image_transport='raw')[0].successful
        assert probe.change_state('configure') and probe.change_state('activate')


def test_the_node_ends_cleanly(node, probe, camera):
    process, _ = node
    assert process.stop() == 0, process.text()
    assert 'Traceback' not in process.text()
