"""From images to model input and back: sizes, pixels, tokens, depth as an image, colours.

The rules are those on which published weights were trained. What only the published training data needs
(units of depth, segmentation files) is called ``published_`` and serves ``cooper verify`` alone. Images are
``(height, width, 3)`` uint8 RGB; model input is ``(3, height, width)`` float32 in -1..1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from PIL import Image

from cooper_model.config import ResizeConfig

if TYPE_CHECKING:
    from torch import Tensor

ArrayT = TypeVar('ArrayT', 'Tensor', np.ndarray)

MAX_PIXELS = 14 * 14 * 9 * 1024


# Sizes


def resized_size(
    height: int, width: int, limits: ResizeConfig, image_count: int = 1, max_pixels: int = MAX_PIXELS
) -> tuple[int, int]:
    """Return ``(height, width)`` that an image transform gives an image of ``height`` x ``width`` pixels.

    :param image_count: images that share the cap on pixels
    :raises ValueError: the image has no pixels
    """
    if height < 1 or width < 1:
        raise ValueError(f'an image of {width} x {height} pixels cannot be resized; check its source')
    scale = min(limits.max_size / max(height, width), 1.0)
    scale = max(scale, limits.min_size / min(height, width))
    height, width = _scaled(height, width, scale, limits.stride)
    cap = max_pixels / image_count
    if height * width > cap:
        # The published code uses this ratio of areas as a ratio of lengths; exact sizes need the same.
        height, width = _scaled(height, width, cap / (height * width), limits.stride)
    if max(height, width) > limits.max_size:
        height, width = _scaled(height, width, limits.max_size / max(height, width), limits.stride)
    return height, width


def _scaled(height: int, width: int, scale: float, stride: int) -> tuple[int, int]:
    # Python's round is half to even, as the rule demands, both times.
    sides = [max(round(round(side * scale) / stride) * stride, stride) for side in (height, width)]
    return sides[0], sides[1]


# Pixels


def to_rgb(image: Image.Image) -> np.ndarray:
    """Return a Pillow image of any mode as ``(height, width, 3)`` uint8; transparency is composed over white.

    :raises ValueError: the mode has no fixed range (32-bit float)
    """
    if image.mode == 'F':
        raise ValueError("an image of mode 'F' (32-bit float) has no fixed range; convert it to 8 bits first")
    if image.mode.startswith('I'):
        gray = np.clip(np.asarray(image), 0, 65535) >> 8
        return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)
    if image.mode == 'LA':
        image = image.convert('RGBA')
    return published_to_rgb(image)


def published_to_rgb(image: Image.Image) -> np.ndarray:
    """Return an image as the published front end does: an alpha beside gray (LA) is dropped, not composed."""
    if image.mode == 'RGBA' or image.info.get('transparency') is not None:
        image = image.convert('RGBA')
        white = Image.new('RGB', image.size, (255, 255, 255))
        white.paste(image, mask=image.getchannel('A'))
        image = white
    return np.array(image.convert('RGB'))


def resize_image(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an 8-bit image by Pillow's antialiased bicubic filter, which published weights saw.

    :raises ValueError: not ``(height, width, 3)`` uint8, or without pixels
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise ValueError(
            f'image of shape {image.shape} and type {image.dtype}, expected (height, width, 3) uint8 RGB '
            'with pixels in it'
        )
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize(image: np.ndarray, limits: ResizeConfig, image_count: int = 1) -> np.ndarray:
    """Resize an image to the size that :func:`resized_size` gives it, keeping 8 bits.

    An image enters the model resized for the latents first; the ViT's resize is applied to the result.
    """
    height, width = resized_size(*image.shape[:2], limits, image_count)
    return resize_image(image, height, width)


def normalise(image: np.ndarray) -> np.ndarray:
    """Return ``(height, width, 3)`` uint8 as ``(3, height, width)`` float32 in -1..1."""
    scaled = image.astype(np.float32) / np.float32(255)
    return np.ascontiguousarray(((scaled - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1))


def vision_input(image: np.ndarray, latent_limits: ResizeConfig, vision_limits: ResizeConfig) -> np.ndarray:
    """Return an RGB uint8 image as the ViT takes it, ``(3, height, width)`` float32: resized twice, in this order."""
    return normalise(resize(resize(image, latent_limits), vision_limits))


def denormalise(pixels: ArrayT) -> ArrayT:
    """Return values of -1..1 as values of 0..1, clipped."""
    return (pixels * 0.5 + 0.5).clip(0, 1)


def to_uint8(picture: np.ndarray) -> np.ndarray:
    """Return values of 0..1 as 0..255, truncated as the published front end does."""
    return (picture * 255).astype(np.uint8)


# Tokens


def latent_tokens(latents: ArrayT, patch: int) -> ArrayT:
    """Cut ``(..., channels, height, width)`` into tokens ``(..., rows * columns, patch * patch * channels)``.

    Tokens come row by row; the values of one in the order row in patch, column in patch, channel.

    :raises ValueError: a side is no multiple of ``patch``
    """
    *batch, channels, height, width = latents.shape
    if height % patch or width % patch:
        raise ValueError(f'latents of {height} x {width} are no multiple of the patch size {patch}')
    rows, columns = height // patch, width // patch
    cells = latents.reshape(*batch, channels, rows, patch, columns, patch)
    # channels, rows, p, columns, q -> rows, columns, p, q, channels; swaps exist in torch and NumPy alike.
    cells = cells.swapaxes(-5, -4).swapaxes(-4, -2).swapaxes(-2, -1)
    return cells.reshape(*batch, rows * columns, patch * patch * channels)


def tokens_to_latents(tokens: ArrayT, grid: tuple[int, int], patch: int) -> ArrayT:
    """Invert :func:`latent_tokens` for a grid of ``(rows, columns)`` tokens.

    :raises ValueError: there are not ``rows * columns`` tokens
    """
    *batch, count, width = tokens.shape
    rows, columns = grid
    if count != rows * columns:
        raise ValueError(f'{count} tokens do not fill a grid of {rows} x {columns}')
    channels = width // (patch * patch)
    cells = tokens.reshape(*batch, rows, columns, patch, patch, channels)
    cells = cells.swapaxes(-2, -1).swapaxes(-4, -2).swapaxes(-5, -4)
    return cells.reshape(*batch, channels, rows * patch, columns * patch)


# Depth as an image


def depth_to_relative(metres: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """Return depth [m] clipped to a range ``(near, far)`` as 0 (near) .. 1 (far), float32."""
    near, far = depth_range
    return ((np.clip(metres.astype(np.float32), near, far) - near) / (far - near)).astype(np.float32)


def relative_to_depth(relative: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """Return relative depth 0..1 as metres, float32."""
    near, far = depth_range
    return (relative * (far - near) + near).astype(np.float32)


def picture_to_relative(picture: np.ndarray) -> np.ndarray:
    """Return the relative depth of a generated picture ``(height, width, 3)``: the mean of its channels."""
    return picture.mean(axis=-1, dtype=np.float32)


@cache
def spectral_colours() -> np.ndarray:
    """Return matplotlib's Spectral as ``(256, 3)`` float64 in 0..1, read-only; the first is red."""
    from matplotlib import colormaps

    table = colormaps['Spectral'](np.arange(256))[:, :3]
    table.setflags(write=False)
    return table


