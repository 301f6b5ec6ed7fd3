"""From bags to training data: what is chosen, matched, measured, asked, corrected, left out and told."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs the extra bags')

from rosbags.rosbag1 import Writer as Ros1Writer
from typer.testing import CliRunner

from cooper_cli.bag2data_folder import DataFolder, Wishes
from cooper_cli.main import app
from cooper_model.types import CameraIntrinsics
from cooper_ros.harvest.frames import Options
from cooper_ros.harvest.gravity import Gravity
from cooper_ros.harvest.novelty import Novelty
from cooper_ros.harvest.pixels import in_metres
from cooper_ros.salvage import open_bag
from cooper_sim.robot_format import UNKNOWN, RobotWriter, parse_frame
from tests.ros.compressed_depth import compressed_depth, millimetres
from tests.ros.scribe import SECOND, Scribe

SHARED = Path(os.environ.get('COOPER_SHARED', Path(__file__).parents[3] / 'shared')) / 'data' / 'bags'
START = 1_700_000_000 * SECOND
STEP = SECOND // 10
WIDTH, HEIGHT, FOCAL = 96, 72, 90.0
LABELS = {1: 'mug', 2: 'box'}
# The optical frame of a camera that looks along the x axis of a level robot.
AHEAD = (-0.5, 0.5, -0.5, 0.5)
IMAGE, INFO, DEPTH, MASK = '/camera/image_raw', '/camera/camera_info', '/camera/aligned/image', '/camera/instances'


def scene(number):
    """Return image, depth [m] and instances: a mug left of and nearer than a box, before a wall 3 m away."""
    rng = np.random.default_rng(number)
    image = cv2.resize(rng.integers(0, 256, (4, 6, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
    depth, ids = np.full((HEIGHT, WIDTH), 3.0, np.float32), np.zeros((HEIGHT, WIDTH), np.uint16)
    for id_, (left, top, right, bottom), z in ((1, (8, 24, 28, 44), 1.0), (2, (56, 28, 80, 52), 2.0)):
        ids[top:bottom, left:right], depth[top:bottom, left:right] = id_, z
    depth[0, :10] = np.nan
    return image, depth, ids


def write_frame(scribe, number, *, depth_of=lambda depth: (millimetres(depth), '16UC1'), late=0, masks=True):
    image, depth, ids = scene(number)
    ns = START + number * STEP
    scribe.info(INFO, ns, size=(WIDTH, HEIGHT), focal=FOCAL)
    scribe.pixels(IMAGE, ns, image, 'rgb8')
    if depth_of is not None:
        scribe.pixels(DEPTH, ns + late, *depth_of(depth), at=max(ns, ns + late))
    if masks:
        scribe.pixels(MASK, ns, ids, 'mono16')


def bag_of(tmp_path, storage='mcap', frames=3, tf=True, name='walk', **options):
    path = tmp_path / (f'{name}.bag' if storage == 'ros1' else name)
    scribe = Scribe(path, storage)
    with scribe.writer:
        if tf and storage != 'ros1':
            scribe.transform('/tf_static', START, 'base_link', 'camera_optical', AHEAD)
        for number in range(frames):
            write_frame(scribe, number, **options)
    return path


def harvest(out, *bags, labels=LABELS, **options):
    return DataFolder(out, Wishes(Options(**options), labels)).add(list(bags))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap', 'ros1'])
def test_a_bag_becomes_frames_with_depth_masks_and_questions(tmp_path, storage):
    path = bag_of(tmp_path, storage)
    (report,) = harvest(tmp_path / 'out', path)
    assert not report.problems
    assert report.topics == {'image': IMAGE, 'depth': DEPTH, 'mask': MASK, 'camera_info': INFO}
    counts = report.counts
    assert (counts['images'], counts['frames'], counts['with depth'], counts['with mask']) == (3, 3, 3, 3)
    rows = lines(tmp_path / 'out' / 'frames.jsonl')
    frame = parse_frame(rows[1])
    image, depth, ids = scene(1)
    root = tmp_path / 'out'
    np.testing.assert_array_equal(cv2.imread(str(root / frame.image))[:, :, ::-1], image)
    np.testing.assert_array_equal(cv2.imread(str(root / frame.depth), cv2.IMREAD_UNCHANGED), millimetres(depth))
    np.testing.assert_array_equal(cv2.imread(str(root / frame.mask), cv2.IMREAD_UNCHANGED), ids)
    assert frame.stamp_ns == START + STEP and frame.intrinsics.fx == FOCAL
    mug, box = frame.objects
    assert (mug.name, mug.box, mug.area, mug.in_frame) == ('mug', (8, 24, 28, 44), 400, 1.0)
    assert box.center[2] == pytest.approx(2.0) and box.size[1] == pytest.approx(24 / FOCAL * 2, rel=0.1)
    if storage != 'ros1':
        np.testing.assert_allclose(frame.up, (0, -1, 0), atol=1e-6)
    questions = lines(root / 'questions.jsonl')
    assert len(questions) == 12 and {each['source'] for each in questions} == {'rule'}
    for each in questions:
        assert_true(each)
    assert json.loads((root / 'report.json').read_text())['frames'] == 3


def assert_true(question):
    """Check an answer against the scene, with rules of its own: a mug at the left 1 m away, a box 2 m away."""
    text, answer = question['question'].lower(), question['answer']
    first = min(('mug', 'box'), key=lambda name: text.find(name) % len(text))
    if question['category'] == 'left_right' and question['form'] == 'choice':
        assert answer == ('left' if first == 'mug' else 'right')
    if question['category'] in ('relative_distance',) and question['form'] == 'choice':
        near = any(word in text for word in ('closer', 'nearer'))
        assert answer == ('mug' if near else 'box')
    if question['category'] == 'front_behind' and question['form'] == 'choice':
        assert answer == ('in front' if first == 'mug' else 'behind')
    if question['category'] == 'metric_distance':
        column, row, z = (18, 34, 1.0) if 'mug' in text else (68, 40, 2.0)
        expected = z * np.hypot(np.hypot((column - 4) / FOCAL, (row - 3) / FOCAL), 1)  # Scribe's principal point
        assert question['value'] == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize('encoding', ['16UC1', '32FC1'])
def test_compressed_depth_is_read(tmp_path, encoding):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    image, depth, _ = scene(0)
    with scribe.writer:
        scribe.compressed('/c/image/compressed', START, cv2.imencode('.png', image[:, :, ::-1])[1].tobytes(), 'png')
        form = f'{encoding}; compressedDepth png'
        scribe.compressed('/c/depth_registered/compressedDepth', START, compressed_depth(depth, encoding), form)
    (report,) = harvest(tmp_path / 'out', tmp_path / 'bag')
    assert report.counts['with depth'] == 1 and not report.problems
    frame = parse_frame(lines(tmp_path / 'out' / 'frames.jsonl')[0])
    found = cv2.imread(str(tmp_path / 'out' / frame.depth), cv2.IMREAD_UNCHANGED)
    np.testing.assert_allclose(found, millimetres(depth), rtol=0.002, atol=1)


def test_millimetres_that_are_declared_metres_are_noticed(tmp_path):
    path = bag_of(tmp_path, depth_of=lambda depth: ((depth * 1000).astype(np.float32), '32FC1'))
    (report,) = harvest(tmp_path / 'out', path)
    assert len(report.problems) == 1
    assert all(part in report.problems[0] for part in (DEPTH, '32FC1', '3000', 'read as millimetres'))
    frame = parse_frame(lines(tmp_path / 'out' / 'frames.jsonl')[0])
    found = cv2.imread(str(tmp_path / 'out' / frame.depth), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(found, millimetres(scene(0)[1]))


def test_depth_of_no_unit_at_all_is_left_out(tmp_path):
    path = bag_of(tmp_path, depth_of=lambda depth: ((depth * 1e6).astype(np.float32), '32FC1'))
    (report,) = harvest(tmp_path / 'out', path)
    assert report.counts['with depth'] == 0 and any('neither metres' in reason for reason in report.left_out)
    assert not in_metres(np.full((2, 2), 40.0, np.float32), '32FC1').surprise


def test_the_distance_in_time_is_told_and_limited(tmp_path):
    near = bag_of(tmp_path, late=SECOND // 50, name='near')
    far = bag_of(tmp_path, late=STEP // 2 + 1, name='far', frames=1)
    report, missed = harvest(tmp_path / 'out', near, far, novelty=0.0, tolerance=0.03)
    assert report.offsets['depth']['median'] == pytest.approx(0.02) and report.counts['with depth'] == 3
    assert report.offsets['mask']['largest'] == 0
    assert missed.counts['with depth'] == 0 and missed.left_out['depth: none within the tolerance of 0.03 s'] == 1
    assert missed.counts['depth missed by at least [ms]'] == 50


def test_clocks_that_disagree_are_named(tmp_path):
    (report,) = harvest(tmp_path / 'out', bag_of(tmp_path, late=-7 * SECOND))
    assert report.counts['with depth'] == 0
    assert any('clocks disagree' in text and DEPTH in text and '7.00 s' in text for text in report.problems)


def test_only_what_is_new_is_chosen(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    rng = np.random.default_rng(0)
    with scribe.writer:
        for number in range(20):
            image = scene(number // 5)[0]
            noisy = np.clip(image.astype(int) + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8)
            scribe.pixels(IMAGE, START + number * STEP, noisy, 'rgb8')
    (report,) = harvest(tmp_path / 'out', tmp_path / 'bag')
    stamps = [row['stamp_ns'] for row in lines(tmp_path / 'out' / 'frames.jsonl')]
    assert stamps == [START + number * STEP for number in (0, 5, 10, 15)]
    assert report.left_out['shows nothing new'] == 16


def test_a_second_run_adds_nothing_and_a_killed_one_is_completed(tmp_path):
    first, second = bag_of(tmp_path, name='first'), bag_of(tmp_path, name='second', frames=5)
    harvest(tmp_path / 'whole', first, second)
    whole = [lines(tmp_path / 'whole' / name) for name in ('frames.jsonl', 'questions.jsonl')]
    assert len(whole[0]) == 5  # the frames of the second bag that the first has not
    harvest(tmp_path / 'out', first)
    questions = tmp_path / 'out' / 'questions.jsonl'
    text = questions.read_text()
    questions.write_text(text[: len(text) * 2 // 3])  # killed within a line
    for _ in range(2):
        harvest(tmp_path / 'out', first, second)
        found = [lines(tmp_path / 'out' / name) for name in ('frames.jsonl', 'questions.jsonl')]
        for ours, theirs in zip(found, whole, strict=True):
            assert sorted(map(json.dumps, ours)) == sorted(map(json.dumps, theirs))


def test_the_report_tells_of_every_bag_that_went_in(tmp_path):
    out, first, second = tmp_path / 'out', tmp_path / 'first', tmp_path / 'second'
    harvest(out, first)  # there is no such bag yet
    bag_of(tmp_path, name='second', frames=5)
    harvest(out, second)
    bag_of(tmp_path, name='first')
    harvest(out, first)
    report = json.loads((out / 'report.json').read_text())
    assert [(Path(each['bag']).name, each['counts']['images']) for each in report['bags']] == [
        ('second', 5), ('first', 3)
    ]  # fmt: skip
    assert report['frames'] == len(lines(out / 'frames.jsonl')) == 5
    assert not any(each['problems'] for each in report['bags'])


@pytest.mark.parametrize('text', ['{"bags": [', '[]', '{"bags": [{"bag": "x"}]}', '{"bags": [3]}'])
def test_a_report_that_is_none_is_named(tmp_path, text):
    (tmp_path / 'report.json').write_text(text)
    with pytest.raises(ValueError, match='report.json is no report of cooper bag2data .* delete it to go on'):
        harvest(tmp_path, bag_of(tmp_path))


@pytest.mark.parametrize('storage', ['sqlite3', 'mcap', 'ros1'])
def test_a_truncated_bag_gives_what_is_whole_and_names_the_rest(tmp_path, storage):
    path = bag_of(tmp_path, storage, frames=60, masks=False)  # of 2 MB, so that there are several chunks
    file = path if storage == 'ros1' else next(each for each in path.iterdir() if each.suffix in ('.db3', '.mcap'))
    os.truncate(file, file.stat().st_size * 3 // 4)
    (report,) = harvest(tmp_path / 'out', path)
    assert 10 < report.counts['frames'] < 50 and report.counts['with depth'] >= report.counts['frames'] - 1
    assert any(file.name in text for text in report.problems)


def test_bags_that_cannot_be_used_say_why_and_do_not_stop_the_others(tmp_path):
    good = bag_of(tmp_path)
    blind = tmp_path / 'blind'
    scribe = Scribe(blind, 'sqlite3')
    with scribe.writer:
        scribe.info(INFO, START)
        scribe.pixels('/depth/image', START, millimetres(scene(0)[1]), '16UC1')
    broken = tmp_path / 'broken.mcap'
    broken.write_bytes(b'nothing')
    no_image, unread, used = harvest(tmp_path / 'out', blind, broken, good)
    assert 'no camera images' in no_image.problems[0] and '/depth/image' in no_image.problems[0]
    assert 'nothing in it can be read' in unread.problems[0]
    assert used.counts['frames'] == 3


@pytest.mark.parametrize('compression', ['LZ4', 'BZ2'])
def test_a_damaged_chunk_is_named_and_does_not_stop_the_others(tmp_path, compression):
    path = tmp_path / 'packed.bag'
    scribe = Scribe(path, 'ros1')
    scribe.writer.set_compression(Ros1Writer.CompressionFormat[compression])
    with scribe.writer:
        write_frame(scribe, 0)
    data = bytearray(path.read_bytes())
    quarter = len(data) // 4
    data[quarter : 3 * quarter] = b'\xa5' * (2 * quarter)
    path.write_bytes(data)
    damaged, used = harvest(tmp_path / 'out', path, bag_of(tmp_path))
    assert 'Error: ' in damaged.problems[-1], damaged.problems
    assert used.counts['frames'] == 3


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--image-topic', '/camera/camera_info'], 'CameraInfo, not sensor_msgs Image'),
        (['--image-topic', '/nothing'], 'there is no such topic'),
        (['--image-topic', DEPTH], 'holds depth'),
        (['--depth-topic', IMAGE], 'encoding rgb8'),
        (['--info-topic', IMAGE], 'no CameraInfo'),
    ],
)
def test_topics_of_the_wrong_type_are_named(tmp_path, arguments, reason, capsys):
    path = bag_of(tmp_path, frames=1)
    done = CliRunner().invoke(app, ['bag2data', str(path), '--out', str(tmp_path / 'out'), *arguments])
    assert done.exit_code == 1 and reason in f'{done.output}{done.stderr}{capsys.readouterr().err}'


def test_depth_that_lies_on_other_pixels_is_not_used(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    image, depth, _ = scene(0)
    with scribe.writer:
        scribe.pixels(IMAGE, START, image, 'rgb8')
        scribe.pixels('/camera/depth/image', START, millimetres(depth), '16UC1', frame='depth_optical')
        scribe.pixels('/camera/aligned_depth/image', START, millimetres(depth)[:, :40], '16UC1')
    (report,) = harvest(tmp_path / 'out', tmp_path / 'bag')
    assert 'not registered' in report.unused['/camera/depth/image']
    assert any('do not fit' in reason for reason in report.left_out) and report.counts['frames'] == 1


def test_up_is_read_from_transforms_in_motion(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    half = np.sqrt(0.5)
    with scribe.writer:
        scribe.transform('/tf_static', START, 'base_link', 'camera_optical', AHEAD)
        scribe.transform('/tf', START, 'odom', 'base_link', (0.0, 0.0, 0.0, 1.0))
        scribe.transform('/tf', START + SECOND, 'odom', 'base_link', (half, 0.0, 0.0, half))  # rolled to its right
    bag = open_bag(tmp_path / 'bag')
    based, rolled = Gravity(bag, 'base_link'), Gravity(bag)  # without a name odom, which does not tilt
    np.testing.assert_allclose(based.up('camera_optical', START + 2 * SECOND)[0], (0, -1, 0), atol=1e-9)
    np.testing.assert_allclose(rolled.up('camera_optical', START + SECOND // 2)[0], (0, -1, 0), atol=1e-9)
    np.testing.assert_allclose(rolled.up('camera_optical', START + 2 * SECOND)[0], (-1, 0, 0), atol=1e-9)
    up, reason = rolled.up('elsewhere', START)
    assert up is None and 'elsewhere' in reason
    bag.close()


def test_a_robot_s_prefix_hides_no_level_frame(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    half = np.sqrt(0.5)
    with scribe.writer:
        scribe.transform('/tf_static', START, 'tb1/base_link', 'tb1/camera_optical', AHEAD)
        scribe.transform('/tf', START, 'tb1/odom', 'tb1/base_link', (half, 0.0, 0.0, half))
    bag = open_bag(tmp_path / 'bag')
    for level in ('', 'odom', 'tb1/odom'):
        np.testing.assert_allclose(Gravity(bag, level).up('tb1/camera_optical', START)[0], (-1, 0, 0), atol=1e-9)
    bag.close()


def test_novelty_ignores_brightness_and_noise():
    novelty = Novelty()
    image = scene(0)[0]
    assert novelty.choose(image)
    assert not novelty.choose((image * 0.7).astype(np.uint8))
    assert not novelty.choose(np.roll(image, 1, 1))
    assert novelty.choose(image[:, ::-1]) and novelty.choose(scene(1)[0])


def test_class_masks_become_objects_with_names_apart(tmp_path):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    image, ids = np.full((HEIGHT, WIDTH, 3), 90, np.uint8), np.zeros((HEIGHT, WIDTH), np.uint8)
    for left, color in ((5, (210, 20, 20)), (60, (20, 40, 200))):
        ids[30:50, left : left + 20], image[30:50, left : left + 20] = 1, color
    with scribe.writer:
        scribe.pixels(IMAGE, START, image, 'rgb8')
        scribe.pixels('/net/class_mask', START, ids, 'mono8')
    (report,) = harvest(tmp_path / 'out', tmp_path / 'bag', labels={0: 'background', 1: 'mug'})
    frame = parse_frame(lines(tmp_path / 'out' / 'frames.jsonl')[0])
    assert [thing.name for thing in frame.objects] == ['red mug', 'blue mug']
    assert not any(thing.metric for thing in frame.objects) and report.counts['questions'] > 0
    assert {each['category'] for each in lines(tmp_path / 'out' / 'questions.jsonl')} == {'left_right'}


def test_a_mask_without_names_is_told(tmp_path):
    (report,) = harvest(tmp_path / 'out', bag_of(tmp_path), labels={})
    assert any('nothing names' in text for text in report.problems)
    assert all(not row['mask'] for row in lines(tmp_path / 'out' / 'frames.jsonl'))


@pytest.fixture
def shared():
    if not SHARED.is_dir():
        pytest.skip('shared data is not here')
    return SHARED


def test_a_real_hand_held_camera(shared, tmp_path):
    (report,) = harvest(tmp_path / 'out', shared / 'tum_fr1_rpy_ros2')
    assert report.counts['images'] == 40 and 10 < report.counts['frames'] < 40
    assert report.counts['with depth'] == report.counts['with camera'] == report.counts['frames']
    assert abs(report.offsets['depth']['largest']) <= 0.02 and not report.problems
    assert any('no transform' in reason for reason in report.left_out)
    assert len(RobotWriter(tmp_path / 'out').frames) == report.counts['frames']


def test_a_real_depth_camera(shared, tmp_path):
    path = shared / 'realsense_d435_ros2'
    strict, patient = (harvest(tmp_path / name, path, tolerance=limit)[0] for name, limit in (('a', 0.05), ('b', 0.06)))
    assert strict.counts['with depth'] == 0 and strict.counts['depth missed by at least [ms]'] == 53
    assert patient.counts['with depth'] == 1 and patient.offsets['depth']['median'] == pytest.approx(-0.053, abs=0.001)
    assert 'not registered' in patient.unused['/camera/depth/image_rect_raw']


def test_a_real_ros_1_bag(shared, tmp_path):
    (report,) = harvest(tmp_path / 'out', shared / 'realsense_d435_sdk_native.bag')
    assert report.counts['frames'] == 1 and 'Color' in report.topics['image']
    frame = parse_frame(lines(tmp_path / 'out' / 'frames.jsonl')[0])
    assert isinstance(frame.intrinsics, CameraIntrinsics) and frame.intrinsics.width == 640


def test_drawn_masks_say_nothing_of_the_rest(tmp_path):
    from cooper_cli.bag2data_folder import drawn
    from cooper_model.types import Frame

    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[10:30, 10:40] = True
    instances, things = drawn(Frame(scene(0)[0]), {'red mug': mask})
    assert set(np.unique(instances)) == {1, UNKNOWN} and things[0].color == 'red'


@pytest.mark.parametrize(('text', 'problem'), [('{"1": "Mug", "2": "box"}', ''), ('no JSON', 'write a JSON object')])
def test_names_of_masks_may_come_as_text(tmp_path, text, problem):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    with scribe.writer:
        scribe.write('/camera/label_names', 'std_msgs/msg/String', START, data=text)
        write_frame(scribe, 0)
    (report,) = harvest(tmp_path / 'out', tmp_path / 'bag', labels={})
    if problem:
        assert problem in report.problems[0] and '/camera/label_names' in report.problems[0]
        return
    assert not report.problems
    frame = parse_frame(lines(tmp_path / 'out' / 'frames.jsonl')[0])
    assert [thing.name for thing in frame.objects] == ['mug', 'box']
