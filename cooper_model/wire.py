"""What a server and its clients say to each other: pictures, cameras and events as JSON, both ways.

Pictures are data URLs without loss, so that a map read from one equals a map that was made here: PNG where they have 8
bits, TIFF with 32-bit floats for depth.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cooper_model.config import ColourCodeConfig, CooperConfig
from cooper_model.perception import colours_of, read_picture, shown_picture
from cooper_model.scene import describe_scene
from cooper_model.transforms import picture_to_relative, to_rgb
from cooper_model.types import (
    Answer,
    AnswerReady,
    CameraIntrinsics,
    Event,
    Frame,
    ImageProgress,
    ImageReady,
    ImageRequested,
    TextDelta,
    Turn,
    TurnDone,
)

MAX_PIXELS = 4096 * 4096
"""Largest picture that is decoded [px]."""

ASK, PERCEIVE, MODELS, HEALTH = '/v1/chat/completions', '/v1/perceive', '/v1/models', '/health'
PHOTOGRAPHS = ('PNG', 'JPEG', 'WEBP')


# Pictures


def image_url(pixels: np.ndarray) -> str:
    """Return ``(height, width, 3)`` uint8 RGB as the data URL of a PNG file."""
    return _url(Image.fromarray(np.ascontiguousarray(pixels)), 'png', compress_level=1)


def values_url(values: np.ndarray) -> str:
    """Return ``(height, width)`` float32 as the data URL of a TIFF file."""
    return _url(Image.fromarray(np.ascontiguousarray(values, dtype=np.float32)), 'tiff', compression='tiff_deflate')


def _url(image: Image.Image, kind: str, **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return f'data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode("ascii")}'


def read_image_url(url: str) -> np.ndarray:
    """Return the image of a data URL (PNG, JPEG or WebP) as ``(height, width, 3)`` uint8 RGB.

    :raises ValueError: it is no data URL, no such image, cut off, or larger than ``MAX_PIXELS``
    """
    return to_rgb(_read(url, PHOTOGRAPHS))


def read_values_url(url: str) -> np.ndarray:
    """Return the values of a data URL made by :func:`values_url`.

    :raises ValueError: as :func:`read_image_url`, or the file holds no 32-bit floats
    """
    image = _read(url, ('TIFF',))
    if image.mode != 'F':
        raise ValueError(f'a TIFF of mode {image.mode!r} holds no 32-bit floats')
    return np.array(image, np.float32)


def _read(url: str, formats: Sequence[str]) -> Image.Image:
    head, comma, payload = url.partition(',')
    if not comma or not head.startswith('data:') or not head.endswith(';base64'):
        raise ValueError(f'{url[:40]!r} is no data URL; expected data:image/png;base64,... (nothing is fetched)')
    try:
        image = Image.open(io.BytesIO(base64.b64decode(payload, validate=True)), formats=formats)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f'an image of {image.width} x {image.height} pixels is too large; at most {MAX_PIXELS}')
        image.load()
    except binascii.Error as error:
        raise ValueError(f'the data URL is not base64: {error}') from error
    except UnidentifiedImageError as error:
        raise ValueError(f'the data URL holds no {" or ".join(formats)} image') from error
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f'the image of a data URL cannot be read: {error}') from error
    return image


# Events


def event_record(event: Event, config: CooperConfig, camera: CameraIntrinsics | None) -> dict[str, Any]:
    """Return an event for JSON.

    :param config, camera: of the model and of the frame, which say what the colours of a picture mean
    """
    if isinstance(event, TextDelta):
        return {'type': 'text', 'turn': event.turn, 'text': event.text}
    if isinstance(event, ImageRequested):
        return {'type': 'image_requested', 'turn': event.turn, 'modality': event.modality}
    if isinstance(event, ImageProgress):
        return {'type': 'image_progress', **plain(event)}
    if isinstance(event, ImageReady):
        return _image_record(event, config, camera)
    if isinstance(event, TurnDone):
        return {'type': 'turn', 'turn': event.turn, 'parsed': plain(event.parsed)}
    said = event.answer
    # Pictures have left already, each in a record of its own.
    left = {each.name: getattr(said, each.name) for each in fields(said) if each.name not in ('depth', 'segmentation')}
    return {'type': 'answer', **plain(left)}


def _image_record(event: ImageReady, config: CooperConfig, camera: CameraIntrinsics | None) -> dict[str, Any]:
    record = {'type': 'image', 'turn': event.turn, 'modality': event.modality, 'seconds': event.seconds}
    if event.modality == 'depth':
        record['image_url'] = {'url': image_url(shown_picture(event.picture, 'depth'))}
        relative = np.clip(picture_to_relative(event.picture), 0, 1)
        return {**record, 'values': {'url': values_url(relative)}, 'range': plain(config.depth_range_of(camera))}
    record['image_url'] = {'url': image_url(colours_of(event.picture))}
    return {**record, 'colour_code': plain(config.colour_code)}


def plain(value: Any) -> Any:
    """Return a value as strict JSON knows it: dataclasses become objects, what is not finite null."""
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class EventReader:
    """Makes the events of a server those that a model in this process would give.

    Maps, objects and relations are worked out here, from the server's pictures and from what the frame knows: its
    camera and its measured depth.
    """

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._maps: dict[str, Any] = {}

    def read(self, record: Mapping[str, Any]) -> Event:
        """Return the event of a record.

        :raises ValueError: it is not one of :func:`event_record`
        """
        try:
            return self._event(record)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'the event {str(record)[:120]} cannot be read: {error!r}') from error

    def _event(self, record: Mapping[str, Any]) -> Event:
        kind = record['type']
        if kind == 'answer':
            return AnswerReady(self._answer(record))
        turn = int(record['turn'])
        if kind == 'text':
            return TextDelta(turn, str(record['text']))
        if kind == 'turn':
            return TurnDone(turn, Turn(**record['parsed']))
        if kind not in ('image_requested', 'image_progress', 'image'):
            raise ValueError(f'an event has the unknown type {kind!r}')
        modality = record['modality']
        if modality not in ('depth', 'segmentation'):
            raise ValueError(f'an event has the unknown modality {modality!r}')
        if kind == 'image_requested':
            return ImageRequested(turn, modality)
        if kind == 'image_progress':
            return ImageProgress(turn, modality, int(record['step']), int(record['steps']))
        return self._image(turn, record)

    def _image(self, turn: int, record: Mapping[str, Any]) -> ImageReady:
        modality, depth_range, code = record['modality'], None, ColourCodeConfig()
        if modality == 'depth':
            picture = read_values_url(record['values']['url'])[..., None]
            if record['range'] is not None:
                near, far = record['range']
                depth_range = float(near), float(far)
        else:
            picture = read_image_url(record['image_url']['url']).astype(np.float32) / np.float32(255)
            code = ColourCodeConfig(**{name: _tuples(value) for name, value in record['colour_code'].items()})
        self._maps[modality] = found = read_picture(picture, modality, self._frame, depth_range, code)
        return ImageReady(turn, modality, found, float(record['seconds']), picture)

    def _answer(self, record: Mapping[str, Any]) -> Answer:
        depth, segmentation = self._maps.get('depth'), self._maps.get('segmentation')
        objects, relations = describe_scene(self._frame, depth, segmentation)
        return Answer(
            text=str(record['text']),
            mode=record['mode'],
            value=None if record['value'] is None else float(record['value']),
            unit=str(record['unit']),
            confidence=float(record['confidence']),
            thoughts=tuple(str(thought) for thought in record['thoughts']),
            depth=depth,
            segmentation=segmentation,
            objects=objects,
            relations=relations,
            timings={str(name): float(seconds) for name, seconds in record['timings'].items()},
            forced=bool(record['forced']),
        )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
