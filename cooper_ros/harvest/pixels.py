"""Depth as cameras send it and bags hold it: raw, compressed, in the right unit or not."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from cooper_ros.encodings import ConversionError, decode_picture, depth_from_image

# Beyond this a sensor of a robot does not measure, so numbers above it are millimetres [m].
FARTHEST = 60.0
COMPRESSED_DEPTH = 'compressedDepth'
HEADER_BYTES = 12  # of compressedDepth: an int32 and two float32
MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Depth:
    """A measured depth image.

    :param metres: ``(height, width)`` float32, NaN where invalid
    :param surprise: what is not as the message declares, and how it was read; empty where all is well
    """

    metres: np.ndarray
    surprise: str = ''


def read_depth(message: Any) -> Depth:
    """Return the depth of a ``sensor_msgs/Image`` or ``CompressedImage`` of rclpy or rosbags.

    :raises ConversionError: it cannot be decoded, or holds no depth; the text names the remedy
    """
    metres = _from_compressed(message) if hasattr(message, 'format') else depth_from_image(message)
    declared = message.format if hasattr(message, 'format') else message.encoding
    return in_metres(metres, declared)


def in_metres(metres: np.ndarray, declared: str) -> Depth:
    """Return depth in metres, though it may be declared so and be in millimetres."""
    valid = metres[np.isfinite(metres)]
    if not declared.startswith('32FC1') or not valid.size:
        return Depth(metres)
    middle = float(np.median(valid))
    if middle <= FARTHEST:
        return Depth(metres)
    if middle / MILLIMETRES > FARTHEST:
        raise ConversionError(
            f'depth declared {declared} in metres has a median of {middle:.4g}, which is neither metres nor '
            'millimetres; correct the driver'
        )
    surprise = (
        f'depth declared {declared}, which means metres, has a median of {middle:.4g}: read as millimetres; '
        'correct the driver'
    )
    return Depth(metres / np.float32(MILLIMETRES), surprise)


def _from_compressed(message: Any) -> np.ndarray:
    """Return metres of a depth image that image_transport compressed, losslessly or by ``compressedDepth``.

    ``compressedDepth`` of 32FC1 stores ``a / depth + b`` as 16-bit PNG, a and b in a header of its own (source:
    compressed_depth_image_transport of image_transport_plugins).
    """
    declared = message.format
    data = np.frombuffer(message.data, np.uint8)
    inverse = COMPRESSED_DEPTH in declared
    if 'rvl' in declared:
        raise ConversionError(f'compressed depth: format {declared!r} is not read; send compressedDepth png, or raw')
    if data.size <= HEADER_BYTES:
        raise ConversionError(f'compressed depth: {data.size} bytes of format {declared!r} hold no picture')
    _, a, b = struct.unpack('<iff', data[:HEADER_BYTES].tobytes()) if inverse else (0, 0.0, 0.0)
    picture = decode_picture(data[HEADER_BYTES:] if inverse else data, cv2.IMREAD_UNCHANGED)
    if picture is None or picture.ndim != 2 or picture.dtype not in (np.uint16, np.float32):
        raise ConversionError(
            f'compressed depth: {data.size} bytes of format {declared!r} are no depth picture; send raw depth'
        )
    values = picture.astype(np.float32)
    if not (inverse and declared.startswith('32FC1')):
        scale = 1.0 if picture.dtype == np.float32 else MILLIMETRES
        return np.where(values > 0, values / np.float32(scale), np.float32(np.nan))
    with np.errstate(divide='ignore', invalid='ignore'):
        metres = np.float32(a) / (values - np.float32(b))
    return np.where((values > 0) & np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))
