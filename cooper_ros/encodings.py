"""Pixels of ``sensor_msgs/Image`` and ``CompressedImage``, decoded without cv_bridge and without copying twice.

Names of encodings are those of ``sensor_msgs/image_encodings.hpp``. ``8UC3`` and ``8UC4`` say nothing about colour;
they are read as BGR and BGRA, which is what OpenCV programs send and what RViz assumes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

# OpenCV names a Bayer pattern after the second row's second and third pixel, ROS after the first two of the first row.
_BAYER = {
    'bayer_rggb': cv2.COLOR_BayerBG2RGB,
    'bayer_bggr': cv2.COLOR_BayerRG2RGB,
    'bayer_gbrg': cv2.COLOR_BayerGR2RGB,
    'bayer_grbg': cv2.COLOR_BayerGB2RGB,
}
_CHANNELS = {
    'rgb8': (0, 1, 2),
    'bgr8': (2, 1, 0),
    'rgba8': (0, 1, 2, -1),
    'bgra8': (2, 1, 0, -1),
    '8UC3': (2, 1, 0),
    '8UC4': (2, 1, 0, -1),
    'mono8': (0,),
    '8UC1': (0,),
}
_DEEP_CHANNELS = {
    'rgb16': (0, 1, 2),
    'bgr16': (2, 1, 0),
    'rgba16': (0, 1, 2, -1),
    'bgra16': (2, 1, 0, -1),
    'mono16': (0,),
}
_UYVY = ('yuv422', 'uyvy')
_YUYV = ('yuv422_yuy2', 'yuyv')
_PLANAR = {'nv12': cv2.COLOR_YUV2RGB_NV12, 'nv21': cv2.COLOR_YUV2RGB_NV21}
_LABELS = {'mono8': 'u1', '8UC1': 'u1', 'mono16': 'u2', '16UC1': 'u2', '16SC1': 'i2', '32SC1': 'i4'}
DEPTH_ENCODINGS = ('16UC1', 'mono16', '32FC1')
COLOUR_ENCODINGS = (
    *_CHANNELS,
    *_DEEP_CHANNELS,
    *(f'{name}{bits}' for name in _BAYER for bits in (8, 16)),
    *_UYVY,
    *_YUYV,
    *_PLANAR,
)


class ConversionError(ValueError):
    """A message does not hold what it says; the text names the value and the remedy."""


@dataclass(frozen=True)
class _Layout:
    """Shape of the bytes of one image. ``rows`` exceeds the height for planar encodings."""

    rows: int
    row_bytes: int


def _buffer(message: Any, layout: _Layout) -> tuple[memoryview, int]:
    """Return the data and the bytes from one row to the next, after checking that all rows are there."""
    data = memoryview(message.data).cast('B')
    # Some drivers leave step at zero where rows are not padded.
    step = message.step or layout.row_bytes
    if step < layout.row_bytes:
        raise ConversionError(
            f'image: step is {step} bytes, but {message.width} pixels of {message.encoding!r} take '
            f'{layout.row_bytes}; correct step, width or encoding in the driver'
        )
    needed = step * (layout.rows - 1) + layout.row_bytes
    if len(data) < needed:
        raise ConversionError(
            f'image: data is truncated: {len(data)} bytes, but {message.width} x {message.height} pixels of '
            f'{message.encoding!r} with step {step} take {needed}; check the driver and the transport'
        )
    return data, step


def _rows(message: Any, layout: _Layout) -> np.ndarray:
    """Return the bytes as ``(rows, row_bytes)`` uint8, a view without the padding."""
    data, step = _buffer(message, layout)
    return np.ndarray((layout.rows, layout.row_bytes), np.uint8, data, strides=(step, 1))


def _pixels(message: Any, channels: int, dtype: str) -> np.ndarray:
    """Return ``(height, width, channels)`` in the message's byte order, a view without the padding."""
    kind = np.dtype(dtype).newbyteorder('>' if message.is_bigendian else '<')
    row_bytes = message.width * channels * kind.itemsize
    data, step = _buffer(message, _Layout(message.height, row_bytes))
    shape = (message.height, message.width, channels)
    return np.ndarray(shape, kind, data, strides=(step, channels * kind.itemsize, kind.itemsize))


def _check_size(message: Any) -> None:
    if message.width == 0 or message.height == 0:
        raise ConversionError(
            f'image: size is {message.width} x {message.height}, it has no pixels; check the camera driver'
        )


def _select(pixels: np.ndarray, order: tuple[int, ...]) -> np.ndarray:
    """Return contiguous ``(height, width, 3)``: colours in RGB order without alpha, or one grey level three times."""
    if len(order) == 1:
        return np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[:, :, list(order[:3])])


def _to_8_bit(pixels: np.ndarray) -> np.ndarray:
    return (pixels >> 8).astype(np.uint8)


def _bayer(message: Any) -> np.ndarray:
    pattern, deep = message.encoding[:10], message.encoding.endswith('16')
    raw = _pixels(message, 1, 'u2' if deep else 'u1')[:, :, 0]
    if min(raw.shape) < 3:
        raise ConversionError(
            f'image: {message.width} x {message.height} pixels are too few to interpolate {message.encoding!r}; '
            'send at least 3 x 3'
        )
    native = np.ascontiguousarray(raw, np.uint16 if deep else np.uint8)
    colour = cv2.cvtColor(native, _BAYER[pattern])
    return _to_8_bit(colour) if deep else colour


