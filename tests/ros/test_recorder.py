"""The recording thread without a node: rates, room on the disk, latched topics, bags that are gone."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rosbags', reason='needs the extra bags')

from rclpy.serialization import serialize_message
from std_msgs.msg import String

from cooper_ros.recording import recorder as module
from cooper_ros.recording.bag_writer import BagWriter
from cooper_ros.recording.corrections import Correction, CorrectionError, CorrectionStore
from cooper_ros.recording.rotation import BagFolder
from cooper_ros.salvage import open_bag
from tests.ros.test_recording import TOPICS, asked

WORDS = 'std_msgs/msg/String'


@pytest.fixture
def settings(tmp_path):
    return {
        'record': str(tmp_path), 'record_rate': 0.0, 'record_file_size': 1, 'record_max_size': 20,
        'record_min_free': 0, 'checkpoint': '',
    }  # fmt: skip


@pytest.fixture
def start():
    """Start recorders and close them."""
    running = []

    def begin(settings, cameras=()):
        running.append(module.Recorder(lambda camera: TOPICS, settings, cameras))
        return running[-1]

    yield begin
    for recorder in running:
        recorder.close()


def wait_for(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


def texts(folder, topic):
    bag = open_bag(folder)
    found = [message.data for _, _, message in bag.read((topic,))]
    bag.close()
    return found


class Camera:
    """Has a new frame whenever it is looked at."""

    name = ''

    def __init__(self):
        self.looked = 0

    def newest(self):
        self.looked += 1
        return replace(asked(0).frame, stamp_ns=self.looked)


def test_frames_come_at_the_rate_that_is_asked_for(settings, start, monkeypatch):
    monkeypatch.setattr(module, 'TICK_SECONDS', 3600.0)
    settings['record_rate'] = 50.0
    recorder = start(settings, (Camera(),))
    wait_for(lambda: recorder.state.frames >= 3)


def test_room_is_looked_for_now_and_then(settings, start, tmp_path, monkeypatch):
    looked = []
    make_room = BagFolder.make_room
    monkeypatch.setattr(BagFolder, 'make_room', lambda *args: looked.append(args) or make_room(*args))
    recorder = start(settings)
    for number in range(300):
        recorder.add_raw('/tf', WORDS, serialize_message(String(data=f'{number:050}')))
    recorder.close()
    (folder,) = BagFolder(tmp_path, 10, 0).bags()
    assert len(texts(folder, '/tf')) == 300 and len(looked) <= 3


def test_limits_act_at_once(settings, start):
    recorder = start(settings)
    wait_for(lambda: recorder.state.bag)
    settings['record_min_free'] = 10**9
    recorder.add_question(asked(0, (480, 640)))
    wait_for(lambda: recorder.state.problem)
    assert 'record_min_free' in recorder.state.problem


def test_of_a_latched_topic_the_newest_is_repeated_and_of_transforms_all(settings, start, tmp_path):
    messages = pytest.importorskip('tf2_msgs.msg', reason='needs tf2_msgs')
    from geometry_msgs.msg import TransformStamped

    settings['record'] = ''
    recorder = start(settings)
    for number in range(5):
        recorder.add_raw('/map', WORDS, serialize_message(String(data=str(number))), latched=True)
    for child in ('camera', 'lidar'):
        message = messages.TFMessage(transforms=[TransformStamped(child_frame_id=child)])
        recorder.add_raw('/tf_static', module.STATIC, serialize_message(message), latched=True)
    settings['record'] = str(tmp_path)
    wait_for(lambda: recorder.state.bag)
    recorder.close()
    (folder,) = BagFolder(tmp_path, 10, 0).bags()
    assert texts(folder, '/map') == ['4']
    bag = open_bag(folder)
    children = [each.transforms[0].child_frame_id for *_, each in bag.read(('/tf_static',))]
    bag.close()
    assert children == ['camera', 'lidar']


def test_a_bag_that_cannot_be_closed_ends_the_recording(settings, start, monkeypatch):
    def close(writer):
        raise OSError('the disk is gone')

    monkeypatch.setattr(BagWriter, 'close', close)
    recorder = start(settings)
    for number in range(3):
        recorder.add_question(asked(number, (480, 640)))  # 0.9 MB of noise each
    wait_for(lambda: 'the disk is gone' in recorder.state.problem)
    wait_for(lambda: not recorder.state.bag)


def test_a_correction_of_a_bag_that_is_gone_is_refused(tmp_path):
    bag = tmp_path / 'cooper_day'
    bag.mkdir()
    store = CorrectionStore(bag)
    shutil.rmtree(bag)
    for each in (store, CorrectionStore(bag)):
        assert not each.verdicts()
        with pytest.raises(CorrectionError, match='is gone'):
            each.add(Correction('id0', answer='left'))
    assert not list(tmp_path.iterdir())
