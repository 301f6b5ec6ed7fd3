"""A registered depth camera that sends ``compressedDepth``, beside a running node: 16UC1, 32FC1 and what is broken."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image  # noqa: E402

from tests.ros.compressed_depth import compressed_depth  # noqa: E402

REMAP = 'depth_registered/image_rect:=/range/image'
TOPIC = '/range/image/compressedDepth'
SCALE, SHIFT = 1.25, 0.3
HOLE = (slice(20, 100), slice(60, 140))


def metres_of(message):
    return np.frombuffer(message.data, '<f4').reshape(message.height, message.width)


@pytest.fixture(scope='module')
def probe(start_node, picture, tools):
    process, probe = start_node('perception_rate:=10.0', 'depth_transport:=compressedDepth', remap=[REMAP])
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    assert process.running, process.text()
    yield probe


@pytest.fixture(scope='module')
def generated(probe, picture, tools):
    """Return what the model sees alone, and a function that says what the depth camera sends from now on."""
    camera = tools.camera(probe, picture)
    with probe.collect(Image, 'depth/image') as depths:
        alone = metres_of(depths.next())
    publisher = probe.node.create_publisher(CompressedImage, TOPIC, 1)

    def send(data, form):
        def with_depth(image):
            publisher.publish(CompressedImage(header=image.header, format=form, data=data))
            return image

        camera.change = with_depth

    yield alone, send
    camera.stop()
    probe.node.destroy_publisher(publisher)


def camera_status(probe, level):
    def find(message):
        return next((s for s in message.status if s.name == 'cooper: camera' and s.level == level), None)

    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        return find(topic.next(find, f'a status of level {level} of the camera'))


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_measured_metres_stay_and_generated_ones_fill_the_hole(probe, generated, encoding):
    alone, send = generated
    values = (SCALE * alone + SHIFT).astype(np.float32)
    values[HOLE] = np.nan
    valid = np.isfinite(values)
    send(compressed_depth(values, encoding), f'{encoding}; compressedDepth png')

    # Inverse depth in 16 bits is exact to 5 mm at 7 m.
    def near(message):
        return np.allclose(metres_of(message)[valid], values[valid], atol=0.006)

    with probe.collect(Image, 'depth/image') as depths:
        fused = metres_of(depths.next(near, 'the measured depth'))
    np.testing.assert_allclose(fused[HOLE], SCALE * alone[HOLE] + SHIFT, atol=0.02)


@pytest.mark.parametrize(
    ('form', 'change', 'reason'),
    [
        ('16UC1; compressedDepth png', lambda data: data[: len(data) // 2], 'truncated'),
        ('16UC1; compressedDepth png', lambda data: data[:12], 'hold no picture'),
        ('16UC1; compressedDepth png', lambda data: bytes(len(data)), 'no depth picture'),
        ('16UC1; compressedDepth rvl', lambda data: data, 'send compressedDepth png'),
    ],
)
def test_broken_depth_is_left_out_and_named_until_it_is_whole(probe, generated, form, change, reason):
    alone, send = generated
    whole = compressed_depth(SCALE * alone + SHIFT, '16UC1')
    send(change(whole), form)
    with probe.collect(Image, 'depth/image') as depths:  # frames are looked at while somebody listens
        depths.next(lambda message: np.array_equal(metres_of(message), alone), 'the generated depth')
        assert reason in camera_status(probe, DiagnosticStatus.WARN).message
        send(whole, '16UC1; compressedDepth png')
        assert camera_status(probe, DiagnosticStatus.OK).message == 'images arrive'
