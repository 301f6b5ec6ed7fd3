"""A running node whose model is on a server: the server comes, goes and comes again; the robot always answers."""

from __future__ import annotations

import socket

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('starlette', reason='needs the extra fleet')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from cooper_model import loading  # noqa: E402
from cooper_msgs.srv import Query  # noqa: E402
from cooper_ros.conversions import image_message  # noqa: E402
from tests.serving import Served  # noqa: E402


@pytest.fixture(scope='module')
def port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope='module')
def probe(start_node, port, tools):
    address = f'server:=http://127.0.0.1:{port}'
    process, probe = start_node('backend:=remote', address, 'device:=cpu', 'diagnostics_period:=0.2', name='distant')
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active', 300)
    assert process.running, process.text()
    return probe


def test_the_robot_answers_whether_its_server_is_there_or_not(probe, port, picture, random_checkpoint, tools):
    def ask():
        image = image_message(picture, 'rgb8', Header(frame_id='camera_optical_frame'))
        response = probe.call(Query, 'query', Query.Request(question='Which is closer?', mode='text', image=image))
        assert response.success, response.message
        return response.answer, round(response.confidence, 4)

    def model():
        with probe.collect(DiagnosticArray, '/diagnostics') as topic:
            named = 'distant: model'
            message = topic.next(lambda each: any(status.name == named for status in each.status), 'diagnostics')
        status = next(status for status in message.status if status.name == named)
        values = {item.key: item.value for item in status.values}
        assert values['wanted backend'] == 'remote'
        return values['backend'], status.level, status.message

    def asked_until(backend):
        def served():
            assert ask() == expected
            return model()[0] == backend

        tools.wait_for(served, f'an answer of {backend}', 120)

    expected = ask()
    backend, level, message = model()
    assert (backend, level) == ('torch', DiagnosticStatus.WARN)
    assert f'server http://127.0.0.1:{port} is away' in message
    for _ in range(2):
        with Served(loading.load(random_checkpoint, 'torch', 'cpu'), port=port):
            asked_until('remote')
            assert model()[1] == DiagnosticStatus.OK
        asked_until('torch')