def colour_depth(
    depth: np.ndarray, depth_range: tuple[float, float] = (0.0, 1.0), valid: np.ndarray | None = None
) -> np.ndarray:
    """Colour ``(height, width)`` depth: near is red, far is blue, invalid is black.

    :return: ``(height, width, 3)`` float32 in 0..1; :func:`to_uint8` makes it an image
    """
    near, far = depth_range
    index = (np.clip((depth - near) / (far - near), 0, 1) * 256).astype(np.int64)
    colours = spectral_colours().astype(np.float32)[np.minimum(index, 255)]
    return colours if valid is None else colours * valid[..., None].astype(bool)


# Published training data


@dataclass(frozen=True)
class PublishedDepth:
    """Depth files of a published data set.

    :param units: file units in a metre
    :param depth_range: ``(near, far)`` [m] that becomes 0..1
    :param cropped: whether evaluation leaves out the border that NYU's frames have
    """

    units: float
    depth_range: tuple[float, float]
    cropped: bool = True


PUBLISHED_DEPTH = {
    'vkitti': PublishedDepth(100.0, (1e-5, 80.0)),
    'kitti': PublishedDepth(256.0, (1e-5, 80.0)),
    'nyu': PublishedDepth(1000.0, (1e-3, 10.0)),
    'hypersim': PublishedDepth(1000.0, (1e-5, 65.0), cropped=False),
}


def published_depth_resize(raw: np.ndarray, limits: ResizeConfig) -> np.ndarray:
    """Resize ``(height, width)`` integer depth as the published loader does: bicubic, overshoot kept.

    Pillow's 16-bit mode would clip inside the filter, so the values pass through mode I.
    """
    height, width = resized_size(*raw.shape, limits)
    image = Image.fromarray(raw.astype(np.int32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def published_depth_target(resized: np.ndarray, data: PublishedDepth) -> np.ndarray:
    """Return one of the three equal channels of a depth training target: float32 in -1..1."""
    metres = resized.astype(np.float32) / np.float32(data.units)
    return (depth_to_relative(metres, data.depth_range) - np.float32(0.5)) / np.float32(0.5)


def published_depth_mask(metres: np.ndarray, data: PublishedDepth) -> np.ndarray:
    """Return where a data set is evaluated: strictly inside its range and, where cropped, off the border."""
    near, far = data.depth_range
    mask = (metres > near) & (metres < far)
    if data.cropped:
        inside = np.zeros_like(mask)
        inside[45:471, 41:601] = True
        mask &= inside
    return mask


def published_segmentation_target(labels: np.ndarray, limits: ResizeConfig) -> np.ndarray:
    """Return uint8 labels as the published training reads them: bicubic, not divided by 255 (an oddity)."""
    height, width = resized_size(*labels.shape, limits)
    resized = np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.BICUBIC))
    return (resized.astype(np.float32) - np.float32(0.5)) / np.float32(0.5)
