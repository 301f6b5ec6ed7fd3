"""Places of frames without waiting for them: a real node, real transforms, and who asks is never held up."""

from __future__ import annotations

import threading

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
tf2_msgs = pytest.importorskip('tf2_msgs.msg', reason='needs tf2_msgs; run tools/build_interfaces.py')

import rclpy  # noqa: E402
from geometry_msgs.msg import TransformStamped  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from rclpy.node import Node  # noqa: E402
from rclpy.qos import QoSProfile  # noqa: E402

from cooper_model.types import CameraIntrinsics, DepthMap, Frame  # noqa: E402
from cooper_ros.conversions import stamp_from_ns  # noqa: E402
from cooper_ros.placer import Placer  # noqa: E402

SECOND = 1_000_000_000
LONG = 60.0


@pytest.fixture(scope='module')
def node():
    context = rclpy.Context()
    context.init()
    node = Node('placed', context=context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    over = threading.Event()

    def spin():
        while not over.is_set():
            executor.spin_once(timeout_sec=0.1)

    thread = threading.Thread(target=spin)
    thread.start()
    yield node
    over.set()
    thread.join()
    executor.shutdown()
    node.destroy_node()
    context.try_shutdown()


@pytest.fixture
def placer_of(node):
    """Return a function that makes a placer for a frame, and one that says where a camera is in it at a second."""
    made = []
    publisher = node.create_publisher(tf2_msgs.TFMessage, '/tf', QoSProfile(depth=100))

    def make(target, patience):
        made.append(Placer(node, target, patience))
        return made[-1]

    def tell(target, seconds):
        found = TransformStamped(child_frame_id=f'{target}_camera')
        found.header.frame_id, found.header.stamp = target, stamp_from_ns(seconds * SECOND)
        found.transform.translation.x, found.transform.rotation.w = float(seconds), 1.0
        publisher.publish(tf2_msgs.TFMessage(transforms=[found]))

    yield make, tell
    for placer in made:
        placer.destroy()
    node.destroy_publisher(publisher)


def seen(target, seconds):
    """Return a calibrated frame of a second, and its depth."""
    image = np.zeros((4, 6, 3), np.uint8)
    frame = Frame(image, CameraIntrinsics(5, 5, 3, 2, 6, 4), None, seconds * SECOND, f'{target}_camera')
    ones = np.ones((4, 6), np.float32)
    return frame, DepthMap(ones, image, ones)


def begin(placer, tell, target, tools):
    """Tell the place at second 1 until it has been heard."""

    def heard():
        tell(target, 1)
        return placer.place(*seen(target, 1)).transform is not None

    tools.wait_for(heard, 'the first transform')


def test_who_asks_goes_on_and_frames_keep_their_order(placer_of, tools):
    make, tell = placer_of
    placer = make('order', LONG)
    begin(placer, tell, 'order', tools)
    used = []
    # With a patience of a minute, these return only because nobody waits in them.
    for seconds in (1, 3, 1, 2):
        placer.when_placed(*seen('order', seconds), lambda place, seconds=seconds: used.append((seconds, place)))
    assert [seconds for seconds, _ in used] == [1]
    tell('order', 4)
    tools.wait_for(lambda: len(used) == 4, 'all places')
    assert [seconds for seconds, _ in used] == [1, 3, 1, 2]
    for seconds, place in used:
        assert place.header.frame_id == 'order'
        assert place.transform.translation[0] == pytest.approx(seconds)
    assert not placer.problem


def test_a_transform_that_never_comes_leaves_the_optical_frame_and_is_told(placer_of, tools):
    make, tell = placer_of
    placer = make('never', 0.05)
    begin(placer, tell, 'never', tools)
    used = []
    placer.when_placed(*seen('never', 9), used.append)
    tools.wait_for(lambda: used, 'the optical frame')
    assert used[0].transform is None and used[0].header.frame_id == 'never_camera'
    assert 'too old' in placer.problem and "target_frame 'never'" in placer.problem


def test_what_waits_is_left_alone_at_the_end(placer_of, tools):
    make, tell = placer_of
    placer = make('end', LONG)
    begin(placer, tell, 'end', tools)
    used = []
    for seconds in (2, 3):
        placer.when_placed(*seen('end', seconds), used.append)
    placer.destroy()  # returns though a minute of patience is left
    assert not used


def test_a_failure_to_use_a_place_is_logged_and_the_next_is_handed_over(placer_of, tools, capfd):
    make, tell = placer_of
    placer = make('fails', LONG)
    begin(placer, tell, 'fails', tools)
    used = []

    def fail(place):
        raise ValueError('the disk of clouds is full')

    placer.when_placed(*seen('fails', 2), fail)
    placer.when_placed(*seen('fails', 2), used.append)
    tell('fails', 3)
    tools.wait_for(lambda: used, 'the next place')
    assert 'the disk of clouds is full' in capfd.readouterr().err
