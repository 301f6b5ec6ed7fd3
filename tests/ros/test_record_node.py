"""Recording by a real node: whole bags, a node that is killed, a disk that fills, corrections by service."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rosbags', reason='needs the extra bags')

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rcl_interfaces.srv import GetParameters
from rosbags.highlevel import AnyReader
from std_msgs.msg import Header, String

from cooper_msgs.srv import Correct, Query
from cooper_ros.conversions import image_message, stamp_to_ns
from cooper_ros.recording.corrections import CorrectionStore
from cooper_ros.recording.reader import QuestionBag
from cooper_ros.salvage import open_bag

ROOT = Path(__file__).parents[2]
QUESTION = 'Which is closer, the red ball or the blue box?'
CHOICES = ['red ball', 'blue box']


@pytest.fixture(scope='module')
def recording(start_node, tools, picture, tmp_path_factory):
    """Return process, probe, camera and folder of a node that records."""
    folder = tmp_path_factory.mktemp('recorded')
    process, probe = start_node(f'record:={folder}', 'record_topics:=["/recorded_words"]', 'record_min_free:=0')
    camera = tools.camera(probe, picture)
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    tools.wait_for(lambda: status(probe)[0], 'diagnostics')
    return process, probe, camera, folder


def status(probe):
    """Return level, text and values of the next status of the recording."""
    with probe.collect(DiagnosticArray, '/diagnostics') as topic:
        message = topic.next(lambda each: any(part.name.endswith(': recording') for part in each.status), 'diagnostics')
    found = next(part for part in message.status if part.name.endswith(': recording'))
    return found.level, found.message, {pair.key: pair.value for pair in found.values}


def ask(probe, mode='perception', **fields):
    response = probe.call(Query, 'query', Query.Request(question=QUESTION, choices=CHOICES, mode=mode, **fields))
    assert response.success, response.message
    return response


def bags_of(folder):
    return sorted(folder.glob('cooper_*'))


def answered(tools, folder, query_id):
    """Wait until a question is on the disk; return its bag, its record and its pictures."""

    def find():
        for path in bags_of(folder):
            with QuestionBag(path) as bag:
                for question in bag.questions():
                    if question.query_id == query_id:
                        return path, question, bag.pictures(question)
        return None

    return tools.wait_for(find, f'{query_id} to be recorded')


def test_a_question_is_recorded_with_all_that_led_to_its_answer(recording, tools):
    _, probe, camera, folder = recording
    response = ask(probe)
    _, question, pictures = answered(tools, folder, response.query_id)
    assert (question.question, question.choices, question.mode) == (QUESTION, tuple(CHOICES), 'perception')
    assert (question.answer, question.thoughts) == (response.answer, tuple(response.thoughts))
    assert question.stamp_ns == stamp_to_ns(response.header.stamp) and question.live
    assert sum(question.timings.values()) > 0
    np.testing.assert_array_equal(pictures.image, camera.sent[question.stamp_ns])
    for name, message in (('depth_color', response.depth_color), ('segmentation', response.segmentation)):
        sent = np.frombuffer(message.data, np.uint8).reshape(message.height, message.width, 3)
        np.testing.assert_array_equal(getattr(pictures, name), sent)
    assert set(np.unique(pictures.instances)) - {0} >= set(question.objects)


def test_a_picture_that_came_with_a_question_stays_apart_from_the_camera(recording, tools, picture):
    _, probe, _, folder = recording
    image = image_message(picture[::-1, ::-1], 'rgb8', Header(frame_id='elsewhere'))
    response = ask(probe, 'direct', image=image)
    _, question, pictures = answered(tools, folder, response.query_id)
    assert not question.live and question.frame_id == 'elsewhere'
    np.testing.assert_array_equal(pictures.image, picture[::-1, ::-1])


def test_other_topics_are_recorded_as_they_come(recording, tools):
    _, probe, _, folder = recording
    words = probe.node.create_publisher(String, '/recorded_words', 10)
    tools.wait_for(words.get_subscription_count, 'the recorder to subscribe')
    words.publish(String(data='a mask is better'))
    response = ask(probe, 'direct')
    path, *_ = answered(tools, folder, response.query_id)
    bag = open_bag(path)
    assert [message.data for _, _, message in bag.read(('/recorded_words',))] == ['a mask is better']
    bag.close()


def test_a_correction_is_kept_once_beside_the_bag_and_in_it(recording, tools, picture):
    _, probe, _, folder = recording
    asked = ask(probe)
    mask = np.zeros(picture.shape[:2], np.uint8)
    mask[40:60, 30:50] = 255
    request = Correct.Request(query_id=asked.query_id, answer='red ball', object='red ball')
    request.mask = image_message(mask, 'mono8', asked.header)
    first, again = (probe.call(Correct, 'correct', request) for _ in range(2))
    assert first.success and first.header == asked.header and not first.message
    assert again.success and 'same' in again.message
    path, *_ = answered(tools, folder, asked.query_id)
    store = CorrectionStore(path)
    verdict = store.verdicts()[asked.query_id]
    assert verdict.answer == 'red ball' and not verdict.useless
    np.testing.assert_array_equal(store.mask(verdict, 'red ball'), mask > 0)
    assert len(store.path.read_text().splitlines()) == 1

    def recorded():
        with QuestionBag(path) as bag:
            return bag.corrections()

    correction = tools.wait_for(recorded, 'the correction in the bag')[0]
    assert (correction.query_id, correction.answer) == (asked.query_id, 'red ball')
    np.testing.assert_array_equal(correction.mask, mask > 0)


@pytest.mark.parametrize(
    ('fields', 'reason'),
    [
        ({'query_id': 'nobody', 'answer': 'yes'}, 'cooper correct BAG'),
        ({'answer': 'yes'}, 'query_id is empty'),
        ({'query_id': 'LAST'}, 'says nothing'),
        ({'query_id': 'LAST', 'mask': (8, 8), 'object': 'ball'}, '8 x 8 pixels'),
        ({'query_id': 'LAST', 'mask': (121, 161)}, 'name what it shows'),
    ],
)
def test_a_correction_that_cannot_be_kept_says_why(recording, fields, reason):
    _, probe, *_ = recording
    fields = dict(fields)
    if fields.get('query_id') == 'LAST':
        fields['query_id'] = ask(probe, 'direct').query_id
    if 'mask' in fields:
        fields['mask'] = image_message(np.ones(fields['mask'], np.uint8), 'mono8', Header())
    response = probe.call(Correct, 'correct', Correct.Request(**fields))
    assert not response.success and reason in response.message


def cooper(*arguments):
    """Run the command; return its JSON."""
    command = [sys.executable, '-m', 'cooper_cli.main', *map(str, arguments), '--json']
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_command_records_and_corrects_at_a_running_node(recording, tools, tmp_path):
    _, probe, _, folder = recording
    assert probe.set_parameters(record_rate=0.5)[0].successful
    begun = cooper('record', tmp_path / 'by_hand', '--topic', '/recorded_words')
    assert begun['bag'].startswith(str(tmp_path / 'by_hand')) and not begun['problem']
    asked = ask(probe, 'direct')
    path, *_ = answered(tools, tmp_path / 'by_hand', asked.query_id)
    names = ['record_topics', 'record_rate']
    topics, rate = probe.call(GetParameters, 'get_parameters', GetParameters.Request(names=names)).values
    assert list(topics.string_array_value) == ['/tf', '/tf_static', '/recorded_words'] and rate.double_value == 0.5
    assert cooper('correct', '--id', asked.query_id, '--answer', 'blue box') == {'kept': True, 'message': ''}
    assert cooper('record')['questions'] > 0
    assert cooper('record', '--off')['bag'] == ''
    (listed,) = cooper('correct', path)['questions']
    assert (listed['query_id'], listed['verdict']['answer']) == (asked.query_id, 'blue box')
    assert 'same' in cooper('correct', path, '--id', asked.query_id, '--answer', 'blue box')['message']
    assert probe.set_parameters(record=str(folder), record_rate=0.0, record_topics=['/recorded_words'])[0].successful
    tools.wait_for(lambda: status(probe)[1].startswith('recording into'), 'recording to go on')


def test_recording_stops_and_begins_while_the_node_runs(recording, tools):
    _, probe, _, folder = recording
    answered(tools, folder, ask(probe, 'direct').query_id)
    before = bags_of(folder)
    assert probe.set_parameters(record='')[0].successful
    tools.wait_for(lambda: status(probe)[1] == 'not recording', 'recording to end')
    assert all((path / 'metadata.yaml').exists() for path in before)
    with AnyReader([before[-1]]) as reader:
        assert '/cooper/recorded/question' in {each.topic for each in reader.connections}
    unrecorded = ask(probe, 'direct')
    response = probe.call(Correct, 'correct', Correct.Request(query_id=unrecorded.query_id, answer='red ball'))
    assert not response.success and 'cooper record' in response.message
    assert probe.set_parameters(record=str(folder), record_rate=5.0)[0].successful
    tools.wait_for(lambda: int(status(probe)[2]['frames']) >= 2, 'frames to be recorded')
    assert len(bags_of(folder)) == len(before) + 1


def test_a_killed_node_loses_at_most_the_last_second(recording, tools):
    process, probe, camera, folder = recording
    probe.set_parameters(record_rate=0.0)
    response = ask(probe)
    time.sleep(1.0)
    process.process.send_signal(signal.SIGKILL)
    process.process.wait()
    path, question, pictures = answered(tools, folder, response.query_id)
    assert not (path / 'metadata.yaml').exists()
    assert question.answer == response.answer
    np.testing.assert_array_equal(pictures.image, camera.sent[question.stamp_ns])
    with QuestionBag(path) as bag:
        bag.questions()
        assert 'cut off' in bag.damage


@pytest.fixture
def small_disk(tmp_path):
    """Return a folder on a real file system of 2 MB."""
    folder = tmp_path / 'disk'
    folder.mkdir()
    done = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=2m', 'tmpfs', folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f'a small disk cannot be mounted here: {done.stderr.strip()}')
    yield folder
    subprocess.run(['umount', '-l', folder], check=True)


def test_a_full_disk_ends_the_recording_and_not_the_node(start_node, tools, picture, small_disk):
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)  # 230 kB that do not compress
    process, probe = start_node(
        f'record:={small_disk}/day', 'record_min_free:=0', 'record_rate:=10.0', name='full', namespace='/disk'
    )
    camera = tools.camera(probe, noise, namespace='/disk')
    tools.wait_for(lambda: probe.state() == 'active' or not process.running, 'the node to become active')
    _, text, values = tools.wait_for(lambda: _stopped(probe), 'the disk to fill')
    assert 'No space left' in text and int(values['frames']) >= 3
    assert 'No space left' in cooper('record', '--node', '/disk/full')['problem']
    assert ask(probe, 'direct').success
    assert os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize < 1_000_000
    bag = open_bag(bags_of(small_disk / 'day')[0])
    frames = list(bag.read(('/disk/image_raw',)))
    assert len(frames) >= 3 and 'cut off' in bag.damage
    # Once there is room again, recording goes on when asked to.
    for path in small_disk.rglob('*.mcap'):
        path.unlink()
    camera.stop()
    probe.set_parameters(record='', record_rate=0.0)
    tools.wait_for(lambda: status(probe)[1] == 'not recording', 'the reason to be forgotten')
    probe.set_parameters(record=f'{small_disk}/day')
    tools.wait_for(lambda: status(probe)[1].startswith('recording into'), 'recording to begin')


def _stopped(probe):
    found = status(probe)
    return found if found[0] == DiagnosticStatus.ERROR else None
