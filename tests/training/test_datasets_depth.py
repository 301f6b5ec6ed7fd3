"""Depth in the released JSONL format: metres, ranges, resizing, what is valid, and lines that cannot be used."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from cooper_model.config import ResizeConfig
from cooper_model.transforms import resized_size
from training.datasets.base import DataEntry
from training.datasets.depth_pairs import measured
from training.datasets.images import cut, cut_camera, fill_nearest
from training.datasets.registry import open_pictures
from training.datasets.report import LeftOut
from training.datasets.vkitti import FILES as VKITTI
from training.datasets.vkitti import KITTI_CROP
from training.latents import counted_tokens

RANGES = {'vkitti': (1e-5, 80.0), 'kitti': (1e-5, 80.0), 'hypersim': (1e-5, 65.0), 'nyu': (1e-3, 10.0)}
UNITS = {'vkitti': 100, 'kitti': 256, 'hypersim': 1000, 'nyu': 1000}


@pytest.fixture
def published(words):
    """Return the model whose depth pictures have the range of each data set, as published weights have."""
    return replace(words, config=replace(words.config, depth_range=None))


@pytest.fixture
def pair(write_png, write_list):
    """Return a function that writes one image with its depth and returns the list."""

    def write(raw, name='train.jsonl', **more):
        image = np.random.default_rng(0).integers(0, 256, (*raw.shape, 3), np.uint8)
        row = {'rgb_image': write_png('a.png', image), 'depth_image': write_png('a_depth.png', raw), **more}
        return write_list(name, [row])

    return write


@pytest.mark.parametrize('name', RANGES)
def test_depth_is_metres_in_the_units_of_each_set(published, pair, name):
    raw = np.full((48, 64), 3 * UNITS[name], np.uint16)
    raw[:, 32:] = 5 * UNITS[name]
    data = open_pictures(DataEntry(name, str(pair(raw))), published)
    example = data.example(0)
    np.testing.assert_allclose(example.truth.depth[0, [0, 63]], [3.0, 5.0], rtol=1e-6)
    near, far = RANGES[name]
    picture = example.targets['depth'].picture
    assert picture.shape == (48, 64, 3) and picture.dtype == np.float32
    np.testing.assert_allclose(picture[0, 0], (3 - near) / (far - near), rtol=1e-5)
    np.testing.assert_allclose(picture[0, 63], (5 - near) / (far - near), rtol=1e-5)


@pytest.mark.parametrize('name', RANGES)
def test_targets_are_those_of_the_golden_case_where_nothing_is_resized(published, pair, repository, name):
    golden = load_file(repository / 'tests/golden/alpha/preprocess.safetensors')
    raw = golden[f'depth_{name}_resized_raw'].clip(0, 65535).astype(np.uint16)
    config = replace(published.config, vae_transform=ResizeConfig(96, 64, 16))
    data = open_pictures(DataEntry(name, str(pair(raw))), replace(published, config=config))
    target = data.example(0).targets['depth']
    valid = raw > 0
    assert (target.valid is None and valid.all()) or np.array_equal(target.valid, valid)
    expected = golden[f'depth_{name}_train_channel0']
    np.testing.assert_allclose(target.picture[valid] * 2 - 1, np.repeat(expected[valid][:, None], 3, 1), atol=1e-6)


@pytest.mark.parametrize('number', range(4))
def test_images_are_resized_as_in_the_golden_case(published, write_png, write_list, repository, number):
    golden = load_file(repository / 'tests/golden/alpha/preprocess.safetensors')
    image = golden[f'image{number}_uint8']
    depth = np.full(image.shape[:2], 1000, np.uint16)
    row = {'rgb_image': write_png('a.png', image), 'depth_image': write_png('d.png', depth)}
    config = replace(published.config, vae_transform=ResizeConfig(96, 48, 16))
    data = open_pictures(
        DataEntry('nyu', str(write_list('list.jsonl', [row]))), replace(published, config=config)
    )
    assert np.array_equal(data.example(0).image, golden[f'image{number}_t0_resized_uint8'])


def test_a_checkpoint_with_a_range_gets_metres_in_it(words, pair):
    data = open_pictures(DataEntry('nyu', str(pair(np.full((48, 64), 2500, np.uint16)))), words)
    example = data.example(0)
    assert words.config.depth_range == (0.0, 5.0)
    np.testing.assert_allclose(example.targets['depth'].picture, 0.5)
    assert example.truth.depth_range == (0.0, 5.0)


def test_the_range_follows_the_focal_length_of_a_line(words, pair):
    config = replace(words.config, depth_focal=1.0)
    camera = {'fx': 96, 'fy': 96, 'cx': 31.5, 'cy': 23.5}  # 96 / 48 = twice the focal length of the range
    path = pair(np.full((48, 64), 2500, np.uint16), intrinsics=camera)
    example = open_pictures(DataEntry('nyu', str(path)), replace(words, config=config)).example(0)
    assert example.truth.depth_range == (0.0, 10.0)
    np.testing.assert_allclose(example.targets['depth'].picture, 0.25)


def test_resizing_invents_no_depth(published, pair):
    raw = np.random.default_rng(1).integers(1, 9000, (100, 137)).astype(np.uint16)
    target = open_pictures(DataEntry('nyu', str(pair(raw))), published).example(0).targets['depth']
    near, far = RANGES['nyu']
    back = np.round((target.picture[..., 0].astype(np.float64) * (far - near) + near) * 1000)
    assert set(back.astype(int).ravel()) <= set(raw.ravel().tolist())
    assert target.picture.shape[:2] == resized_size(100, 137, published.config.vae_transform)


def test_holes_are_not_valid_and_look_like_their_surroundings(published, pair):
    raw = np.full((48, 64), 4000, np.uint16)
    raw[:16, :16] = 0  # one whole token
    raw[16:32, :4] = 0  # a quarter of another
    target = open_pictures(DataEntry('nyu', str(pair(raw))), published).example(0).targets['depth']
    assert np.array_equal(target.valid, raw > 0)
    np.testing.assert_allclose(target.picture, target.picture[40, 40, 0])
    counted = counted_tokens(target, 16)
    assert counted.tolist() == [False] + [True] * 11


def test_a_token_counts_from_its_share_of_valid_pixels_on(published, pair):
    raw = np.full((48, 64), 1000, np.uint16)
    raw[0:16, 0:16] = 0
    raw[0, 0:12] = 1000  # 12 of 256 pixels: 4.7 %
    raw[0:16, 16:32] = 0
    raw[0, 16:29] = 1000  # 13 of 256 pixels: 5.1 %
    sparse = open_pictures(DataEntry('kitti', str(pair(raw))), published).example(0).targets['depth']
    assert counted_tokens(sparse, 16).tolist()[:3] == [False, True, True]
    dense = open_pictures(DataEntry('nyu', str(pair(raw))), published).example(0).targets['depth']
    assert counted_tokens(dense, 16).tolist()[:3] == [False, False, True]


def test_filling_takes_the_nearest_valid_value():
    values = np.array([[1.0, np.nan, np.nan, 4.0]], np.float32)
    assert fill_nearest(values, np.isfinite(values)).tolist() == [[1.0, 1.0, 4.0, 4.0]]
    with pytest.raises(ValueError, match='no pixel is valid'):
        fill_nearest(values, np.zeros((1, 4), bool))


def test_streets_are_cut_as_kittis_benchmark_does():
    pixels = np.arange(375 * 1242).reshape(375, 1242)
    kept = cut(pixels, KITTI_CROP)
    assert kept.shape == KITTI_CROP and kept[0, 0] == pixels[23, 13] and kept[-1, -1] == pixels[374, 1228]
    camera = cut_camera(VKITTI.camera, KITTI_CROP)
    assert (camera.cx, camera.cy, camera.width, camera.height) == (607.5, 164.0, 1216, 352)
    assert resized_size(*KITTI_CROP, ResizeConfig(1024, 512, 16)) == (288, 1024)


def test_nyu_is_scored_in_its_window_before_resizing(published, pair):
    raw = np.full((480, 640), 2000, np.uint16)
    raw[100, 100] = 12000  # beyond the range
    truth = open_pictures(DataEntry('nyu', str(pair(raw))), published).example(0).truth
    scored = np.isfinite(truth.depth)
    assert scored.sum() == (471 - 45) * (601 - 41) - 1
    assert scored[45, 41] and scored[470, 600] and not scored[44, 41] and not scored[45, 40] and not scored[100, 100]


def test_a_perfect_picture_has_no_error(published, pair):
    raw = np.linspace(1000, 4000, 48 * 64).astype(np.uint16).reshape(48, 64)
    data = open_pictures(DataEntry('hypersim', str(pair(raw))), published)
    example = data.example(0)
    values = data.score(example, {'depth': example.targets['depth'].picture})
    assert values['delta1'] == [1.0] and values['abs_rel'][0] < 1e-5 and values['abs_rel_aligned'][0] < 1e-5
    squeezed = data.score(example, {'depth': example.targets['depth'].picture * 0.5 + 0.1})
    assert squeezed['abs_rel'][0] > 1 and squeezed['abs_rel_aligned'][0] < 1e-4


def test_mirroring_turns_image_and_depth_together(published, pair):
    raw = np.full((48, 64), 1000, np.uint16)
    raw[:, :32] = 3000
    data = open_pictures(DataEntry('nyu', str(pair(raw)), flip=True), published)
    plain = data.example(0)
    found = [data.example(0, np.random.default_rng(seed)) for seed in range(8)]
    mirrored = [example for example in found if not np.array_equal(example.image, plain.image)]
    assert 0 < len(mirrored) < 8
    assert np.array_equal(mirrored[0].image, plain.image[:, ::-1])
    assert np.array_equal(mirrored[0].targets['depth'].picture, plain.targets['depth'].picture[:, ::-1])


def test_lines_that_cannot_be_used_are_named_with_their_number(published, write_png, write_list, caplog):
    image, depth = np.zeros((48, 64, 3), np.uint8), np.full((48, 64), 1000, np.uint16)
    good = {'rgb_image': write_png('a.png', image), 'depth_image': write_png('a_depth.png', depth)}
    (write_list('broken.png', ['no image']))
    path = write_list('train.jsonl', [
        good,
        '{"rgb_image": "a.png", ',
        '',
        {'rgb_image': 'a.png'},
        {**good, 'depth_image': 'missing.png'},
        {**good, 'rgb_image': 'broken.png'},
        {**good, 'depth_image': write_png('small.png', depth[:24])},
        '["a.png", "a_depth.png"]',
        good,
    ])  # fmt: skip
    with caplog.at_level(logging.INFO):
        data = open_pictures(DataEntry('vkitti', str(path)), published)
    report = data.report
    assert len(data) == report.used == 2
    assert {reason: [text.split(': ')[0] for text in texts] for reason, texts in report.left_out.items()} == {
        'broken line': [f'{path}:{n}' for n in (2, 4, 8)],
        'missing file': [f'{path}:5'],
        'unreadable image': [f'{path}:6'],
        'sizes differ': [f'{path}:7'],
    }
    assert f'{path}:5 left out (missing file)' in caplog.text
    counts = '3 broken line, 1 missing file, 1 unreadable image, 1 sizes differ'
    assert f'vkitti: 2 used, 6 left out ({counts})' in caplog.text


def test_a_sample_that_is_too_long_is_counted_and_named(published, pair, caplog):
    path = pair(np.full((48, 64), 1000, np.uint16))
    request = len(published.tokenizer.encode(published.prompts.request('depth'))) + 2
    needed = 2 * (12 + 2) + request + 12 + 2  # latents and ViT tokens, the request, the picture to generate
    assert len(open_pictures(DataEntry('nyu', str(path)), replace(published, max_tokens=needed))) == 1
    with pytest.raises(ValueError, match=r'no line can be used; nyu: 0 used, 1 left out \(1 too long\)'):
        open_pictures(DataEntry('nyu', str(path)), replace(published, max_tokens=needed - 1))
    assert f'{path}:1 left out (too long): {needed} tokens, at most {needed - 1} fit' in caplog.text


def test_a_missing_folder_says_how_to_get_the_data(published, tmp_path):
    with pytest.raises(FileNotFoundError, match=r'absent.*train\.jsonl is missing\. Get Virtual KITTI 2'):
        (tmp_path / 'absent').mkdir()
        open_pictures(DataEntry('vkitti', str(tmp_path / 'absent')), published)


@pytest.mark.parametrize(('values', 'message'), [
    ({'set': 'nyu', 'path': 'x', 'limit': 0}, 'limit 0'),
    ({'set': 'nyu', 'path': 'x', 'weight': -1}, 'weight is -1'),
    ({'set': 'nyu', 'path': 'x', 'flip': True, 'latents': 'y'}, 'cannot be mirrored'),
])  # fmt: skip
def test_a_wrong_entry_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DataEntry(**values)


def test_an_unknown_set_names_those_that_exist(published):
    with pytest.raises(ValueError, match="no data set 'diode' here, expected one of simulation, vkitti"):
        open_pictures(DataEntry('diode', 'x'), published)


def test_depth_of_8_bits_is_refused(published, pair):
    with pytest.raises(LeftOut, match='8 bits a pixel, expected depth of 16'):
        open_pictures(DataEntry('nyu', str(pair(np.full((48, 64), 200, np.uint8)))), published).example(0)


def test_nothing_measured_is_no_depth():
    metres = measured(np.array([[0, 100, 250]]), 100)
    assert np.isnan(metres[0, 0]) and metres[0, 1:].tolist() == [1.0, 2.5]
