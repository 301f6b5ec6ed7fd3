"""Recorded questions that people corrected become training data."""

from __future__ import annotations

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')
pytest.importorskip('rosbags', reason='needs the extra bags')

from rclpy.serialization import serialize_message

from cooper_cli.bag2data_folder import DataFolder, Wishes
from cooper_model.types import Answer, CameraIntrinsics, Frame
from cooper_ros.harvest.frames import Options
from cooper_ros.recording.bag_writer import BagWriter
from cooper_ros.recording.corrections import Correction, CorrectionStore
from cooper_ros.recording.definitions import Definitions
from cooper_ros.recording.messages import Asked, frame_messages, question_messages, topic_names
from cooper_sim.robot_format import (
    UNKNOWN,
    RobotQuestion,
    RobotWriter,
    latest,
    parse_frame,
    parse_question,
)

TOPICS = topic_names(lambda name: name.replace('~', '/cooper') if name.startswith('~') else f'/{name}')
SIZE = (48, 64)
START = 1_700_000_000_000_000_000


def frame(number):
    image = cv2.resize(np.random.default_rng(number).integers(0, 256, (3, 4, 3), np.uint8), SIZE[::-1])
    camera = CameraIntrinsics.from_vertical_fov(50, SIZE[1], SIZE[0])
    return Frame(image, camera, np.full(SIZE, 1.5, np.float32), START + number, 'optical')


def write(writer, number, messages, topics=TOPICS):
    for role, message in messages.items():
        package, kind = type(message).__module__.split('.')[:2]
        name = f'{package}/{kind}/{type(message).__name__}'
        writer.write(topics[role], name, START + number, serialize_message(message))


@pytest.fixture
def bag(tmp_path):
    """Return a bag of four questions and a frame between them."""
    writer = BagWriter(tmp_path / 'cooper_day', Definitions())
    answers = [
        ('Left or right?', ('left', 'right'), Answer('left', 'direct')),
        ('How far is the mug, in metres?', (), Answer('0.4', 'direct', value=0.4, unit='m')),
        ('Is there a cup?', ('yes', 'no'), Answer('yes', 'direct')),
        ('What is this?', (), None),
    ]
    for number, (question, choices, answer) in enumerate(answers):
        problem = '' if answer else 'no answer in time'
        asked = Asked(f'id{number}', question, choices, 'direct', frame(number), True, answer, problem)
        write(writer, number, question_messages(asked, ''))
    write(writer, 9, frame_messages(frame(9)))
    writer.close()
    return writer.folder


def run(bag, out, *cameras):
    report, *_ = DataFolder(out, Wishes(Options(novelty=0.1), cameras=cameras)).add([bag])
    rows = [
        [json.loads(line) for line in (out / name).read_text().splitlines()] if (out / name).exists() else []
        for name in ('frames.jsonl', 'questions.jsonl')
    ]
    return report, *rows


