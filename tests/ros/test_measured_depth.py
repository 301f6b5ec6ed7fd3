"""A robot's registered depth on a running node: it gives the metres, and generated depth fills its holes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from sensor_msgs.msg import Image, PointCloud2  # noqa: E402

from cooper_ros.conversions import image_message  # noqa: E402

SCALE, SHIFT = 1.5, 0.4
HOLE = (slice(20, 100), slice(60, 140))


@pytest.fixture(scope='module')
def probe(start_node, picture, tools):
    process, probe = start_node('perception_rate:=10.0')
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    yield probe


@pytest.fixture(scope='module')
def measured(probe, picture, tools):
    """Publish depth that is scale and shift away from the generated one, with a hole; return both."""
    camera = tools.camera(probe, picture)
    with probe.collect(Image, 'depth/image') as depths:
        generated = metres_of(depths.next())
    values = (SCALE * generated + SHIFT).astype(np.float32)
    values[HOLE] = np.nan
    publisher = probe.node.create_publisher(Image, '/depth_registered/image_rect', 1)

    def with_depth(image):
        publisher.publish(image_message(values, '32FC1', image.header))
        return image

    camera.change = with_depth
    yield generated, values
    camera.stop()
    probe.node.destroy_publisher(publisher)


def metres_of(message):
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


def near(values, expected):
    return np.allclose(values, expected, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_measured_metres_stay_and_generated_ones_fill_the_hole(probe, measured):
    generated, values = measured
    valid = np.isfinite(values)
    with probe.collect(Image, 'depth/image') as depths:
        fused = metres_of(depths.next(lambda message: not near(metres_of(message), generated)))
    np.testing.assert_array_equal(fused[valid], values[valid])
    np.testing.assert_allclose(fused[HOLE], SCALE * generated[HOLE] + SHIFT, rtol=1e-3, atol=1e-3)


def test_points_are_those_of_the_filled_depth(probe, measured):
    generated, _ = measured
    expected = SCALE * generated + SHIFT

    def depth_of(cloud):
        return np.frombuffer(cloud.data, '<f4').reshape(cloud.height, cloud.width, 4)[..., 2]

    with probe.collect(PointCloud2, 'points') as clouds:
        clouds.next(lambda cloud: near(depth_of(cloud), expected), 'a cloud of the filled depth')
