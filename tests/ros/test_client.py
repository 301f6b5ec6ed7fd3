"""The client against a real node in another process, and against none."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy')

from cooper_ros.client import ClientError, CooperClient, NodeUnreachable, NoReply, Question

NAMESPACE = '/client_test'
PATIENCE = 90.0


@pytest.fixture(scope='module')
def node(start_node):
    process, probe = start_node('perception_rate:=0.0', namespace=NAMESPACE)
    yield process, probe


@pytest.fixture(scope='module')
def client(node, tools):
    with CooperClient(namespace=NAMESPACE) as client:
        client.wait_until_there(PATIENCE)
        tools.wait_for(lambda: client.state() == 'active', 'the node to be active', PATIENCE)
        yield client


@pytest.fixture(scope='module')
def camera(node, tools, picture, client):
    camera = tools.camera(node[1], picture, namespace=NAMESPACE)
    tools.wait_for(lambda: client.query(Question('Ready?', mode='direct')).success, 'the first image')
    yield camera
    camera.stop()


def test_a_query_brings_the_answer_and_the_frame_that_it_is_about(client, camera):
    reply = client.query(Question('Which is closer?', ('the ball', 'the box'), 'direct'))
    assert reply.success, reply.message
    assert reply.stamp_ns in camera.sent
    assert reply.frame_id == 'camera_optical_frame'
    assert reply.query_id
    assert 0 <= reply.confidence <= 1
    assert reply.seconds > 0


def test_a_question_may_name_a_frame(client, camera, tools):
    stamp = max(camera.sent)
    tools.wait_for(lambda: max(camera.sent) > stamp + 300_000_000, 'newer images')
    reply = client.query(Question('What is that?', mode='direct', stamp_ns=stamp))
    # The camera of the test is heard best effort, so a neighbour may have to stand in.
    assert abs(reply.stamp_ns - stamp) <= 100_000_000


def test_asking_streams_feedback_and_pictures(client, camera, picture):
    heard = []
    reply = client.ask(Question('What is left of the box?', mode='perception'), on_feedback=heard.append)
    assert reply.success, reply.message
    assert reply.depth_color.shape == reply.segmentation.shape == picture.shape
    finished = [feedback.stage for feedback in heard if feedback.image is not None]
    assert sorted(finished) == ['depth', 'segmentation']
    for feedback in heard:
        if feedback.image is not None:
            shown = reply.depth_color if feedback.stage == 'depth' else reply.segmentation
            assert (feedback.image == shown).all()
    assert heard[-1].stage == 'answer'
    assert heard[-1].text == reply.answer


def test_a_question_may_bring_its_own_picture(client, picture):
    reply = client.query(Question('What is that?', mode='direct', image=picture[:40, :60]))
    assert reply.success, reply.message
    reply = client.query(Question('Perceive.', mode='perception', image=picture[:40, :60]))
    assert reply.depth_color.shape == (40, 60, 3)


def test_relations_and_enabling(client, camera):
    scene = client.relations()
    assert scene.stamp_ns in camera.sent
    ids = {item.id for item in scene.objects}
    assert all({relation.subject_id, relation.object_id} <= ids for relation in scene.relations)
    assert client.relations(subject='a thing that is not there').relations == ()
    client.enable(False)
    client.enable(True)


def test_what_the_node_refuses_comes_back_with_its_reason(client, camera):
    reply = client.query(Question('   '))
    assert not reply.success
    assert reply.message
    reply = client.ask(Question('Where?', stamp_ns=1))
    assert not reply.success
    assert 'stamp' in reply.message
    with pytest.raises(ValueError, match="mode 'quick' is unknown; expected one of auto, direct"):
        Question('Where?', mode='quick')


def test_no_time_to_answer_is_told(client, camera):
    with pytest.raises(NoReply, match=f'{NAMESPACE}/cooper/query did not reply within'):
        client.query(Question('What is that?', mode='perception'), timeout=1e-6)


def test_a_missing_node_is_named():
    with CooperClient(name='copper', namespace='/far/away') as client:
        assert not client.is_there(timeout=0.1)
        with pytest.raises(NodeUnreachable, match=r'no node /far/away/copper after 0.2 s; seen: .*cooper node'):
            client.query(Question('Anyone?'), timeout=0.2)
        with pytest.raises(ClientError, match='/far/away/copper'):
            client.ask(Question('Anyone?'), timeout=0.2)


def test_a_callback_that_fails_is_logged_and_ends_nothing(tools, capfd):
    calls = []

    def fail():
        calls.append(1)
        raise ZeroDivisionError('on purpose')

    with CooperClient(name='copper', namespace='/far/away') as client:
        client.node.create_timer(0.02, fail)
        tools.wait_for(lambda: len(calls) >= 3, 'later callbacks')
    assert 'a callback failed: on purpose' in capfd.readouterr().err


def test_a_question_given_up_is_cancelled_at_the_node(client, camera, node, tools):
    began = len(node[0].text())
    with pytest.raises(NoReply, match=f'{NAMESPACE}/cooper/ask did not reply within'):
        client.ask(Question('What is that?', mode='perception'), timeout=0.02)
    tools.wait_for(lambda: 'ask: cancelled' in node[0].text()[began:], 'the cancellation')
    assert client.query(Question('And now?', mode='direct')).success
