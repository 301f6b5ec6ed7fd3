"""Bags of several cameras: one is chosen, or all, each with its own depth, masks and calibration."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

pytest.importorskip('rosbags', reason='needs the extra bags')

from typer.testing import CliRunner

from cooper_cli.main import app
from cooper_ros.harvest.streams import find_cameras
from cooper_ros.salvage import open_bag
from cooper_sim.robot_format import parse_frame
from tests.ros.scribe import SECOND, Scribe

START = 1_700_000_000 * SECOND
WIDTH, HEIGHT = 96, 72
FRAMES = 3
FOCAL = {'front': 90.0, 'rear': 60.0}
METRES = {'front': 1.0, 'rear': 2.0}
OF_EACH = ('image_raw', 'camera_info', 'depth_registered/image_rect', 'mask/instances')


def picture(seed):
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 256, (4, 6, 3), np.uint8), (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)


@pytest.fixture
def bag(tmp_path):
    """Return an MCAP bag of a front camera and a rear one, which take their pictures at the same moments."""
    scribe = Scribe(tmp_path / 'drive', 'mcap')
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    with scribe.writer:
        for number in range(FRAMES):
            ns = START + number * SECOND
            for place, name in enumerate(FOCAL):
                frame, seed = f'{name}_optical', 10 * place + number
                topics = [f'/robot/{name}/{topic}' for topic in OF_EACH]
                mask[:], mask[20:40, 10 + place : 40] = 0, place + 1
                depth = np.full((HEIGHT, WIDTH), 1000 * METRES[name], np.uint16)
                scribe.pixels(topics[0], ns, picture(seed), 'rgb8', frame)
                scribe.info(topics[1], ns, frame, (WIDTH, HEIGHT), FOCAL[name])
                scribe.pixels(topics[2], ns, depth, '16UC1', frame)
                scribe.pixels(topics[3], ns, mask, 'mono8', frame)
        # The front camera has one picture more, and one without depth is as good.
        scribe.pixels('/robot/front/image_raw', START + FRAMES * SECOND, picture(99), 'rgb8', 'front_optical')
    return tmp_path / 'drive'


def bag2data(bag, out, *arguments):
    """Run the command; return what it printed as JSON, and its frames by name."""
    labels = out.parent / 'labels.json'
    labels.write_text('{"1": "mug", "2": "box"}')
    command = ['bag2data', str(bag), '--out', str(out), '--labels', str(labels), '--json', *arguments]
    done = CliRunner().invoke(app, command)
    path = out / 'frames.jsonl'
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    told = json.loads(done.stdout) if done.exit_code == 0 else done
    return told, {row['id']: parse_frame(row) for row in rows}


def names(numbers, camera=''):
    return {f'drive_{START + number * SECOND}{camera and f"_{camera}"}' for number in numbers}


def test_without_a_choice_the_best_is_taken_and_the_others_are_named(bag, tmp_path):
    told, frames = bag2data(bag, tmp_path / 'out')
    (report,) = told['bags']
    assert report['camera'] == 'front'
    assert report['problems'] == [
        'there are several cameras, of which the first was taken: front, rear; choose with --camera NAME, '
        'which may be repeated, or take all with --camera all'
    ]
    assert set(frames) == names(range(FRAMES + 1))


@pytest.mark.parametrize('arguments', [['all'], ['rear', 'front'], ['front', 'rear']])
def test_all_cameras_have_their_own_depth_masks_and_calibration(bag, tmp_path, arguments):
    chosen = [word for name in arguments for word in ('--camera', name)]
    told, frames = bag2data(bag, tmp_path / 'out', *chosen)
    assert {report['camera'] for report in told['bags']} == set(FOCAL)
    for report in told['bags']:
        assert not report['problems']
        assert set(report['topics'].values()) == {f'/robot/{report["camera"]}/{topic}' for topic in OF_EACH}
    assert set(frames) == names(range(FRAMES + 1)) | names(range(FRAMES), 'rear')
    for place, (name, focal) in enumerate(FOCAL.items()):
        (key,) = names([1], name if name == 'rear' else '')
        frame = frames[key]
        assert frame.intrinsics.fx == focal and frame.frame_id == f'{name}_optical'
        assert [thing.name for thing in frame.objects] == [('mug', 'box')[place]]
        depth = cv2.imread(str(tmp_path / 'out' / frame.depth), cv2.IMREAD_UNCHANGED)
        assert (depth == 1000 * METRES[name]).all()
        image = cv2.imread(str(tmp_path / 'out' / frame.image))[:, :, ::-1]
        np.testing.assert_array_equal(image, picture(10 * place + 1))


def test_a_folder_of_one_camera_is_gone_on_with_by_the_others(bag, tmp_path):
    _, first = bag2data(bag, tmp_path / 'out', '--camera', 'front')
    told, both = bag2data(bag, tmp_path / 'out', '--camera', 'all')
    assert set(first) == names(range(FRAMES + 1))
    assert {key: both[key] for key in first} == first
    assert set(both) - set(first) == names(range(FRAMES), 'rear')
    assert told['bags'][0]['left_out']['is in the folder already'] == FRAMES + 1


def test_a_topic_chooses_its_camera_too(bag, tmp_path):
    told, frames = bag2data(bag, tmp_path / 'out', '--image-topic', '/robot/rear/image_raw')
    assert told['bags'][0]['camera'] == 'rear' and not told['bags'][0]['problems']
    assert set(frames) == names(range(FRAMES), 'rear')


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (['--camera', 'left'], "has no camera 'left'; it has: front, rear"),
        (['--camera', 'rear', '--image-topic', '/robot/rear/image_raw'], 'leave it or --camera out'),
        (['--camera', 'all', '--info-topic', '/robot/rear/camera_info'], 'topics are those of one camera'),
    ],
)
def test_what_cannot_be_chosen_is_named(bag, tmp_path, arguments, reason, capsys):
    done, frames = bag2data(bag, tmp_path / 'out', *arguments)
    assert done.exit_code != 0 and not frames
    told = f'{done.output}{done.stderr}{capsys.readouterr().err}'
    assert reason in ' '.join(told.replace('│', ' ').split())


@pytest.mark.parametrize(
    ('topics', 'expected'),
    [
        (['/image_raw'], ['camera']),
        (['/camera/color/image_raw', '/camera/image_rect_color'], ['camera']),
        (['/camera/color/image_raw', '/camera/infra1/image_mono'], ['camera']),
        (['/a/front/rgb/image', '/a/rear/rgb/image', '/a/rear/rgb/image/compressed'], ['front', 'rear']),
        (['/kitti/left/image', '/kitti/right/image', '/cooper/left/segmentation/overlay'], ['left', 'right']),
        (['/image_raw', '/gripper/image_raw'], ['camera', 'gripper']),
    ],
)  # fmt: skip
def test_cameras_have_short_names(tmp_path, topics, expected):
    scribe = Scribe(tmp_path / 'bag', 'mcap')
    with scribe.writer:
        for topic in topics:
            if topic.endswith('compressed'):
                scribe.compressed(topic, START, cv2.imencode('.png', picture(0))[1].tobytes(), 'png')
            else:
                scribe.pixels(topic, START, picture(0), 'rgb8')
    bag = open_bag(tmp_path / 'bag')
    assert sorted(find_cameras(bag).by_name) == expected
    bag.close()
