"""Maps from pictures and pictures from maps: what is encoded comes back, noise and occlusion included."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooper_model import perception
from cooper_model.config import ColourCodeConfig
from cooper_model.types import UNLABELLED

HEIGHT, WIDTH = 128, 96
RED_GREEN = tuple((r, g) for r in (0, 85, 170, 255) for g in (0, 85, 170, 255))[1:]
CODE = ColourCodeConfig(
    names=tuple(f'kind {i}' for i in range(len(RED_GREEN))),
    red_green=RED_GREEN,
    background=(0, 0),
    blue=(31, 63, 95, 127, 159, 191, 223, 255),
)


def scene(seed: int, count: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """Return labels and instances of ellipses and boxes that hide parts of each other, each of a class."""
    rng = np.random.default_rng(seed)
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    for number, label in enumerate(rng.permutation(len(CODE.names))[:count], 1):
        x, y = rng.uniform(10, WIDTH - 10), rng.uniform(10, HEIGHT - 10)
        half_x, half_y = rng.uniform(8, 20, 2)
        if rng.random() < 0.5:
            inside = ((rows - y) / half_y) ** 2 + ((columns - x) / half_x) ** 2 < 1
        else:
            inside = (abs(rows - y) < half_y) & (abs(columns - x) < half_x)
        labels[inside], instances[inside] = label, number
    return labels, instances


def as_picture(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) / 255


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(pairs.T) == len(np.unique(one)) == len(np.unique(other))


def ious(true: np.ndarray, found: np.ndarray) -> list[float]:
    """Return, for each true instance, the overlap with the found instance that overlaps it most."""
    result = []
    for number in np.unique(true[true > 0]):
        mask = true == number
        candidates = np.unique(found[mask])
        overlaps = [(mask & (found == c)).sum() / (mask | (found == c)).sum() for c in candidates if c]
        result.append(max(overlaps, default=0.0))
    return result


def without_fragments(labels: np.ndarray, instances: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Leave of each instance the largest connected part."""
    keep = np.zeros(labels.shape, bool)
    for number in np.unique(instances[instances > 0]):
        _, numbered, stats, _ = cv2.connectedComponentsWithStats((instances == number).astype(np.uint8))
        keep |= numbered == 1 + stats[1:, cv2.CC_STAT_AREA].argmax()
    return np.where(keep, labels, UNLABELLED), np.where(keep, instances, 0)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_encoded_segmentation_comes_back_exactly(seed):
    labels, instances = without_fragments(*scene(seed))
    picture = perception.encode_segmentation(labels, instances, CODE)
    found = perception.segmentation(as_picture(picture), labels.shape, CODE, min_area=1)
    np.testing.assert_array_equal(found.labels, labels)
    assert same_partition(found.instances, instances)
    assert found.confidence.min() > 0.99


@pytest.mark.parametrize('seed', range(12))
def test_segmentation_survives_noise(seed):
    labels, instances = scene(seed)
    clean = perception.encode_segmentation(labels, instances, CODE)
    noise = np.random.default_rng(seed).normal(0, 10, clean.shape)
    picture = as_picture(np.clip(clean + noise, 0, 255))
    found = perception.segmentation(picture, labels.shape, CODE)
    large = [n for n in np.unique(instances[instances > 0]) if (instances == n).sum() >= 64]
    true = np.where(np.isin(instances, large), instances, 0)
    assert min(ious(true, found.instances)) > 0.9
    assert (found.labels == labels).mean() > 0.99
    assert len(large) <= len(np.unique(found.instances)) - 1 <= instances.max()


@pytest.mark.parametrize('seed', range(6))
def test_the_rims_that_blur_leaves_are_no_objects(seed):
    labels, instances = scene(seed, count=4)
    clean = perception.encode_segmentation(labels, instances, CODE)
    blurred = cv2.GaussianBlur(clean.astype(np.float32), (0, 0), 1.0) / 255
    found = perception.segmentation(blurred, labels.shape, CODE)
    large = [n for n in np.unique(instances[instances > 0]) if (instances == n).sum() >= 64]
    true = np.where(np.isin(instances, large), instances, 0)
    assert min(ious(true, found.instances)) > 0.7
    assert found.instances.max() <= len(large) + 1
    assert (found.labels == labels).mean() > 0.97


def test_blue_too_noisy_for_levels_loses_no_object():
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    labels[20:70, 30:90] = 4
    instances = (labels == 4).astype(np.uint16)
    clean = perception.encode_segmentation(labels, instances, CODE)
    noise = np.random.default_rng(0).normal(0, 45, labels.shape)
    picture = clean.astype(np.float32)
    picture[..., 2] += noise * (labels == 4)
    found = perception.segmentation(as_picture(np.clip(picture, 0, 255)), labels.shape, CODE)
    assert ious(instances, found.instances)[0] > 0.9


