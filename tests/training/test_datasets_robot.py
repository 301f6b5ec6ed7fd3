"""A robot's folder: what the writer writes is what the reader reads."""

from __future__ import annotations

from dataclasses import asdict, replace

import numpy as np
import pytest
from PIL import Image

from cooper_model.types import CameraIntrinsics, Frame
from cooper_sim.robot_format import (
    FRAMES,
    QUESTIONS,
    UNKNOWN,
    RobotFrame,
    RobotQuestion,
    RobotWriter,
    millimetres,
    parse_frame,
    parse_question,
)
from cooper_sim.types import VisibleObject
from training.datasets.base import DataEntry
from training.datasets.registry import open_pictures, open_questions
from training.datasets.report import LeftOut
from training.retrain_data import RobotFolder

CAMERA = CameraIntrinsics(96.0, 96.0, 63.5, 47.5, 128, 96)
BALL = VisibleObject(
    7, 'ball', 'red', 'red ball', (0, 0, 32, 32), 1024, 1.0, 1.0, (-0.3, -0.2, 1.0), (0.2, 0.2, 0.2), 1.0
)
CAT = replace(BALL, id=9, kind='cat', name='cat', box=(64, 0, 96, 32))
UP = (0.0, -1.0, 0.0)


def scene():
    """Return a frame with a ball and a cat, the mask of both, and an unknown corner; depth is known on the left."""
    rng = np.random.default_rng(0)
    depth = np.full((96, 128), 1.25, np.float32)
    depth[:, 64:] = np.nan
    mask = np.zeros((96, 128), np.int64)
    mask[:32, :32], mask[:32, 64:96], mask[64:, 96:] = 7, 9, UNKNOWN
    image = rng.integers(0, 256, (96, 128, 3), np.uint8)
    return Frame(image, CAMERA, depth, stamp_ns=12, frame_id='camera'), mask


@pytest.fixture
def folder(tmp_path):
    writer = RobotWriter(tmp_path)
    frame, mask = scene()
    writer.add_frame('a', frame, mask, (BALL, CAT), UP)
    writer.add_frame('b', replace(frame, depth=None, intrinsics=None), mask, (BALL, CAT))
    writer.add_frame('c', replace(frame, stamp_ns=13))
    writer.add_frame('d', replace(frame, depth=None))
    far = RobotQuestion('a', 'How far is the red ball?', '1.0 m', 'number', (), 1.0, 'm', 'metric_distance', (7,))
    writer.add_question(far)
    writer.add_question(RobotQuestion('d', 'Is there a cat?', 'yes', 'yes_no', ('yes', 'no'), source='correction'))
    return tmp_path


def test_frames_come_back_as_they_were_written(words, folder, caplog):
    data = open_pictures(DataEntry('robot', str(folder)), words)
    frame, mask = scene()
    assert [item.frame.id for item in data.items] == ['a', 'b', 'c']
    assert data.report.left_out['nothing valid'][0].startswith(f'{folder / FRAMES}:4: the frame has neither depth')
    example = data.example(0)
    assert example.image.shape == (48, 64, 3)
    np.testing.assert_allclose(example.truth.depth, frame.depth)
    depth, masks = example.targets['depth'], example.targets['segmentation']
    np.testing.assert_allclose(depth.picture, 0.25)  # 1.25 m of 5 m
    assert depth.valid[:, :32].all() and not depth.valid[:, 32:].any()
    picture, code = np.round(masks.picture * 255).astype(int), words.config.colour_code
    assert (picture[:16, :16, :2] == code.red_green[code.names.index('ball')]).all()
    assert (picture[:16, 32:48] == (*code.background, 0)).all()  # a cat is none of the checkpoint's classes
    assert masks.valid.sum() == 48 * 64 - 16 * 16 and not masks.valid[40, 60]
    values = data.score(example, {kind: target.picture for kind, target in example.targets.items()})
    assert values['miou'] == [1.0] and values['delta1'] == [1.0]
    assert set(data.example(1).targets) == {'segmentation'} and set(data.example(2).targets) == {'depth'}


