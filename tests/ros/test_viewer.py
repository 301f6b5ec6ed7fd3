"""The Rerun viewer beside a real node and camera: what it saved is read back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rerun', reason='needs rerun-sdk')

import rerun as rr  # noqa: E402
from rclpy.action import ActionClient  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from cooper_model.placement import RigidTransform  # noqa: E402
from cooper_msgs.action import Ask  # noqa: E402
from cooper_msgs.msg import QueryRecord, SceneGraph, SceneObject  # noqa: E402
from cooper_msgs.srv import Query  # noqa: E402
from cooper_ros.conversions import image_message, point_cloud_message, stamp_from_ns  # noqa: E402
from cooper_ros.processes import RosProcess  # noqa: E402
from cooper_ros.rerun_view import RerunView, blueprint  # noqa: E402
from tests.ros.rrd import Recording  # noqa: E402

QUESTION = 'How far away is the red ball?'
MODULE = 'cooper_ros.viewer'
SHOWN = {
    'world/camera', 'world/camera/image', 'world/camera/depth', 'world/camera/instances', 'depth/color',
    'segmentation/overlay', 'world/points', 'world/objects', 'world/relations', 'world/answer', 'answer',
}  # fmt: skip


@pytest.fixture(scope='module')
def run(start_node, picture, tools, tmp_path_factory):
    """Ask a node by action and by service with the viewer beside; return the recording and what was sent and said."""
    folder = tmp_path_factory.mktemp('viewer')
    process, probe = start_node('perception_rate:=5.0')
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    path = folder / 'live.rrd'
    viewer = RosProcess(MODULE, {'save': str(path), 'show': 'none'}, folder / 'viewer.log')
    with viewer:
        camera = tools.camera(probe, picture)
        client = ActionClient(probe.node, Ask, f'{probe.target}/ask')
        assert client.wait_for_server(60)

        def ask(question, mode):
            viewer.require_alive()
            goal = probe.wait(client.send_goal_async(Ask.Goal(question=question, mode=mode)), 'goal response')
            return probe.wait(goal.get_result_async(), 'result').result

        def written(names):
            # Names of entities stand in the file as they are, long before it is complete.
            content = path.read_bytes() if path.is_file() else b''
            return all(name.encode() in content for name in names)

        # What is said before the viewer listens is not repeated for it: it has to hear of both ways of being told.
        tools.wait_for(
            lambda: ask('Is it there?', 'direct').success and written(('thoughts/answer', 'thinking')), 'the viewer'
        )
        result = ask(QUESTION, 'perception')

        def told():
            refused = probe.call(Query, 'query', Query.Request(question='', mode='direct'))
            return refused if written(('thoughts/failure', *SHOWN)) else None

        refused = tools.wait_for(told, 'the last words to be written')
        camera.stop()
        assert viewer.stop() == 0, viewer.tail()
    client.destroy()
    return Recording(path), set(camera.sent), result, refused


def test_everything_that_rviz_shows_is_there_on_the_time_line_of_the_images(run):
    recording, sent, _, _ = run
    assert set(recording.tables) >= SHOWN
    for entity in SHOWN:
        assert recording.stamps(entity) <= sent, entity
    assert len(recording.stamps('world/camera/image')) > 1
    assert len(recording.reader.blueprints()) == 1


def test_points_are_in_metres_and_coloured(run):
    recording, _, _, _ = run
    for points in recording.values('world/points', 'Points3D:positions'):
        points = np.array(points)
        assert 0 < len(points) <= 40_000
        assert np.isfinite(points).all() and points[:, 2].min() > 0 and points[:, 2].max() <= 5
    assert all(recording.values('world/points', 'Points3D:colors'))


def test_boxes_have_names_and_arrows_lead_from_box_to_box(run):
    recording, _, _, _ = run
    shown = [labels for labels in recording.values('world/objects', 'Boxes3D:labels') if labels]
    assert shown and all(name for labels in shown for name in labels)
    centers = recording.values('world/objects', 'Boxes3D:centers')
    origins = recording.values('world/relations', 'Arrows3D:origins')
    known = {tuple(center) for frame in centers if frame for center in frame}
    assert {tuple(origin) for frame in origins if frame for origin in frame} <= known


def test_thoughts_and_the_answer_are_a_log(run):
    recording, _, result, _ = run
    assert result.success
    assert QUESTION in recording.texts('thoughts/question')
    assert result.answer in recording.texts('thoughts/answer')
    logged = recording.texts('thoughts/thought')
    assert [thought.strip() for thought in result.thoughts if thought.strip()] == [text for text in logged if text]
    documents = [text for [text] in recording.values('answer', 'TextDocument:text')]
    assert any(QUESTION in text and result.answer in text for text in documents)
    # The stream while it happened, from the feedback of the action.
    streamed = [text for [text] in recording.values('thinking', 'TextDocument:text')]
    assert any('*depth*' in text for text in streamed) and any('*segmentation*' in text for text in streamed)


def test_a_question_that_failed_is_logged_as_such(run):
    recording, _, _, refused = run
    assert not refused.success
    assert f'no answer: {refused.message}' in recording.texts('thoughts/failure')


STAMPS = (1_700_000_000_123_456_789, 1_700_000_001_000_000_001)


def write_camera(stream, camera=''):
    """Write two moments of a camera, the second without objects."""
    view = RerunView(stream, camera)
    for stamp_ns in STAMPS:
        header = Header(stamp=stamp_from_ns(stamp_ns), frame_id='map')
        points = np.arange(18, dtype=np.float32).reshape(2, 3, 3)
        points[0, 1] = np.nan
        view.points(point_cloud_message(points, np.full((2, 3, 3), (10, 20, 30), np.uint8), header))
        view.depth(image_message(np.array([[1.5, np.nan], [70.0, 0.0004]]), '32FC1', header))
        view.pose(RigidTransform(np.eye(3), np.array((1.0, 2.0, 3.0))), header)
        view.scene(SceneGraph(header=header, objects=[SceneObject(id=3, name='red ball')]))
        thoughts = [' It is near. ', 'About 1.5 m.']
        view.answer(QueryRecord(header=header, question='How far?', answer='1.5 m', success=True, thoughts=thoughts))


@pytest.fixture
def written(tmp_path):
    """Return the recording of a camera without a name."""
    return recorded(tmp_path, '')


def recorded(folder, *cameras):
    path = folder / 'written.rrd'
    stream = rr.RecordingStream('cooper')
    stream.set_sinks(rr.FileSink(path), default_blueprint=blueprint(cameras))
    for camera in cameras:
        write_camera(stream, camera)
    stream.flush()
    stream.disconnect()
    return Recording(path)


def test_of_several_cameras_each_has_its_entities_and_its_tab(tmp_path, written):
    several = recorded(tmp_path, 'front', 'rear')
    shown = {entity for entity in written.tables if not entity.startswith('__')}
    expected = {f'{camera}/{entity}' for camera in ('front', 'rear') for entity in shown}
    assert {entity for entity in several.tables if not entity.startswith('__')} == expected
    for entity in shown & {'world/points', 'answer', 'thoughts/thought'}:
        assert several.stamps(f'rear/{entity}') == written.stamps(entity)
    assert len(several.reader.blueprints()) == 1


def test_stamps_are_exact_to_the_nanosecond(written):
    for entity in ('world/points', 'thoughts/thought', 'answer', 'world/camera'):
        assert written.stamps(entity) == set(STAMPS)


def test_up_is_up_in_the_frame_of_the_geometry(written):
    (axes,) = written.values('world', 'ViewCoordinates:xyz')
    assert np.ravel(axes).tolist() == [5, 4, 1]  # forward, left, up
    (place, _) = written.values('world/camera', 'Transform3D:translation')
    assert place == [[1.0, 2.0, 3.0]]


def test_each_thought_is_a_line_of_the_log(written):
    assert written.texts('thoughts/thought')[:2] == ['It is near.', 'About 1.5 m.']
    assert written.texts('thoughts/question') == ['How far?'] * 2


def test_colours_are_those_of_the_cloud_and_holes_are_left_out(written):
    (colours, _), (points, _) = (
        written.values('world/points', f'Points3D:{name}') for name in ('colors', 'positions')
    )
    assert [colour >> 8 for colour in colours] == [10 << 16 | 20 << 8 | 30] * 5
    assert points[1] == [6.0, 7.0, 8.0]


def test_depth_is_kept_in_millimetres(written):
    blob = bytes(written.values('world/camera/depth', 'EncodedDepthImage:blob')[0][0])
    kept = cv2.imdecode(np.frombuffer(blob, np.uint8), cv2.IMREAD_UNCHANGED)
    assert kept.tolist() == [[1500, 0], [65535, 0]]
    assert written.values('world/camera/depth', 'EncodedDepthImage:meter')[0] == [1000.0]