def test_blue_rises_from_the_top_of_the_picture_to_its_bottom():
    count = len(CODE.blue)
    bands = np.repeat(np.arange(1, count + 1), HEIGHT // count)[:, None]
    for width in (WIDTH // 3, 3 * WIDTH):
        instances = np.broadcast_to(bands, (HEIGHT, width))
        picture = perception.encode_segmentation(np.zeros(instances.shape, np.uint8), instances, CODE)
        np.testing.assert_array_equal(picture[..., 2], np.asarray(CODE.blue)[instances - 1])


def test_objects_of_one_class_with_another_between_them_stay_two():
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    labels[50:70, 10:90] = 2
    labels[40:75, 40:60] = 7
    columns = np.broadcast_to(np.arange(WIDTH), labels.shape)
    instances = np.select([labels == 7, (labels == 2) & (columns < 50), labels == 2], [3, 1, 2])
    picture = perception.encode_segmentation(labels, instances, CODE)
    assert len(np.unique(picture[labels == 2], axis=0)) == 1  # one colour, so only the gap tells them apart
    found = perception.segmentation(as_picture(picture), labels.shape, CODE)
    assert same_partition(found.instances, instances)


def test_instances_of_one_class_are_told_apart():
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    instances = np.zeros((HEIGHT, WIDTH), np.uint16)
    for number, top in enumerate((10, 40, 70, 100), 1):  # the first two touch: no background between
        labels[top : top + (30 if number == 1 else 20), 30:60] = 3
        instances[top : top + (30 if number == 1 else 20), 30:60] = number
    picture = perception.encode_segmentation(labels, instances, CODE)
    found = perception.segmentation(as_picture(picture), labels.shape, CODE)
    np.testing.assert_array_equal(found.instances, instances)
    assert set(found.labels[instances > 0]) == {3}


def test_an_object_behind_another_stays_one():
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    labels[10:110, 40:60] = 2
    labels[50:80, 20:80] = 7
    instances = np.select([labels == 2, labels == 7], [1, 2]).astype(np.uint16)
    picture = perception.encode_segmentation(labels, instances, CODE)
    found = perception.segmentation(as_picture(picture), labels.shape, CODE)
    np.testing.assert_array_equal(found.instances, instances)


def test_an_object_drawn_across_two_levels_is_one():
    labels = np.full((HEIGHT, WIDTH), UNLABELLED, np.uint8)
    labels[44:84, 30:70] = 5
    picture = perception.encode_segmentation(labels, (labels == 5).astype(np.uint16), CODE)
    ramp = np.linspace(CODE.blue[3], CODE.blue[4], 40).astype(np.uint8)
    picture[44:84, 30:70, 2] = ramp[:, None]
    found = perception.segmentation(as_picture(picture), labels.shape, CODE)
    np.testing.assert_array_equal(found.instances, (labels == 5).astype(np.uint16))


def test_segmentation_takes_the_size_of_the_frame():
    labels, instances = scene(3)
    picture = as_picture(perception.encode_segmentation(labels, instances, CODE))
    found = perception.segmentation(picture, (480, 641), CODE)
    assert found.labels.shape == found.instances.shape == found.confidence.shape == (480, 641)
    assert found.color.shape == (480, 641, 3)
    assert (found.labels.dtype, found.instances.dtype) == (np.uint8, np.uint16)
    assert (found.confidence.dtype, found.color.dtype) == (np.float32, np.uint8)


@pytest.mark.parametrize('value', [0.0, 0.5, 1.0])
def test_a_picture_of_one_colour_gives_maps(value):
    picture = np.full((HEIGHT, WIDTH, 3), value, np.float32)
    for code in (CODE, ColourCodeConfig()):
        found = perception.segmentation(picture, (HEIGHT, WIDTH), code)
        assert np.array_equal(found.labels == UNLABELLED, found.instances == 0)
        assert found.instances.max() == (value > 0)


def test_colours_without_a_code_are_clustered():
    labels, instances = scene(5)
    clean = perception.encode_segmentation(labels, instances, CODE)
    noise = np.random.default_rng(5).normal(0, 3, clean.shape)
    found = perception.segmentation(
        as_picture(np.clip(clean + noise, 0, 255)), labels.shape, ColourCodeConfig()
    )
    assert len(found.names) == len(np.unique(labels)) - 1
    assert all(name.startswith('class ') for name in found.names)
    assert min(ious(instances, found.instances)) > 0.9


def test_a_label_without_a_colour_is_refused():
    labels = np.full((8, 8), 40, np.uint8)
    with pytest.raises(ValueError, match='label 40 has no colour'):
        perception.encode_segmentation(labels, np.ones((8, 8), np.uint16), CODE)


def test_depth_comes_back_within_half_a_step_of_eight_bits():
    depth = np.random.default_rng(0).uniform(0.2, 6.0, (HEIGHT, WIDTH)).astype(np.float32)
    picture = perception.encode_depth(depth, (0.0, 6.0))
    found = perception.depth_map(as_picture(picture), depth.shape, (0.0, 6.0))
    assert abs(found.metres - depth).max() < 6.0 / 255 / 2 + 1e-5
    assert (found.relative.dtype, found.metres.dtype, found.color.dtype) == (np.float32, np.float32, np.uint8)


def test_depth_without_a_range_is_relative_only():
    ramp = np.repeat(np.linspace(0, 1, WIDTH, dtype=np.float32)[None, :, None], HEIGHT, 0).repeat(3, 2)
    found = perception.depth_map(ramp, (48, 200), None)
    assert found.metres is None
    assert found.relative.shape == (48, 200) and found.color.shape == (48, 200, 3)
    near, far = found.color[0, 0].astype(int), found.color[0, -1].astype(int)
    assert near[0] > near[2] and far[2] > far[0]  # Spectral: near is red, far is blue


def test_depth_outside_the_range_or_unknown_is_clipped():
    depth = np.array([[-1.0, 9.0, np.nan, np.inf]], np.float32)
    assert perception.encode_depth(depth, (0.0, 6.0))[0, :, 0].tolist() == [0, 255, 255, 255]
