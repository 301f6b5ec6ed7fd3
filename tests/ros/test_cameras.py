"""One node, one model, two simulated cameras of different rates, each in a process of its own."""

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('mujoco', reason='needs the extra sim')
pytest.importorskip('rerun', reason='needs rerun-sdk')

from cooper_msgs.srv import GetRelations
from cooper_ros.client import ClientError, CooperClient, Question
from cooper_ros.processes import RosProcess
from cooper_ros.watcher import Watcher
from tests.ros.rrd import Recording

NAMESPACE = f'/cameras_{os.getpid()}'
RATES = {'front': 30.0, 'rear': 1.0}
SHOWN = ('world/camera/image', 'depth/color', 'segmentation/overlay', 'world/points', 'world/objects')


@pytest.fixture(scope='module')
def client():
    with CooperClient(namespace=NAMESPACE) as client:
        yield client


@pytest.fixture(scope='module')
def watchers(client, random_checkpoint, tmp_path_factory, tools):
    """Start node and cameras; return a watcher of each camera's topics."""
    folder = tmp_path_factory.mktemp('cameras')
    # Many steps of the sampler, so that the fast camera alone is more than the model can follow.
    parameters = {
        'cameras': list(RATES), 'checkpoint': str(random_checkpoint), 'perception_rate': 60.0,
        'sampler.num_timesteps': 30, 'max_image_age': 60.0, 'query_timeout': 120.0,
    }  # fmt: skip
    watchers = {name: Watcher(client.node, NAMESPACE, False, 1.0, name) for name in RATES}
    processes = [RosProcess('cooper_ros.node', parameters, folder / 'node.log', NAMESPACE)]
    for seed, (name, rate) in enumerate(RATES.items()):
        camera = {
            'rate': rate, 'width': 80, 'height': 60, 'seed': seed, 'hold': True, 'questions': 0,
            'frame_id': f'{name}_optical_frame',
        }  # fmt: skip
        processes.append(RosProcess('cooper_ros.camera', camera, folder / f'{name}.log', f'{NAMESPACE}/{name}'))

    def alive():
        for process in processes:
            process.require_alive()

    for watcher in watchers.values():
        assert watcher.wait_for(lambda w=watcher: w.perceived_headers() >= 3, 240, alive)
    yield watchers
    for process in reversed(processes):
        process.stop()


@pytest.fixture(scope='module')
def viewer(watchers, client, tmp_path_factory, tools):
    """Start the viewer beside node and cameras; return its process and the file that it saves."""
    folder = tmp_path_factory.mktemp('viewer')
    path = folder / 'cameras.rrd'
    parameters = {'cameras': list(RATES), 'save': str(path), 'show': 'none'}
    with RosProcess('cooper_ros.viewer', parameters, folder / 'viewer.log', NAMESPACE) as process:
        topic = f'{NAMESPACE}/cooper/rear/answers'
        tools.wait_for(lambda: client.node.count_subscribers(topic) or process.returncode is not None, 'the viewer')
        process.require_alive()
        yield process, path


def camera_counts(watchers, name):
    status = watchers[name].status(f'cooper: camera {name}')
    return {key: int(status[key]) for key in ('received', 'used', 'dropped')} if status else {}


def test_each_camera_has_its_topics_under_its_own_headers(watchers):
    for watcher in watchers.values():
        assert watcher.foreign_headers() == {}
        counts = watcher.output_counts
        assert all(counts[name] for name in ('depth/color', 'segmentation/mask', 'scene', 'markers', 'points'))


def test_the_fast_camera_does_not_starve_the_slow_one(watchers, tools):
    before = tools.wait_for(lambda: all(camera_counts(watchers, name) for name in RATES), 'diagnostics') and {
        name: camera_counts(watchers, name) for name in RATES
    }

    def since(name):
        return {key: value - before[name][key] for key, value in camera_counts(watchers, name).items()}

    tools.wait_for(lambda: since('rear')['received'] >= 8, 'the slow camera', 120)
    front, rear = since('front'), since('rear')
    assert front['dropped'] > 0, 'the model followed the fast camera, so that nothing was shown'
    # Whoever waits is next: either every frame of the slow camera is used, or it has as many turns as the fast one.
    assert rear['used'] + 2 >= min(rear['received'], front['used'] // 2)
    assert front['used'] >= rear['used'] // 2


def test_a_question_names_a_camera(watchers, client):
    for name, asked in (('', 'front'), ('front', 'front'), ('rear', 'rear')):
        reply = client.query(Question('What is that?', mode='direct', camera=name), 120)
        assert reply.success, reply.message
        assert (reply.camera, reply.frame_id) == (asked, f'{asked}_optical_frame')
    assert client.relations(camera='rear', timeout=120).frame_id == 'rear_optical_frame'


def test_feedback_and_replies_say_which_camera_was_asked(watchers, client):
    for name, asked in (('', 'front'), ('rear', 'rear')):
        told = []
        reply = client.ask(Question('What is that?', mode='perception', camera=name), 240, told.append)
        assert reply.success, reply.message
        assert (reply.camera, reply.frame_id) == (asked, f'{asked}_optical_frame')
        assert {feedback.stage for feedback in told} >= {'depth', 'segmentation', 'answer'}
        assert {feedback.camera for feedback in told} == {asked}
        response = client.call(GetRelations, 'get_relations', GetRelations.Request(camera=name), 120)
        assert (response.success, response.camera) == (True, asked)


def test_the_viewer_shows_each_camera_under_its_name(watchers, client, viewer, tools):
    process, path = viewer
    wanted = [f'{name}/{entity}'.encode() for name in RATES for entity in SHOWN]

    def shown():
        content = path.read_bytes()
        return all(entity in content for entity in wanted)

    tools.wait_for(shown, 'both cameras in the recording', 120)
    for name in RATES:
        assert client.ask(Question(f'What does {name} see?', mode='text', camera=name), 240).success
    said = [f'{name}/thoughts/answer'.encode() for name in RATES]
    tools.wait_for(lambda: all(entity in path.read_bytes() for entity in said), 'both answers', 120)
    assert process.stop() == 0, process.tail()
    recording = Recording(path)
    for name in RATES:
        assert {f'{name}/{entity}' for entity in SHOWN} <= set(recording.tables)
        assert f'What does {name} see?' in recording.texts(f'{name}/thoughts/question')
        assert {text for [text] in recording.values(f'{name}/thinking', 'TextDocument:text')}
    assert {entity.partition('/')[0] for entity in recording.tables if not entity.startswith('__')} == set(RATES)


def test_a_stamp_names_a_frame_of_that_camera_alone(watchers, client):
    stamp = watchers['rear'].newest_stamp()
    reply = client.query(Question('What is that?', mode='direct', camera='rear', stamp_ns=stamp), 120)
    assert (reply.stamp_ns, reply.frame_id) == (stamp, 'rear_optical_frame')


def test_an_unknown_camera_is_named_with_those_that_there_are(watchers, client):
    for asked in (client.query, client.ask):
        reply = asked(Question('What is that?', camera='left'), 120)
        assert not reply.success
        assert "no camera 'left'; the node has front, rear" in reply.message
    with pytest.raises(ClientError, match="no camera 'left'"):
        client.relations(camera='left', timeout=120)
