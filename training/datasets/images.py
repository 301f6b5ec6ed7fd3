"""Image files of data sets: camera images, 16-bit depth, masks, and resizing that invents no values."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from cooper_model.transforms import to_rgb
from cooper_model.types import CameraIntrinsics
from training.datasets.report import LeftOut


def existing(root: Path, name: str) -> Path:
    """Return the path of a file that a list names.

    :raises LeftOut: there is none
    """
    path = root / name
    if not path.is_file():
        raise LeftOut('missing file', str(path))
    return path


def image_size(path: Path) -> tuple[int, int]:
    """Return ``(height, width)`` from an image's head, without decoding it.

    :raises LeftOut: it is no image
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise LeftOut('unreadable image', f'{path}: {error}') from error


def same_size(first: Path, second: Path) -> tuple[int, int]:
    """Return ``(height, width)`` of two files.

    :raises LeftOut: they differ
    """
    sizes = image_size(first), image_size(second)
    if sizes[0] != sizes[1]:
        shown = [f'{path.name} has {width} x {height}' for path, (height, width) in
                 zip((first, second), sizes, strict=True)]  # fmt: skip
        raise LeftOut('sizes differ', f'{shown[0]}, {shown[1]} pixels')
    return sizes[0]


def read_rgb(path: Path) -> np.ndarray:
    """Return an image as ``(height, width, 3)`` uint8 RGB.

    :raises LeftOut: it cannot be decoded
    """
    try:
        with Image.open(path) as image:
            return to_rgb(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise LeftOut('unreadable image', f'{path}: {error}') from error


def read_integers(path: Path, deep: bool = False) -> np.ndarray:
    """Return depth in file units or instance numbers, ``(height, width)`` int32.

    :param deep: refuse 8 bits, which cannot hold depth in the units of any data set
    :raises LeftOut: it cannot be decoded, or has more than one channel
    """
    try:
        with Image.open(path) as image:
            values = np.asarray(image)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise LeftOut('unreadable image', f'{path}: {error}') from error
    if values.ndim != 2 or not np.issubdtype(values.dtype, np.integer):
        raise LeftOut('unreadable image', f'{path}: {values.dtype} of shape {values.shape}, expected one channel of '
                      'integers')  # fmt: skip
    if deep and values.dtype.itemsize < 2:
        raise LeftOut('unreadable image', f'{path}: 8 bits a pixel, expected depth of 16')
    return values.astype(np.int32)


def fill_nearest(values: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Return ``values`` ``(height, width)`` with each pixel that is not valid set to the nearest one that is.

    :raises ValueError: no pixel is valid
    """
    if valid.all():
        return values
    if not valid.any():
        raise ValueError('no pixel is valid; there is nothing to fill from')
    _, labels = cv2.distanceTransformWithLabels(
        (~valid).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    source = np.zeros(int(labels.max()) + 1, values.dtype)
    source[labels[valid]] = values[valid]
    return source[labels]


def cut(pixels: np.ndarray, size: tuple[int, int] | None) -> np.ndarray:
    """Return the middle of the bottom, at most ``size`` (height, width), as KITTI's benchmark; None cuts nothing."""
    if size is None:
        return pixels
    height, width = pixels.shape[:2]
    top, left = max(height - size[0], 0), max((width - size[1]) // 2, 0)
    return pixels[top : top + size[0], left : left + size[1]]


def turned(pixels: np.ndarray, mirrored: bool) -> np.ndarray:
    """Return pixels, where ``mirrored`` left to right."""
    return np.ascontiguousarray(pixels[:, ::-1]) if mirrored else pixels


def cut_camera(camera: CameraIntrinsics, size: tuple[int, int] | None) -> CameraIntrinsics:
    """Return the camera of the picture that :func:`cut` leaves."""
    if size is None:
        return camera
    top, left = max(camera.height - size[0], 0), max((camera.width - size[1]) // 2, 0)
    height, width = min(camera.height, size[0]), min(camera.width, size[1])
    return CameraIntrinsics(camera.fx, camera.fy, camera.cx - left, camera.cy - top, width, height)


def read_camera(value: object, height: int, width: int) -> CameraIntrinsics | None:
    """Return the camera of a row's ``intrinsics`` (fx, fy, cx, cy [px]); None where there are none.

    :raises LeftOut: a number is missing or out of range
    """
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise LeftOut('broken line', f"'intrinsics' is {type(value).__name__}, expected an object")
    numbers: Mapping[str, Any] = value
    try:
        fx, fy, cx, cy = (float(numbers[key]) for key in ('fx', 'fy', 'cx', 'cy'))
        return CameraIntrinsics(fx, fy, cx, cy, width, height)
    except KeyError as error:
        raise LeftOut('broken line', f"'intrinsics' lacks {error}") from error
    except (TypeError, ValueError) as error:
        raise LeftOut('broken line', f"'intrinsics': {error}") from error
