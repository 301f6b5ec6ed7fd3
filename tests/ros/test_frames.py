"""Which frame a request means, and what becomes of every frame."""

from __future__ import annotations

import array
import math

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from sensor_msgs.msg import CameraInfo, Image  # noqa: E402
from std_msgs.msg import Header  # noqa: E402

from cooper_model.types import CameraIntrinsics  # noqa: E402
from cooper_ros import frames as frames_module  # noqa: E402
from cooper_ros.conversions import camera_info_message, image_message, stamp_from_ns  # noqa: E402
from cooper_ros.encodings import ConversionError  # noqa: E402
from cooper_ros.frames import FrameStore, NoFrame  # noqa: E402

SECOND = 10**9
LENS = CameraIntrinsics.from_vertical_fov(60, 32, 24)


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def said():
    return []


@pytest.fixture
def store(clock, said):
    return FrameStore('/image_raw', '/camera_info', said.append, clock)


def image(seconds, value=0, frame_id='camera'):
    header = Header(stamp=stamp_from_ns(round(seconds * SECOND)), frame_id=frame_id)
    return image_message(np.full((24, 32, 3), value, np.uint8), 'rgb8', header)


def info(**changes):
    message = camera_info_message(LENS, Header(frame_id='camera'))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def test_without_an_image_the_topic_and_the_remedy_are_named(store):
    for ask in (store.newest, lambda: store.at(5)):
        with pytest.raises(NoFrame, match='no camera image on /image_raw yet.*remap image_raw'):
            ask()
    assert store.age() is None


def test_the_newest_frame_wins_until_it_is_too_old(store, clock):
    store.add_image(image(1, 10))
    store.add_image(image(2, 20))
    frame = store.newest(max_age=3)
    assert (frame.stamp_ns, frame.image[0, 0, 0], frame.frame_id) == (2 * SECOND, 20, 'camera')
    clock.now += 4
    assert store.age() == pytest.approx(4)
    with pytest.raises(NoFrame, match='is 4.0 s old, more than max_image_age 3 s'):
        store.newest(max_age=3)
    assert store.newest(max_age=0).stamp_ns == 2 * SECOND


def test_a_stamp_finds_the_nearest_frame(store):
    for seconds in (1, 2, 3):
        store.add_image(image(seconds))
    assert store.at(2 * SECOND).stamp_ns == 2 * SECOND
    assert store.at(round(2.09 * SECOND)).stamp_ns == 2 * SECOND
    with pytest.raises(NoFrame, match='nearest of the last 3 is 0.400 s after it'):
        store.at(round(0.6 * SECOND))
    with pytest.raises(NoFrame, match='is 2.000 s before it'):
        store.at(5 * SECOND)


def test_history_is_short_in_number_and_in_bytes(store, monkeypatch):
    for seconds in range(50):
        store.add_image(image(seconds))
    with pytest.raises(NoFrame, match=f'of the last {frames_module.HISTORY} is 20.000 s after'):
        store.at(0)
    monkeypatch.setattr(frames_module, 'HISTORY_BYTES', 3 * 24 * 32 * 3)
    store.add_image(image(50))
    with pytest.raises(NoFrame, match='of the last 3 is'):
        store.at(0)


def test_every_frame_is_used_or_dropped(store):
    def balance():
        counts = store.counts
        return counts.received, counts.used, counts.dropped

    store.add_image(image(1))
    assert balance() == (1, 0, 0)
    store.add_image(image(2))
    assert balance() == (2, 0, 1)
    store.newest()
    store.newest()
    assert balance() == (2, 1, 1)
    store.add_image(image(3))
    assert balance() == (3, 1, 1)
    # A late look at a frame that had been passed over.
    store.at(1 * SECOND)
    assert balance() == (3, 2, 0)
    store.clear()
    assert balance() == (3, 2, 1)
    store.add_lost(4)
    assert store.counts.lost == 4


def test_undecodable_frames_are_counted(store):
    broken = image(1)
    broken.data = array.array('B', b'12')
    store.add_image(broken)
    with pytest.raises(ConversionError, match='truncated: 2 bytes'):
        store.newest()
    assert (store.counts.used, store.counts.undecodable) == (1, 1)
    assert 'truncated' in store.last_error


def test_intrinsics_go_with_the_frame(store, said):
    store.add_camera_info(info())
    store.add_image(image(1))
    assert store.newest().intrinsics == LENS
    assert said == []


