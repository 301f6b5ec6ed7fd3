"""Bags of recorded questions without a node: cut at every place, repaired, rotated, corrected."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rosbags', reason='needs the extra bags')

from mcap.reader import make_reader
from rclpy.serialization import deserialize_message, serialize_message
from rosbags.highlevel import AnyReader

from cooper_model.types import Answer, CameraIntrinsics, Frame
from cooper_msgs.msg import QueryRecord
from cooper_ros.bags import BagError, CameraBag
from cooper_ros.recording.bag_writer import BagWriter
from cooper_ros.recording.corrections import Correction, CorrectionError, CorrectionStore
from cooper_ros.recording.definitions import Definitions, UnknownType
from cooper_ros.recording.messages import Asked, question_messages, topic_names
from cooper_ros.recording.reader import QuestionBag
from cooper_ros.recording.repair import repair
from cooper_ros.recording.rotation import BagFolder, NoRoom
from cooper_ros.salvage import open_bag

SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND
TOPICS = topic_names(lambda name: name.replace('~', '/cooper') if name.startswith('~') else f'/{name}')


def asked(number, size=(12, 16)):
    image = np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)
    depth = np.full(size, 1.25, np.float32)
    depth[0, 0] = np.nan
    camera = CameraIntrinsics.from_vertical_fov(55, size[1], size[0])
    frame = Frame(image, camera, depth, START + number * SECOND, 'optical')
    answer = Answer(f'answer {number}', 'direct', thoughts=('I look.',), timings={'decode': 0.25})
    return Asked(f'id{number}', f'question {number}?', ('a', 'b'), 'direct', frame, True, answer)


def write(writer, number, **options):
    for role, message in question_messages(asked(number, **options), 'nano').items():
        package, folder = type(message).__module__.split('.')[:2]
        kind = f'{package}/{folder}/{type(message).__name__}'
        writer.write(TOPICS[role], kind, START + number, serialize_message(message))
    writer.flush()


@pytest.fixture
def bag(tmp_path):
    """Return a whole bag of three questions."""
    writer = BagWriter(tmp_path / 'cooper_day', Definitions())
    for number in range(3):
        write(writer, number)
    writer.close()
    return writer.folder


def read(folder):
    with QuestionBag(folder) as opened:
        return [question.query_id for question in opened.questions()], opened.damage


def test_a_bag_holds_what_ros_and_its_tools_need(bag):
    with next(bag.glob('*.mcap')).open('rb') as file:
        reader = make_reader(file)
        summary = reader.get_summary()
        assert reader.get_header().profile == 'ros2'
        schemas = {schema.name: schema for schema in summary.schemas.values()}
        assert set(schemas) >= {'sensor_msgs/msg/Image', 'sensor_msgs/msg/CameraInfo', 'cooper_msgs/msg/QueryRecord'}
        assert all(schema.encoding == 'ros2msg' for schema in schemas.values())
        assert 'MSG: cooper_msgs/SceneObject' in schemas['cooper_msgs/msg/QueryRecord'].data.decode()
        found = list(reader.iter_messages(topics=[TOPICS['record']]))
    assert [channel.message_encoding for _, channel, _ in found] == ['cdr'] * 3
    assert deserialize_message(found[1][2].data, QueryRecord).answer == 'answer 1'
    with AnyReader([bag]) as reader:
        assert reader.message_count == 3 * 4


def test_a_recorded_camera_can_be_played_and_learned_from(bag):
    with CameraBag(bag) as camera:
        assert camera.topics.image.name == '/image_raw' and camera.topics.camera_info == '/camera_info'
        assert camera.topics.depth.encoding == '16UC1'
    with QuestionBag(bag) as opened:
        question = opened.questions()[2]
        pictures = opened.pictures(question)
    frame = asked(2).frame
    np.testing.assert_array_equal(pictures.image, frame.image)
    np.testing.assert_allclose(pictures.depth, frame.depth)
    assert (question.stamp_ns, question.timings, question.checkpoint) == (frame.stamp_ns, {'decode': 0.25}, 'nano')


def test_a_cut_bag_gives_every_whole_question_wherever_it_is_cut(bag, tmp_path):
    whole = next(bag.glob('*.mcap'))
    counts = []
    for size in np.linspace(60, whole.stat().st_size - 1, 25).astype(int):
        cut = tmp_path / f'cut_{size}'
        cut.mkdir()
        shutil.copy(whole, cut / whole.name)
        os.truncate(cut / whole.name, size)
        ids, damage = read(cut)
        assert ids == ['id0', 'id1', 'id2'][: len(ids)] and damage
        counts.append(len(ids))
    assert counts == sorted(counts) and counts[0] == 0 and counts[-1] == 3


def test_garbage_in_the_middle_ends_the_reading_there(bag):
    path = next(bag.glob('*.mcap'))
    data = bytearray(path.read_bytes())
    data[len(data) // 4 : len(data) // 2] = b'\xff' * (len(data) // 2 - len(data) // 4)
    path.write_bytes(data)
    (bag / 'metadata.yaml').unlink()
    ids, damage = read(bag)
    assert ids in (['id0'], ['id0', 'id1']) and damage


def test_a_repaired_bag_is_whole(bag, tmp_path):
    (bag / 'metadata.yaml').unlink()
    path = next(bag.glob('*.mcap'))
    os.truncate(path, path.stat().st_size - 200)
    assert 'cut off' in read(bag)[1]
    assert repair(bag) == 3 * 4
    assert read(bag) == (['id0', 'id1', 'id2'], '')
    with AnyReader([bag]) as reader:
        assert reader.message_count == 12
    assert sorted(each.name for each in bag.iterdir()) == ['cooper_day.mcap', 'metadata.yaml']
    with pytest.raises(BagError, match='no bag that was cut off'):
        repair(bag)


def test_nothing_to_read_is_told(tmp_path):
    for content in (b'', b'\x89MCAP0\r\n', b'no bag at all' * 10):
        path = tmp_path / 'x.mcap'
        path.write_bytes(content)
        with pytest.raises(BagError, match='nothing in it can be read'):
            open_bag(path)
    with pytest.raises(BagError, match='does not exist'):
        open_bag(tmp_path / 'missing')


def test_a_type_without_definition_is_named():
    with pytest.raises(UnknownType, match='no_such_msgs/msg/Thing'):
        Definitions().require('no_such_msgs/msg/Thing')


def test_the_oldest_bags_go_first_and_corrected_ones_stay(tmp_path):
    folder = BagFolder(tmp_path, limit=5000, least_free=0)
    bags = []
    for _ in range(4):
        path = folder.new_bag()
        path.mkdir()
        (path / 'data.mcap').write_bytes(b'x' * 1000)
        (path / 'metadata.yaml').write_text('')
        bags.append(path)
    assert bags == sorted(bags) == folder.bags()
    CorrectionStore(bags[0]).add(Correction('id0', 'yes'))
    assert folder.make_room(900) == []
    assert folder.make_room(2500) == bags[1:3]
    with pytest.raises(NoRoom, match='record_max_size'):
        folder.make_room(10_000, keep=bags[3])
    assert folder.bags() == [bags[0], bags[3]]
    with pytest.raises(NoRoom, match='record_min_free'):
        BagFolder(tmp_path, 5000, 2**62).make_room(1)


def test_a_bag_that_another_recorder_writes_is_left_alone(tmp_path):
    folder = BagFolder(tmp_path, limit=1500, least_free=0)
    path = folder.new_bag()
    path.mkdir()
    (path / 'data.mcap').write_bytes(b'x' * 1000)
    with pytest.raises(NoRoom):
        folder.make_room(1000)
    os.utime(path / 'data.mcap', (0, 0))
    assert folder.make_room(1000) == [path]


def test_corrections_add_up_and_are_kept_once(bag):
    store = CorrectionStore(bag)
    mask = np.eye(12, 16, dtype=bool)
    said = [
        Correction('id0', answer='left', note='seen twice'),
        Correction('id0', object='red mug', mask=mask),
        Correction('id0', object='red mug', mask=mask),
        Correction('id0', useless=True),
        Correction('id0', useless=False, answer='right'),
        Correction('id0', answer='right'),
    ]
    assert [store.add(each) for each in said] == [True, True, False, True, True, False]
    verdict = store.verdicts()['id0']
    assert (verdict.answer, verdict.note, verdict.useless) == ('right', 'seen twice', False)
    np.testing.assert_array_equal(store.mask(verdict, 'red mug'), mask)
    assert len(store.path.read_text().splitlines()) == 4


def test_a_line_that_a_crash_cut_off_spoils_no_other(bag):
    store = CorrectionStore(bag)
    store.add(Correction('id0', 'left'))
    with store.path.open('a') as file:
        file.write('{"query_id": "id1", "ans')
    store.add(Correction('id2', 'right'))
    assert {name: each.answer for name, each in store.verdicts().items()} == {'id0': 'left', 'id2': 'right'}


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({'query_id': ''}, 'query_id is empty'),
        ({}, 'says nothing'),
        ({'mask': np.ones((12, 16), bool)}, 'name what it shows'),
        ({'mask': np.ones((3, 4), bool), 'object': 'mug'}, '4 x 3 pixels, the frame 16 x 12'),
    ],
)
def test_a_correction_that_says_nothing_usable_is_refused(fields, reason):
    with pytest.raises(CorrectionError, match=reason):
        Correction(**{'query_id': 'id0', **fields}).check((12, 16))


def test_what_waits_for_a_slow_disk_is_bounded(monkeypatch, tmp_path):
    from cooper_ros.recording import recorder as module

    settings = {
        'record': str(tmp_path), 'record_rate': 0.0, 'record_file_size': 1, 'record_max_size': 2,
        'record_min_free': 0, 'checkpoint': '',
    }  # fmt: skip
    monkeypatch.setattr(module, 'QUEUE_BYTES', 1500)
    recorder = module.Recorder(lambda camera: TOPICS, settings, ())
    with recorder._changed:  # the thread cannot take anything meanwhile
        recorder.add_question(asked(0, (4, 5)))
        recorder.add_question(asked(1, (30, 40)))
    recorder.close()
    assert (recorder.state.questions, recorder.state.dropped) == (1, 1)
    assert read(BagFolder(tmp_path, 10, 0).bags()[0]) == (['id0'], '')


def test_a_full_bag_is_followed_by_the_next_and_the_oldest_goes(tmp_path):
    from cooper_ros.recording.recorder import Recorder

    settings = {
        'record': str(tmp_path), 'record_rate': 0.0, 'record_file_size': 1, 'record_max_size': 5,
        'record_min_free': 0, 'checkpoint': '',
    }  # fmt: skip
    recorder = Recorder(lambda camera: TOPICS, settings, ())
    for number in range(12):
        recorder.add_question(asked(number, (480, 640)))  # 0.9 MB of noise each
        while recorder.state.questions <= number and not recorder.state.problem:
            pass
    recorder.close()
    assert not recorder.state.problem
    bags = BagFolder(tmp_path, 10, 0).bags()
    assert 1 < len(bags) < 12 and all((path / 'metadata.yaml').exists() for path in bags)
    kept = [name for path in bags for name in read(path)[0]]
    assert kept == [f'id{number}' for number in range(12 - len(kept), 12)]


class LateDepth:
    """A camera whose depth comes after its images, and with the third image no more."""

    name = ''

    def __init__(self):
        self.calls = 0

    def newest(self):
        self.calls += 1
        number = 1 if self.calls == 1 else 2 if self.calls < 6 else 3
        image = np.zeros((6, 8, 3), np.uint8)
        depth = np.ones((6, 8), np.float32) if self.calls == 1 or self.calls in (4, 5) else None
        return Frame(image, None, depth, number, 'camera')


def test_a_frame_waits_for_its_depth(tmp_path, monkeypatch):
    from cooper_ros.recording import recorder as module

    settings = {
        'record': str(tmp_path), 'record_rate': 1000.0, 'record_file_size': 1, 'record_max_size': 5,
        'record_min_free': 0, 'checkpoint': '',
    }  # fmt: skip
    monkeypatch.setattr(module, 'TICK_SECONDS', 0.02)
    monkeypatch.setattr(module, 'DEPTH_SECONDS', 5.0)  # longer than three ticks on any machine
    recorder = module.Recorder(lambda camera: TOPICS, settings, (LateDepth(),))
    end = time.monotonic() + 60
    while recorder.state.frames < 2:
        assert time.monotonic() < end
    monkeypatch.setattr(module, 'DEPTH_SECONDS', 0.1)
    while recorder.state.frames < 3:
        assert time.monotonic() < end
    recorder.close()
    bag = open_bag(BagFolder(tmp_path, 10, 0).bags()[0])
    topics = (TOPICS['image'], TOPICS['depth'])
    images, depths = ([m.header.stamp.nanosec for _, _, m in bag.read((topic,))] for topic in topics)
    bag.close()
    assert (images, depths) == ([1, 2, 3], [1, 2])


def test_each_camera_is_recorded_under_its_name(tmp_path):
    from cooper_ros.recording.recorder import Recorder

    class Camera:
        def __init__(self, name, number):
            self.name, self.frame = name, asked(number).frame

        def newest(self):
            return self.frame

    def topics(camera):
        return topic_names(lambda name: name.replace('~', '/cooper') if name.startswith('~') else f'/{name}', camera)

    settings = {
        'record': str(tmp_path), 'record_rate': 50.0, 'record_file_size': 1, 'record_max_size': 2,
        'record_min_free': 0, 'checkpoint': '',
    }  # fmt: skip
    recorder = Recorder(topics, settings, (Camera('front', 0), Camera('rear', 1)))
    recorder.add_question(replace(asked(2), camera='rear'))
    while recorder.state.frames < 2 and not recorder.state.problem:
        pass
    recorder.close()
    assert not recorder.state.problem
    (folder,) = BagFolder(tmp_path, 10, 0).bags()
    with AnyReader([folder]) as reader:
        counts = {topic: found.msgcount for topic, found in reader.topics.items()}
    assert counts['/front/image_raw'] == 1 and counts['/rear/image_raw'] == 2
    assert counts['/front/depth_registered/image_rect'] == counts['/front/camera_info'] == 1
    assert '/image_raw' not in counts
    with QuestionBag(folder) as opened:
        (question,) = opened.questions()
        pictures = opened.pictures(question)
    np.testing.assert_array_equal(pictures.image, asked(2).frame.image)