def test_a_record_is_of_the_size_that_the_model_sees(words, folder):
    data = open_pictures(DataEntry('robot', str(folder)), words)
    record = data.example(0).record
    assert record.image.shape == (48, 64, 3) and record.ids.shape == (48, 64)
    assert (record.intrinsics.fx, record.intrinsics.width) == (48.0, 64) and record.up == UP
    assert record.visible[0] == replace(BALL, box=(0, 0, 16, 16), area=256)
    assert (record.ids[:16, :16] == 7).all()
    assert data.example(1).record is None and data.example(2).record is None


def test_questions_come_with_their_truth(words, folder):
    data = open_questions(DataEntry('robot', str(folder)), words)
    far, cat = data.question(0), data.question(1)
    assert far.image.shape == (96, 128, 3) and far.intrinsics == CAMERA and far.object_ids == (7,)
    assert far.record is not None and far.category == 'metric_distance'
    assert data.reward('110 cm', far) == 1 and data.reward('2 m', far) == 0
    assert cat.choices == ('yes', 'no') and data.reward('yes', cat) == 1 and cat.record is None
    assert len(open_questions(DataEntry('robot', str(folder), held_out=1), words)) == 1


def test_the_last_mask_of_a_frame_holds(words, folder):
    moved = np.roll(scene()[1], 16, 1)
    thing = replace(BALL, box=(16, 0, 48, 32))
    kept = RobotWriter(folder)
    assert kept.change_mask('a', moved, (thing, CAT)) and not kept.change_mask('a', moved, (thing, CAT))
    assert not RobotWriter(folder).change_mask('a', moved, (thing, CAT))
    data = open_pictures(DataEntry('robot', str(folder)), words)
    assert [item.frame.id for item in data.items] == ['a', 'b', 'c']
    assert data.items[0].frame.objects[0] == thing and data.items[0].frame.up == UP
    assert (data.example(0).record.ids[:16, 8:24] == 7).all()
    assert len(RobotFolder(folder, words).frames) == 4
    assert open_questions(DataEntry('robot', str(folder)), words).frames['a'].objects[0] == thing
    with pytest.raises(ValueError, match="no frame 'f'"):
        kept.change_mask('f', moved, (thing, CAT))
    with pytest.raises(ValueError, match='on an image of'):
        kept.change_mask('a', moved[1:], (thing, CAT))


def test_a_writer_goes_on_after_a_kill(words, folder):
    whole = (folder / FRAMES).read_bytes()
    with open(folder / FRAMES, 'ab') as file:
        file.write(b'{"id": "torn", "im')
    writer = RobotWriter(folder)
    assert (folder / FRAMES).read_bytes() == whole
    assert set(writer.frames) == {'a', 'b', 'c', 'd'} and len(writer.questions) == 2
    writer.add_frame('e', scene()[0])
    assert len(open_pictures(DataEntry('robot', str(folder)), words)) == 4


def test_what_does_not_fit_together_is_not_written(folder):
    writer = RobotWriter(folder)
    frame, mask = scene()
    lines = (folder / FRAMES).read_bytes()
    with pytest.raises(ValueError, match="holds a frame 'a' already"):
        writer.add_frame('a', frame)
    with pytest.raises(ValueError, match=r'the mask has ids \[9\] that no object has'):
        writer.add_frame('f', frame, mask, (BALL,))
    with pytest.raises(ValueError, match='mask of shape'):
        writer.add_frame('f', frame, mask[:10], (BALL, CAT))
    with pytest.raises(ValueError, match='cannot name a file'):
        writer.add_frame('../f', frame)
    with pytest.raises(ValueError, match='expected a vector of length 1'):
        writer.add_frame('f', frame, up=(0.0, 2.0, 0.0))
    with pytest.raises(ValueError, match="no frame 'f' to ask about"):
        writer.add_question(RobotQuestion('f', 'What?', 'that'))
    with pytest.raises(ValueError, match="form is 'letter', expected one of choice"):
        RobotQuestion('a', 'What?', 'that', 'letter')
    assert (folder / FRAMES).read_bytes() == lines and not (folder / 'images/f.png').exists()