def test_corrections_become_questions_with_the_right_answers(bag, tmp_path):
    store = CorrectionStore(bag)
    mask = np.zeros(SIZE, bool)
    mask[10:30, 20:50] = True
    store.add(Correction('id0', answer='right'))
    store.add(Correction('id1', answer='1.5 m', object='red mug', mask=mask))
    store.add(Correction('id2', useless=True))
    store.add(Correction('id3', answer='a stapler'))
    report, frames, questions = run(bag, tmp_path / 'out')
    assert {row['source'] for row in questions} == {'correction'}
    by_text = {row['question']: row for row in questions}
    assert set(by_text) == {'Left or right?', 'How far is the mug, in metres?', 'What is this?'}
    side, far, what = (by_text[text] for text in ('Left or right?', 'How far is the mug, in metres?', 'What is this?'))
    assert (side['form'], side['choices'], side['answer']) == ('choice', ['left', 'right'], 'right')
    assert (far['form'], far['value'], far['unit']) == ('number', 1.5, 'm')
    assert (what['form'], what['answer']) == ('open', 'a stapler')
    drawn = parse_frame(next(row for row in frames if row['id'] == far['frame']))
    ids = cv2.imread(str(tmp_path / 'out' / drawn.mask), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(ids, np.where(mask, 1, UNKNOWN))
    (mug,) = drawn.objects
    assert (mug.color, mug.kind, mug.metric) == ('red', 'mug', True) and mug.center[2] == pytest.approx(1.5)
    assert report.counts['corrections'] == 3 and report.counts['called useless'] == 1


def test_useless_frames_are_left_out_and_a_later_correction_is_added(bag, tmp_path):
    store = CorrectionStore(bag)
    store.add(Correction('id2', useless=True))
    report, frames, questions = run(bag, tmp_path / 'out')
    assert [row['stamp_ns'] - START for row in frames] == [0, 1, 3, 9] and not questions
    assert report.left_out['called useless by a person'] == 1
    store.add(Correction('id0', answer='right'))
    for _ in range(2):
        report, frames, questions = run(bag, tmp_path / 'out')
        assert len(frames) == 4 and [row['frame'] for row in questions] == [frames[0]['id']]


def test_the_last_word_of_a_person_holds(bag, tmp_path):
    store = CorrectionStore(bag)
    for answer, lines in (('left', 1), ('right', 2), ('right', 2)):
        store.add(Correction('id0', answer=answer))
        _, frames, questions = run(bag, tmp_path / 'out')
        assert len(questions) == lines and questions[-1]['answer'] == answer
        (held,) = latest(map(parse_question, questions))
        assert (held.frame, held.answer) == (frames[0]['id'], answer)
    RobotWriter(tmp_path / 'out').add_question(RobotQuestion(frames[3]['id'], 'What is this?', 'a cup'))
    store.add(Correction('id3', answer='a stapler'))
    run(bag, tmp_path / 'out')
    assert latest(RobotWriter(tmp_path / 'out').questions)[-1].answer == 'a stapler'


def box(left):
    mask = np.zeros(SIZE, bool)
    mask[10:30, left : left + 20] = True
    return mask


def test_masks_that_are_drawn_again_replace_the_earlier_ones(bag, tmp_path):
    store, out = CorrectionStore(bag), tmp_path / 'out'
    store.add(Correction('id0', answer='right'))
    _, frames, _ = run(bag, out)
    of_camera = frames[0]['id']
    for left in (5, 30):
        store.add(Correction('id0', answer='left', object='red mug', mask=box(left)))
        report, frames, questions = run(bag, out)
        drawn = parse_frame(frames[-1])
        ids = cv2.imread(str(out / drawn.mask), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(ids, np.where(box(left), 1, UNKNOWN))
        assert drawn.objects[0].box[0] == left and drawn.stamp_ns == START and drawn.depth
    assert frames[-1]['id'] == frames[-2]['id'] != of_camera and report.counts['masks changed'] == 1
    # Nor does the earlier answer go on standing beside the frame as the camera took it.
    answers = {each.frame: each.answer for each in latest(map(parse_question, questions))}
    assert answers == {of_camera: 'left', drawn.id: 'left'}
    report, *again = run(bag, out)
    assert again == [frames, questions] and report.left_out['correction is in the folder already'] == 1
    store.add(Correction('id0', object='blue box', mask=box(0)))
    assert run(bag, out)[0].counts['masks changed'] == 1
    assert [thing.name for thing in RobotWriter(out).frames[drawn.id].objects] == ['red mug', 'blue box']


def test_a_mask_that_is_lost_is_named_and_what_the_folder_has_of_it_stays(bag, tmp_path):
    store, out = CorrectionStore(bag), tmp_path / 'out'
    store.add(Correction('id0', object='red mug', mask=box(5)))
    store.add(Correction('id0', object='blue box', mask=box(30)))
    _, frames, _ = run(bag, out)
    lost = bag / store.verdicts()['id0'].masks['red mug']
    lost.unlink()
    report, again, _ = run(bag, out)
    assert again == frames and f"{lost}: this mask cannot be read; draw 'red mug' again" in report.problems


def test_a_frame_that_is_called_useless_too_late_is_named(bag, tmp_path):
    _, frames, _ = run(bag, tmp_path / 'out')
    CorrectionStore(bag).add(Correction('id2', useless=True))
    report, again, _ = run(bag, tmp_path / 'out')
    assert frames == again and any(frames[2]['id'] in text and 'stays' in text for text in report.problems)


def test_cameras_whose_topics_have_other_names_are_known_by_their_frames(tmp_path):
    writer = BagWriter(tmp_path / 'cooper_day', Definitions())
    driver = {'front': '/rig/left/color', 'rear': '/rig/right/color'}
    for number, (camera, topic) in enumerate(driver.items()):
        topics = topic_names(lambda name: name.replace('~', '/cooper'), camera)
        topics['image'] = f'{topic}/image_raw'
        seen = replace(frame(number), stamp_ns=START, frame_id=f'{camera}_optical')
        asked = Asked(f'id{number}', 'What is this?', (), 'direct', seen, True, None, 'no answer in time', camera)
        write(writer, number, question_messages(asked, ''), topics)
    writer.close()
    store = CorrectionStore(writer.folder)
    store.add(Correction('id0', useless=True))
    store.add(Correction('id1', answer='a stapler'))
    report, frames, questions = run(writer.folder, tmp_path / 'out', 'left', 'right')
    assert report.camera == 'left' and report.left_out['called useless by a person'] == 1
    assert [row['frame_id'] for row in frames] == ['rear_optical']  # once, as the camera took it
    assert [row['frame'] for row in questions] == [frames[0]['id']]


def test_what_the_node_generated_is_no_truth(bag, tmp_path):
    report, frames, _ = run(bag, tmp_path / 'out')
    assert set(report.topics) == {'image', 'depth', 'camera_info'} and report.topics['image'] == '/image_raw'
    assert not any(row['mask'] for row in frames)
