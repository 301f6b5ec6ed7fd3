"""What a node says of a camera that does not come, from what is offered on the topic."""

from __future__ import annotations

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from diagnostic_msgs.msg import DiagnosticArray  # noqa: E402
from rclpy.qos import QoSProfile, ReliabilityPolicy  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, PointCloud2  # noqa: E402

from cooper_ros.silence import why_silent  # noqa: E402

RELIABLE = QoSProfile(depth=1, reliability=ReliabilityPolicy.RELIABLE)
BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)


@pytest.fixture(scope='module')
def node(start_node):
    return start_node()


@pytest.mark.parametrize(
    ('kind', 'topic', 'quality', 'reliable', 'text'),
    [
        (None, '', RELIABLE, False, 'no image on {} yet; start a camera, or remap it'),
        (Image, '', RELIABLE, True, '{} has a publisher but no image came yet; check the camera'),
        (Image, '', BEST_EFFORT, False, '{} has a publisher but no image came yet; check the camera'),
        (Image, '', BEST_EFFORT, True, '{} is published best effort only, and image_reliability is reliable; set best'),
        (PointCloud2, '', RELIABLE, False, '{} carries sensor_msgs/msg/PointCloud2, not sensor_msgs/msg/Image; remap'),
        (CompressedImage, '/compressed', RELIABLE, False, '{0} yet, but {0}/compressed is published; set image'),
    ],
)
def test_the_reason_is_what_is_offered(node, tools, kind, topic, quality, reliable, text):
    _, probe = node
    place = f'/{getattr(kind, "__name__", "nothing").lower()}_{quality.reliability.value}_{reliable}'
    publisher = None if kind is None else probe.node.create_publisher(kind, place + topic, quality)
    try:
        expected = text.format(place)
        tools.wait_for(lambda: expected in why_silent(probe.node, place, 'raw', reliable), expected)
    finally:
        if publisher is not None:
            probe.node.destroy_publisher(publisher)


def test_the_running_node_names_the_wrong_type(node, tools):
    process, probe = node
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    publisher = probe.node.create_publisher(PointCloud2, '/image_raw', BEST_EFFORT)

    def told(message):
        return any('/image_raw carries sensor_msgs/msg/PointCloud2' in status.message for status in message.status)

    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        topic.wait(told, 'the wrong type in a diagnostic')
    probe.node.destroy_publisher(publisher)
