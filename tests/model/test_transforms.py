from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cooper_model import transforms
from cooper_model.config import ResizeConfig

PUBLISHED = ResizeConfig(1024, 512, 16)


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)


def test_the_cap_on_pixels_shrinks_sides_by_the_ratio_of_areas() -> None:
    # Worked by hand: 1024 x 1024 over 1806336 / 3 pixels -> 1024 * 0.574 = 588 -> 592.
    assert transforms.resized_size(1024, 1024, PUBLISHED, image_count=3) == (592, 592)
    assert transforms.resized_size(1024, 1024, PUBLISHED) == (1024, 1024)
    assert transforms.resized_size(480, 640, PUBLISHED) == (512, 688)


def test_a_very_thin_image_keeps_one_stride() -> None:
    assert transforms.resized_size(4000, 17, PUBLISHED) == (1024, 16)


def test_an_image_without_pixels_is_refused() -> None:
    with pytest.raises(ValueError, match='0 x 5 pixels'):
        transforms.resized_size(5, 0, PUBLISHED)
    with pytest.raises(ValueError, match='with pixels'):
        transforms.resize_image(np.zeros((0, 5, 3), np.uint8), 16, 16)


def test_normalising_is_undone(image: np.ndarray) -> None:
    pixels = transforms.normalise(image)
    assert pixels.shape == (3, 37, 61) and pixels.dtype == np.float32
    back = transforms.denormalise(pixels).transpose(1, 2, 0)
    np.testing.assert_allclose(back * 255, image, atol=1e-4)


@pytest.mark.parametrize('batch', [(), (2,)])
def test_tokens_are_undone_and_agree_between_arrays_and_tensors(batch: tuple[int, ...]) -> None:
    latents = np.random.default_rng(1).normal(size=(*batch, 5, 6, 8)).astype(np.float32)
    tokens = transforms.latent_tokens(latents, 2)
    assert tokens.shape == (*batch, 12, 20)
    # Token 5 is row 1, column 1; its last five values are all channels of its lower right cell.
    np.testing.assert_array_equal(tokens[..., 5, 15:], latents[..., 3, 3])
    np.testing.assert_array_equal(tokens[..., 5, 5:10], latents[..., 2, 3])
    np.testing.assert_array_equal(transforms.tokens_to_latents(tokens, (3, 4), 2), latents)
    tensor = transforms.latent_tokens(torch.from_numpy(latents), 2)
    np.testing.assert_array_equal(tensor.numpy(), tokens)
    np.testing.assert_array_equal(transforms.tokens_to_latents(tensor, (3, 4), 2).numpy(), latents)


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match='6 x 7'):
        transforms.latent_tokens(np.zeros((16, 6, 7)), 2)
    with pytest.raises(ValueError, match='12 tokens'):
        transforms.tokens_to_latents(np.zeros((12, 64)), (3, 5), 2)


def test_every_mode_becomes_rgb() -> None:
    gray = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    assert (transforms.to_rgb(Image.fromarray(gray)) == gray[..., None]).all()
    clear = Image.fromarray(np.stack([gray, np.zeros_like(gray)], axis=-1))
    assert clear.mode == 'LA'
    assert (transforms.to_rgb(clear) == 255).all()
    assert (transforms.published_to_rgb(clear) == gray[..., None]).all()
    deep = Image.fromarray(gray.astype(np.uint16) << 8)
    assert (transforms.to_rgb(deep) == gray[..., None]).all()
    palette = Image.fromarray(np.zeros((2, 2), np.uint8)).convert('P')
    palette.info['transparency'] = 0
    assert (transforms.to_rgb(palette) == 255).all()
    with pytest.raises(ValueError, match='32-bit float'):
        transforms.to_rgb(Image.new('F', (2, 2)))


def test_depth_as_an_image_is_undone_within_its_range() -> None:
    metres = np.array([[0.1, 0.5, 2.0, 9.0]], np.float32)
    relative = transforms.depth_to_relative(metres, (0.3, 6.0))
    assert relative[0, 0] == 0 and relative[0, 3] == 1
    back = transforms.relative_to_depth(relative, (0.3, 6.0))
    np.testing.assert_allclose(back, [[0.3, 0.5, 2.0, 6.0]], rtol=1e-6)
    picture = np.repeat(relative[..., None], 3, axis=-1)
    np.testing.assert_allclose(transforms.picture_to_relative(picture), relative, rtol=1e-6)


def test_near_is_red_far_is_blue_and_invalid_black() -> None:
    valid = np.array([[True, True, False]])
    colours = transforms.colour_depth(np.array([[0.0, 1.0, 0.5]]), valid=valid)
    near, far, invalid = transforms.to_uint8(colours)[0].astype(int)
    assert near[0] > 2 * near[2] and far[2] > far[0] and not invalid.any()


def test_a_resize_to_the_same_size_changes_nothing(image: np.ndarray) -> None:
    assert transforms.resize_image(image, 37, 61) is image
    assert transforms.resize(image, ResizeConfig(96, 48, 16)).shape == (48, 80, 3)
