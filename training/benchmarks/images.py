"""Images of a question, from base64 or from files, as the one image that the model takes."""

from __future__ import annotations

import base64
import binascii
import io
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from cooper_model.transforms import to_rgb
from training.benchmarks.items import Item

LONGEST_PATH = 1024
GAP = 16  # between images that are joined [px]


def load(item: Item, folders: Sequence[Path]) -> list[np.ndarray]:
    """Return the images of a question, each ``(height, width, 3)`` uint8 RGB.

    :param folders: where relative paths are looked up, in order
    :raises ValueError: one is missing or cannot be read
    """
    return [_decode(_bytes(text, folders)) for text in item.images]


def join(images: Sequence[np.ndarray]) -> np.ndarray:
    """Return images side by side on white, scaled to the height of the first."""
    height = images[0].shape[0]
    parts = []
    for image in images:
        width = max(1, round(image.shape[1] * height / image.shape[0]))
        parts += [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)]
        parts += [np.full((height, GAP, 3), 255, np.uint8)]
    return np.hstack(parts[:-1])


def _bytes(text: str, folders: Sequence[Path]) -> bytes:
    if len(text) <= LONGEST_PATH:
        for folder in folders:
            if os.path.isfile(folder / text):  # Path.is_file raises where a name is too long
                return (folder / text).read_bytes()
        if Path(text).suffix:
            places = ', '.join(map(str, folders))
            raise ValueError(f'image {text!r} is not under {places}; name the folder with --images')
    try:
        return base64.b64decode(text.partition('base64,')[2] or text, validate=True)
    except binascii.Error as error:
        raise ValueError(f'the image is no base64: {error}') from None


def _decode(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise ValueError(f'{len(data)} bytes are no image that can be read') from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'the image cannot be read: {error}') from None
