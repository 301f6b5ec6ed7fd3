"""Two robots on one machine: nodes of one name under two namespaces, and under two domains."""

from __future__ import annotations

import os

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from cooper_msgs.srv import Query
from cooper_ros.conversions import stamp_to_ns

LONG = 180.0  # two models are loaded at once


def ask(probe):
    return probe.call(Query, 'query', Query.Request(question='What is that?', mode='direct'))


def check_apart(robots, tools):
    """Both answer about their own camera, and about no other."""
    for process, probe, _ in robots:
        tools.wait_for(lambda process=process: 'active: waits' in process.text(), 'the node to become active', LONG)
        tools.wait_for(lambda probe=probe: ask(probe).success, 'an answer', LONG)
    for process, probe, camera in robots:
        response = ask(probe)
        assert response.success and process.running
        stamp = stamp_to_ns(response.header.stamp)
        assert [stamp in each.sent for _, _, each in robots] == [each is camera for _, _, each in robots]
    # A node without a camera has nothing to answer about, whatever the other sees.
    (_, probe, camera), (_, other, _) = robots
    camera.stop()
    assert probe.set_parameters(max_image_age=0.5)[0].successful
    tools.wait_for(lambda: 'max_image_age' in ask(probe).message, 'the camera to be missed')
    assert ask(other).success


def test_two_namespaces(start_node, tools, picture):
    robots = []
    for shift, namespace in enumerate(('/robot1', '/robot2')):
        process, probe = start_node(namespace=namespace)
        robots.append((process, probe, tools.camera(probe, picture[shift:], namespace=namespace)))
    check_apart(robots, tools)
    names = robots[0][1].node.get_node_names_and_namespaces()
    assert {('cooper', '/robot1'), ('cooper', '/robot2')} <= set(names)


def test_two_domains(start_node, tools, picture, monkeypatch):
    robots = []
    for shift in range(2):
        # Everything that starts below takes the domain from here; names are all the same.
        monkeypatch.setenv('ROS_DOMAIN_ID', str((int(os.environ['ROS_DOMAIN_ID']) + 1) % 100))
        process, probe = start_node()
        robots.append((process, probe, tools.camera(probe, picture[shift:])))
    assert len({probe.context.get_domain_id() for _, probe, _ in robots}) == 2
    check_apart(robots, tools)
    for _, probe, _ in robots:
        assert probe.node.get_node_names_and_namespaces().count(('cooper', '/')) == 1
