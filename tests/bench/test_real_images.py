"""Real images: alignments by hand, a small folder of the shared form, and the shared data where it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.real_data import Shot, bag_frames, pairs, photos
from bench.real_images import fitted, look, main
from cooper_model.loading import load
from cooper_model.types import DepthMap, Frame
from cooper_sim.scoring import depth_score
from tests.random_checkpoint import write_random_checkpoint

TRUE = np.linspace(0.8, 3.0, 48 * 64, dtype=np.float32).reshape(48, 64)


def drawn(depth: np.ndarray, metric: bool = True) -> DepthMap:
    return DepthMap(depth, depth if metric else None, np.zeros((*depth.shape, 3), np.uint8))


def abs_rel(map_: np.ndarray, true: np.ndarray = TRUE) -> float:
    return depth_score(map_, true).abs_rel


def test_alignment_forgives_scale_and_shift():
    ways = fitted(drawn(0.3 * TRUE + 0.2), TRUE)
    assert abs_rel(ways['aligned']) == pytest.approx(0, abs=1e-5)
    assert abs_rel(ways['as_generated']) > 0.3
    assert abs_rel(ways['aligned_inverse']) > 0.01


def test_inverse_alignment_forgives_scale_and_shift_of_inverse_depth():
    ways = fitted(drawn((1 / (0.5 / TRUE + 0.4)).astype(np.float32), metric=False), TRUE)
    assert abs_rel(ways['aligned_inverse']) == pytest.approx(0, abs=1e-5)
    assert abs_rel(ways['aligned']) > 0.01
    assert ways['as_generated'] is None


def test_unmeasured_pixels_play_no_part():
    measured, wrong = TRUE.copy(), 2 * TRUE
    measured[:20], wrong[:20] = np.nan, 100.0
    ways = fitted(drawn(wrong), measured)
    assert abs_rel(ways['aligned'], measured) == pytest.approx(0, abs=1e-5)
    assert np.isfinite(ways['aligned_inverse']).all()
    error = np.abs(np.nanmean(measured) - measured) / measured
    assert abs_rel(ways['constant'], measured) == pytest.approx(np.nanmean(error), rel=1e-4)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a folder of the shared form with one pair, one photograph, and no bag."""
    rng = np.random.default_rng(0)
    folder = tmp_path / 'data'
    for part in ('rgbd/table', 'photos/coco_cc'):
        (folder / part).mkdir(parents=True)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    picture.save(folder / 'rgbd/table/color.png')
    picture.save(folder / 'photos/coco_cc/0001.jpg')
    depth = (TRUE * 10_000).astype(np.uint16)
    depth[:5] = 0
    Image.fromarray(depth).save(folder / 'rgbd/table/depth.png')
    entry = {
        'id': 'table_1', 'color': 'table/color.png', 'depth': 'table/depth.png', 'depth_units_per_m': 10_000,
        'registered': True, 'scene': 'a table', 'sensor': 'a sensor', 'origin': 'somewhere', 'licence': 'MIT',
        'intrinsics': {'fx': 60.0, 'fy': 60.0, 'cx': 31.5, 'cy': 23.5},
    }  # fmt: skip
    (folder / 'rgbd/index.json').write_text(json.dumps([entry]))
    listed = {
        'licenses': [{'id': 5, 'name': 'CC BY-SA 2.0'}],
        'images': [{'file_name': '0001.jpg', 'license': 5, 'flickr_url': 'http://flickr/0001'}],
    }
    (folder / 'photos/coco_cc/instances.json').write_text(json.dumps(listed))
    return folder


def test_pairs_are_read_in_metres(data):
    (shot,) = pairs(data, ['table'])
    assert np.isnan(shot.frame.depth[:5]).all()
    assert shot.frame.depth[5:] == pytest.approx(TRUE[5:], abs=1e-4)
    assert (shot.frame.intrinsics.fy, shot.licence) == (60.0, 'MIT')
    with pytest.raises(ValueError, match='no registered pairs of shelf; there are: table'):
        pairs(data, ['shelf'])
    with pytest.raises(FileNotFoundError, match='--data'):
        photos(data / 'rgbd', 1)


def test_scores_pictures_and_captions_are_written(data, tmp_path, capsys):
    checkpoint, out = write_random_checkpoint(tmp_path / 'tiny'), tmp_path / 'out'
    asked = ['--data', str(data), '--sets', 'table', '--checkpoint', str(checkpoint), '--device', 'cpu']
    main([*asked, '--steps', '1', '--out', str(out)])
    assert '| table (1) | aligned in depth |' in capsys.readouterr().out
    record = json.loads((out / 'real.json').read_text())
    (image,) = record['images']
    assert image['aligned']['abs_rel'] == record['groups']['table']['aligned']['abs_rel'] > 0
    assert image['aligned']['abs_rel'] <= image['constant']['abs_rel'] + 0.05
    assert record['steps'] == 1
    words = (out / 'real.md').read_text()
    assert '1. table_1: a table, a sensor, from somewhere; MIT' in words
    assert 'http://flickr/0001; CC BY-SA 2.0' in words and words.endswith('under CC BY-SA 2.0, so is this picture.\n')
    with Image.open(out / 'real.jpg') as picture:
        assert picture.width > 4 * 240 and picture.height > 2 * 180
    document = tmp_path / 'results.md'
    document.write_text('<!-- bench:real_images -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document)])
    assert '| table (1) | mean of the measured |' in document.read_text()


def test_missing_data_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['--data', str(tmp_path), '--out', str(tmp_path)])
    assert 'index.json is missing' in capsys.readouterr().err


def test_the_shared_images_are_there(shared):
    data = shared / 'data'
    assert [shot.group for shot in pairs(data, ['ycb_table', 'arc2017_bin'])].count('ycb_table') == 5
    assert all(shot.licence.startswith('CC BY') and 'flickr' in shot.source for shot in photos(data, 3))
    for name in ('tum_fr1_rpy_ros2', 'realsense_d435_ros2'):
        (shot,) = bag_frames(data / 'bags' / name, 1)
        assert shot.licence and shot.frame.image.shape == (480, 640, 3) and shot.frame.intrinsics is not None
        assert 0.3 < float(np.nanmedian(shot.frame.depth)) < 5


def test_maps_are_generated_without_the_measured_depth():
    image = np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    shot = Shot('one', 'group', Frame(image, depth=np.full((48, 64), 2, np.float32)), 'a source', 'a licence')
    depth, _ = look(load(), shot, seed=0)
    assert depth.alignment is None and np.ptp(depth.metres) > 0