def _yuv422(message: Any) -> np.ndarray:
    """Decode packed 4:2:2. An odd last pixel borrows the missing half of its chroma from its left neighbour."""
    if message.width < 2:
        raise ConversionError(f'image: {message.encoding!r} needs a width of 2 or more, got {message.width}')
    rows = _rows(message, _Layout(message.height, 2 * message.width))
    if message.width % 2:
        rows = np.concatenate([rows, rows[:, -4:-2]], axis=1)
    code = cv2.COLOR_YUV2RGB_UYVY if message.encoding in _UYVY else cv2.COLOR_YUV2RGB_YUY2
    packed = np.ascontiguousarray(rows).reshape(message.height, -1, 2)
    return np.ascontiguousarray(cv2.cvtColor(packed, code)[:, : message.width])


def _planar(message: Any) -> np.ndarray:
    if message.width % 2 or message.height % 2:
        raise ConversionError(
            f'image: {message.encoding!r} needs an even width and height, got {message.width} x {message.height}'
        )
    rows = _rows(message, _Layout(message.height * 3 // 2, message.width))
    return cv2.cvtColor(np.ascontiguousarray(rows), _PLANAR[message.encoding])


def _decoder(encoding: str) -> Callable[[Any], np.ndarray] | None:
    if encoding in _CHANNELS:
        order = _CHANNELS[encoding]
        return lambda message: _select(_pixels(message, len(order), 'u1'), order)
    if encoding in _DEEP_CHANNELS:
        deep = _DEEP_CHANNELS[encoding]
        return lambda message: _select(_to_8_bit(_pixels(message, len(deep), 'u2')), deep)
    if encoding in _PLANAR:
        return _planar
    if encoding in (*_UYVY, *_YUYV):
        return _yuv422
    if encoding in COLOUR_ENCODINGS:
        return _bayer
    return None


def colour_from_image(message: Any) -> np.ndarray:
    """Return ``(height, width, 3)`` uint8 RGB of a ``sensor_msgs/Image``.

    :raises ConversionError: no pixels, too little data, a step below a row, or an encoding that holds no colour
    """
    _check_size(message)
    decode = _decoder(message.encoding)
    if decode is None:
        depth = message.encoding in DEPTH_ENCODINGS
        hint = 'holds depth; remap image_raw to a colour image' if depth else 'is unknown'
        raise ConversionError(
            f'image: encoding {message.encoding!r} {hint}; expected one of {", ".join(COLOUR_ENCODINGS)}'
        )
    return decode(message)


def depth_from_image(message: Any) -> np.ndarray:
    """Return ``(height, width)`` float32 metres of a depth image as in REP 118, NaN where invalid.

    :raises ConversionError: no pixels, too little data, or an encoding other than 16UC1 [mm] and 32FC1 [m]
    """
    _check_size(message)
    if message.encoding == '32FC1':
        depth = _pixels(message, 1, 'f4')[:, :, 0].astype(np.float32)
    elif message.encoding in DEPTH_ENCODINGS:
        depth = _pixels(message, 1, 'u2')[:, :, 0].astype(np.float32) / 1000
    else:
        raise ConversionError(
            f'depth image: encoding {message.encoding!r} is unknown; expected 16UC1 in millimetres or 32FC1 in metres'
        )
    return np.where(np.isfinite(depth) & (depth > 0), depth, np.float32(np.nan))


def labels_from_image(message: Any) -> np.ndarray:
    """Return ``(height, width)`` int32 of an image whose pixels number classes or objects.

    :raises ConversionError: no pixels, too little data, or an encoding other than 8, 16 or 32 bit integers
    """
    _check_size(message)
    kind = _LABELS.get(message.encoding)
    if kind is None:
        raise ConversionError(f'mask: encoding {message.encoding!r} is unknown; expected one of {", ".join(_LABELS)}')
    return _pixels(message, 1, kind)[:, :, 0].astype(np.int32)


def decode_picture(data: np.ndarray, flags: int) -> np.ndarray | None:
    """Return a compressed picture, ``(bytes,)`` uint8, as OpenCV decodes it; None where it is none.

    :param flags: of ``cv2.imdecode``
    :raises ConversionError: it is truncated, or cannot be decoded
    """
    # Decoders fill the missing part of a truncated picture and call it a success.
    tail = data[-1024:].tobytes()
    for start, end, name in ((b'\xff\xd8\xff', b'\xff\xd9', 'JPEG'), (b'\x89PNG', b'IEND', 'PNG')):
        if data[:4].tobytes().startswith(start) and end not in tail:
            raise ConversionError(
                f'compressed image: {name} data is truncated: {data.size} bytes without its end mark; '
                'check the driver and the transport'
            )
    try:
        return cv2.imdecode(data, flags)
    except cv2.error as error:
        raise ConversionError(f'compressed image: {data.size} bytes cannot be decoded: {error.err}') from error


def colour_from_compressed(message: Any) -> np.ndarray:
    """Return ``(height, width, 3)`` uint8 RGB of a ``sensor_msgs/CompressedImage`` (JPEG, PNG, whatever OpenCV reads).

    An orientation tag is not applied: camera intrinsics belong to the picture as the sensor delivered it.

    :raises ConversionError: no data, truncated data, a depth image, or a format that OpenCV does not read
    """
    if 'compressedDepth' in message.format:
        raise ConversionError(
            f'compressed image: format {message.format!r} holds depth; remap image_raw to a colour image'
        )
    data = np.frombuffer(message.data, np.uint8)
    if data.size == 0:
        raise ConversionError(f'compressed image: no data in format {message.format!r}; check the camera driver')
    picture = decode_picture(data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise ConversionError(
            f'compressed image: {data.size} bytes of format {message.format!r} are no picture that can be read; '
            'send JPEG or PNG'
        )
    return np.ascontiguousarray(picture[:, :, ::-1])
