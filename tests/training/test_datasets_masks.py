"""Masks: ADE20K's codes in the released format, and photographs with instances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from cooper_model.config import ColourCodeConfig
from cooper_model.perception import blue_level
from training.datasets.ade20k import decode
from training.datasets.base import DataEntry
from training.datasets.registry import open_pictures

WALL, CHAIR = (110, 100), (10, 60)  # red and green: classes 11 * 256 + 100 and 256 + 60
CHAIR_NUMBER = str(256 + 60)


@pytest.fixture
def published(words):
    """Return a model without a colour code of its own, as published weights."""
    return replace(words, config=replace(words.config, colour_code=ColourCodeConfig()))


@pytest.fixture
def ade(write_png, write_list):
    """Return a function that writes one photograph with codes and returns the list."""

    def write(codes):
        image = np.random.default_rng(0).integers(0, 256, codes.shape, np.uint8)
        row = {'rgb_image': write_png('a.jpg', image), 'seg_image': write_png('a_seg.png', codes), 'data_idx': '0'}
        return str(write_list('ade20k_train_identify.jsonl', [row]))

    return write


def codes_of(height=48, width=64):
    """Return a wall, two chairs side by side, and an unlabelled strip at the bottom."""
    codes = np.zeros((height, width, 3), np.uint8)
    codes[..., :2] = WALL
    codes[height // 4 : height // 2, : width // 4] = (*CHAIR, 50)
    codes[height // 4 : height // 2, width // 2 :] = (*CHAIR, 200)
    codes[-height // 3 :] = 0
    return codes


def test_codes_say_class_and_instance():
    kinds, instances = decode(codes_of())
    assert kinds[0, 0] == 11 * 256 + 100 and kinds[15, 0] == kinds[15, 63] == 316 and kinds[47, 0] == 0
    assert instances[47, 0] == 0
    assert len({instances[0, 0], instances[15, 0], instances[15, 63]} - {0}) == 3
    kinds, instances = decode(np.full((2, 2, 3), 10, np.uint8))
    assert kinds.tolist() == [[266, 266], [266, 266]] and instances.tolist() == [[1, 1], [1, 1]]


def test_published_weights_are_trained_on_the_codes_themselves(published, ade):
    codes = codes_of()
    example = open_pictures(DataEntry('ade20k', ade(codes)), published).example(0)
    target = example.targets['segmentation']
    assert np.array_equal(np.round(target.picture * 255), codes)
    assert np.array_equal(target.valid, codes[..., 1] > 0)
    assert example.truth.instances.max() == 3


def test_resizing_invents_no_code(published, ade):
    codes = np.random.default_rng(0).integers(0, 256, (97, 131, 3), np.uint8)
    target = open_pictures(DataEntry('ade20k', ade(codes)), published).example(0).targets['segmentation']
    found = np.round(target.picture * 255).astype(int).reshape(-1, 3)
    assert {tuple(c) for c in found} <= {tuple(c) for c in codes.reshape(-1, 3).tolist()}


def test_a_colour_code_gets_the_classes_that_the_entry_maps(words, ade):
    codes, code = codes_of(), words.config.colour_code
    entry = DataEntry('ade20k', ade(codes), classes={CHAIR_NUMBER: 'ball'})
    data = open_pictures(entry, words)
    example = data.example(0)
    picture = np.round(example.targets['segmentation'].picture * 255).astype(int)
    ball = code.red_green[code.names.index('ball')]
    chairs = (codes[..., 0] == CHAIR[0]) & (codes[..., 1] == CHAIR[1])
    level = code.blue[int(blue_level(np.array(18 / 48), len(code.blue)))]
    assert (picture[chairs] == (*ball, level)).all()
    assert (picture[~chairs] == (*code.background, 0)).all()
    assert np.array_equal(example.targets['segmentation'].valid, codes[..., 1] > 0)
    assert sorted(np.unique(example.truth.instances)) == [0, *np.unique(example.truth.instances[chairs])]
    scores = data.score(example, {'segmentation': example.targets['segmentation'].picture})
    assert scores['miou'] == [1.0, 1.0] and scores['boundary_f1'] == [1.0]
    blank = data.score(example, {'segmentation': np.zeros_like(example.targets['segmentation'].picture)})
    assert blank['miou'] == [0.0, 0.0]
    with pytest.raises(ValueError, match=r"classes name \['sofa'\]"):
        open_pictures(replace(entry, classes={CHAIR_NUMBER: 'sofa'}), words)


@pytest.fixture
def photo(write_png, write_list):
    """Return a function that writes one photograph with a ball, a person and a crowd, and returns the list."""
    mask = np.zeros((48, 64), np.uint8)
    mask[16:32, 0:16], mask[16:32, 32:48], mask[32:, 48:] = 1, 2, 255

    def write(complete, **more):
        image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
        row = {
            'file': write_png('images/a.jpg', image), 'mask': write_png('masks/a.png', mask), 'complete': complete,
            'instances': [{'id': 1, 'category': 'sports ball'}, {'id': 2, 'category': 'person'}], **more,
        }  # fmt: skip
        return mask, str(write_list('index.jsonl', [row]))

    return write


@pytest.mark.parametrize('complete', [True, False])
def test_what_nobody_annotated_carries_no_loss(words, photo, complete):
    mask, path = photo(complete)
    data = open_pictures(DataEntry('photos', path), words)
    target = data.example(0).targets['segmentation']
    known = (mask != 255) if complete else (mask == 1) | (mask == 2)
    assert np.array_equal(target.valid, known)
    picture = np.round(target.picture * 255).astype(int)
    code = words.config.colour_code
    assert (picture[mask == 1][:, :2] == code.red_green[code.names.index('ball')]).all()
    assert (picture[mask != 1] == (*code.background, 0)).all()
    scores = data.score(data.example(0), {'segmentation': target.picture})
    assert scores['miou'] == [1.0]


def test_a_mask_with_ids_that_the_line_lacks_is_left_out(words, photo):
    _, path = photo(True, instances=[{'id': 1, 'category': 'sports ball'}])
    from training.datasets.report import LeftOut

    with pytest.raises(LeftOut, match=r'ids \[2\] that the line does not name'):
        open_pictures(DataEntry('photos', path), words).example(0)


def test_photographs_need_a_colour_code(published, photo):
    with pytest.raises(ValueError, match='photos: the checkpoint has no colour code'):
        open_pictures(DataEntry('photos', photo(True)[1]), published)