def test_broken_lines_of_both_lists_are_named(words, folder):
    (folder / 'depth/c.png').unlink()
    with open(folder / FRAMES, 'a') as file:
        file.write('{"id": "x"}\n{"id": "y", "image": "images/a.png", "depht": "depth/a.png"}\n')
    with open(folder / QUESTIONS, 'a') as file:
        file.write('{"frame": "x", "question": "What?", "answer": "that"}\n')
        file.write('{"frame": "a", "question": "", "answer": "no"}\n')
    data = open_questions(DataEntry('robot', str(folder)), words)
    frames = {reason: [text.split(': ')[0] for text in texts] for reason, texts in data.frame_report.left_out.items()}
    path = folder / FRAMES
    assert frames == {'missing file': [f'{path}:3'], 'broken line': [f'{path}:5', f'{path}:6']}
    questions = {reason: [text.split(': ')[0] for text in texts] for reason, texts in data.report.left_out.items()}
    path = folder / QUESTIONS
    assert questions == {'missing file': [f'{path}:3'], 'broken line': [f'{path}:4']}


@pytest.mark.parametrize(('row', 'fault'), [
    ({'objects': ['ball']}, 'expected a mapping'),
    ({'objects': [{**asdict(BALL), 'box': '0 0 9 9'}]}, 'box is .*, expected 4 numbers'),
    ({'objects': [{**asdict(BALL), 'area': None}]}, 'area of an object is None'),
    ({'up': [0.0, 1.0]}, 'expected 3 numbers'),
    ({'id': 7}, 'expected a text'),
    ({'intrinsics': {'fx': 1.0}}, 'missing'),
])  # fmt: skip
def test_a_wrong_value_in_a_frame_is_named(row, fault):
    with pytest.raises((TypeError, ValueError), match=fault):
        parse_frame({'id': 'a', 'image': 'a.png', **row})


@pytest.mark.parametrize(
    'row', [{'choices': [1]}, {'choices': 'yes'}, {'object_ids': ['7']}, {'value': 'x'}, {'why': 1}]
)
def test_a_wrong_value_in_a_question_is_named(row):
    with pytest.raises((TypeError, ValueError)):
        parse_question({'frame': 'a', 'question': 'What?', 'answer': 'that', **row})


def test_a_frame_that_knows_nothing_is_left_out(words, tmp_path):
    frame, mask = scene()
    writer = RobotWriter(tmp_path)
    writer.add_frame('a', replace(frame, depth=np.full_like(frame.depth, np.nan)), mask, (BALL, CAT))
    writer.add_frame('b', replace(frame, depth=np.full_like(frame.depth, np.nan)))
    data = open_pictures(DataEntry('robot', str(tmp_path)), words)
    assert set(data.example(0).targets) == {'segmentation'}
    with pytest.raises(LeftOut, match='depth and mask of frame b know no pixel'):
        data.example(1)


def test_a_mask_with_ids_that_no_object_has_is_left_out(words, folder):
    Image.fromarray(np.full((96, 128), 3, np.uint16)).save(folder / 'masks/a.png')
    with pytest.raises(LeftOut, match=r'ids \[3\] that no object of the line has'):
        open_pictures(DataEntry('robot', str(folder)), words).example(0)


def test_a_folder_without_frames_says_what_writes_them(words, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'frames\.jsonl is missing\. Name a folder that cooper bag2data wrote'):
        open_pictures(DataEntry('robot', str(tmp_path)), words)
    with pytest.raises(ValueError, match='frames are not mirrored'):
        open_pictures(DataEntry('robot', str(tmp_path), flip=True), words)


def test_depth_in_millimetres_has_no_value_where_there_is_none():
    metres = np.array([1.2345, np.nan, -1.0, 0.0, np.inf, 70.0, 65.535])
    assert millimetres(metres).tolist() == [1234, 0, 0, 0, 0, 0, 65535]


def test_of_a_question_that_is_asked_again_the_last_answer_holds(words, folder):
    RobotWriter(folder).add_question(RobotQuestion('a', 'How far is the red ball?', '2 m', source='correction'))
    data = open_questions(DataEntry('robot', str(folder)), words)
    assert [question.answer for question in data.items] == ['2 m', 'yes']
    assert [each.answer for each in RobotFolder(folder, words).questions['a']] == ['2 m']


def test_ids_of_objects_differ():
    with pytest.raises(ValueError, match=r'object ids are \[7, 7\]'):
        RobotFrame('a', 'a.png', objects=(BALL, BALL))