def test_missing_or_meaningless_intrinsics_are_told_once_each(store, said):
    store.add_image(image(1))
    for _ in range(3):
        assert store.newest().intrinsics is None
    assert len(said) == 1 and '/camera_info' in said[0]
    store.add_camera_info(info(k=[math.nan] * 9))
    for _ in range(3):
        assert store.newest().intrinsics is None
    assert len(said) == 2 and 'fx nan' in said[1]
    store.add_camera_info(info())
    assert store.newest().intrinsics == LENS
    store.add_camera_info(CameraInfo(width=32, height=24))
    assert store.newest().intrinsics is None
    assert len(said) == 3 and 'fx 0.0' in said[2]


def test_images_without_a_frame_are_told_once(store, said):
    store.add_camera_info(info())
    for seconds in (1, 2):
        store.add_image(image(seconds, frame_id=''))
        store.newest()
    assert len(said) == 1 and 'header.frame_id' in said[0]


def depth(seconds, millimetres, shape=(24, 32)):
    header = Header(stamp=stamp_from_ns(round(seconds * SECOND)))
    return image_message(np.full(shape, millimetres), '16UC1', header)


def test_measured_depth_of_the_same_moment_goes_with_the_frame(store):
    store.companions.add_depth(depth(0.9, 900))
    store.companions.add_depth(depth(1.01, 1010))
    store.companions.add_depth(depth(1.2, 1200, (12, 16)))
    store.add_image(image(1))
    np.testing.assert_allclose(store.newest().depth, np.full((24, 32), 1.01), rtol=1e-6)
    store.add_image(image(1.21))
    np.testing.assert_allclose(store.newest().depth, np.full((24, 32), 1.2), rtol=1e-6)
    store.add_image(image(2))
    assert store.newest().depth is None


def test_depth_of_another_view_or_encoding_is_told_once_and_left_out(store, said):
    store.add_camera_info(info())
    store.companions.add_depth(depth(1, 900, (24, 48)))
    store.add_image(image(1))
    assert store.newest().depth is None
    assert store.newest().depth is None
    assert len(said) == 1 and '48 x 24' in said[0] and 'register' in said[0]
    store.companions.add_depth(Image(header=image(2).header, encoding='rgb8', width=1, height=1, step=3))
    store.add_image(image(2))
    assert store.newest().depth is None
    assert len(said) == 2 and 'depth image: encoding' in said[1]


def metres_message(seconds, values):
    header = Header(stamp=stamp_from_ns(round(seconds * SECOND)))
    return image_message(np.full((24, 32), values), '32FC1', header)


def test_millimetres_declared_as_metres_are_read_right_and_named_once(store, said):
    store.add_camera_info(info())
    for seconds in (1, 2):
        store.companions.add_depth(metres_message(seconds, 1500.0))
        store.add_image(image(seconds))
        np.testing.assert_allclose(store.newest().depth, 1.5)
    assert len(said) == 1 and 'declared 32FC1' in said[0] and 'median of 1500' in said[0]
    assert store.companions.warnings == tuple(said)
    store.companions.add_depth(metres_message(3, 1.5))
    store.add_image(image(3))
    np.testing.assert_allclose(store.newest().depth, 1.5)
    assert store.companions.warnings == ()


def test_depth_by_another_clock_is_named_once_and_left_out(store, said):
    store.add_camera_info(info())
    for seconds in (1, 2):
        store.companions.add_depth(metres_message(seconds - 7.25, 1.5))
        store.add_image(image(seconds))
        assert store.newest().depth is None
    assert len(said) == 1 and '7.25 s before it' in said[0] and 'synchronise the clocks' in said[0]
    store.companions.add_depth(metres_message(3, 1.5))
    store.add_image(image(3))
    assert store.newest().depth is not None
    assert store.companions.warnings == ()


def test_the_delay_of_an_image_is_measured_at_its_arrival(store, clock):
    assert store.delay(0) is None
    store.add_image(image(100))
    clock.now += 3
    assert store.delay(105 * SECOND) == pytest.approx(2.0)


def test_an_image_of_a_request_has_intrinsics_only_if_it_is_the_camera(store):
    store.add_camera_info(info())
    assert store.attach(image(1)).intrinsics == LENS
    assert store.attach(image(1, frame_id='album')).intrinsics is None
    small = image_message(np.zeros((12, 16, 3), np.uint8), 'rgb8', Header(frame_id='camera'))
    assert store.attach(small).intrinsics is None
    assert store.counts.received == 0
