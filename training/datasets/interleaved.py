"""Interleaved reasoning traces in the released SFT JSONL format, for stage 2a.

A line: ``{"interleaved_reason": [{"type": "text" | "image", "value": .., "need_loss": "true" | "false"}, ..]}``; an
image's value is base64, maybe after ``data:image/png;base64,``. The system prompt is not in the file: it comes from the
checkpoint.
Images before the first text with loss come from a camera and enter as latents and through the ViT, later ones are
generated maps and enter through the ViT alone, as the reasoner shows them.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from cooper_model.grammar import parse_turn, short_answer
from cooper_model.packing import Segment
from cooper_model.transforms import resize, to_rgb
from training.datasets.base import DataEntry, ModelInput, QuestionExample, exact_reward
from training.datasets.report import LeftOut, ReadReport
from training.datasets.rl import read_truth
from training.datasets.rows import Line, find_list, read_row, read_rows
from training.segments import model_text, user_text

LIST = 'Interleaved_SFT.jsonl'
REMEDY = 'Get the released training set (COOPER_Train_Set), unpack it, name the folder with Interleaved_SFT.jsonl'


@dataclass(frozen=True, eq=False)
class Said:
    """A text of a trace; ``learned`` where it is the model's own."""

    text: str
    learned: bool


@dataclass(frozen=True, eq=False)
class Seen:
    """An image of a trace, as in the file; ``camera`` where it is no generated map."""

    image: np.ndarray
    camera: bool


@dataclass
class Conversation:
    """A trace as segments of one sequence, each of which sees all before it, and the pictures that they name.

    :ivar vision: uint8 images as they enter the ViT; :ivar latents: uint8 images as they are encoded
    """

    segments: list[Segment] = field(default_factory=list)
    vision: list[np.ndarray] = field(default_factory=list)
    latents: list[np.ndarray] = field(default_factory=list)

    @property
    def seen(self) -> tuple[int, ...]:
        """All segments so far."""
        return tuple(range(len(self.segments)))


class InterleavedTraces:
    """Traces of one list; a line is read from disk whenever it is asked for, for its images are large.

    :raises FileNotFoundError: the list is missing
    :raises ValueError: no line of it can be used
    """

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        self.name, self.model = entry.label, model
        self.report = ReadReport(self.name)
        self.lines = read_rows(find_list(entry.path, LIST, REMEDY), self._parse, self.report)

    def __len__(self) -> int:
        return len(self.lines)

    def place(self, number: int) -> str:
        """Return the line of a trace."""
        return self.lines[number].place

    def _parse(self, row: Mapping[str, Any], line: Line) -> Line:
        items = read_items(row, decode=False)
        tokens = self.model.text_tokens(self._system) if self._system else 0
        for item in items:
            if isinstance(item, Said):
                tokens += self.model.text_tokens(item.text)
            else:
                size = item.image.shape[:2]
                tokens += self.model.image_tokens(*size) if item.camera else self._vision_tokens(*size)
        if self.model.max_tokens is not None and tokens > self.model.max_tokens:
            raise LeftOut('too long', f'{tokens} tokens, at most {self.model.max_tokens} fit (max_tokens)')
        return line

    @property
    def _system(self) -> str:
        return self.model.prompts.system('auto')

    def _vision_tokens(self, height: int, width: int) -> int:
        return self.model.vision_tokens(*self.model.latent_size(height, width))

    def items(self, number: int) -> list[Said | Seen]:
        """Return the texts and images of a trace, in order.

        :raises LeftOut: an image cannot be decoded
        """
        return read_items(read_row(self.lines[number]), decode=True)

    def conversation(self, number: int, first_vision: int = 0, first_latent: int = 0) -> Conversation:
        """Return a trace as segments for a packed sequence.

        :param first_vision, first_latent: numbers of its first ViT image and latent image in their batch
        :raises LeftOut: an image cannot be decoded
        """
        made, tokens, encode = Conversation(), self.model.config.tokens, self.model.tokenizer.encode
        if self._system:
            made.segments.append(user_text(encode(self._system), (), tokens))
        for item in self.items(number):
            if isinstance(item, Said):
                write = model_text if item.learned else user_text
                made.segments.append(write(encode(item.text), made.seen, tokens))
            else:
                self._show(made, item, first_vision, first_latent)
        return made

    def _show(self, made: Conversation, item: Seen, first_vision: int, first_latent: int) -> None:
        config = self.model.config
        image = resize(item.image, config.vae_transform)
        if item.camera:
            stride = config.latent_stride
            grid = (image.shape[0] // stride, image.shape[1] // stride)
            number = first_latent + len(made.latents)
            made.segments.append(Segment('latents', made.seen, image=number, grid=grid))
            made.latents.append(image)
        shown, patch = resize(image, config.vit_transform), config.vision.patch_size
        grid = (shown.shape[0] // patch, shown.shape[1] // patch)
        made.segments.append(Segment('vision', made.seen, image=first_vision + len(made.vision), grid=grid))
        made.vision.append(shown)

    def question(self, number: int) -> QuestionExample:
        """Return the question that a trace answers; see :class:`training.datasets.base.QuestionSet`."""
        items = self.items(number)
        first = next(n for n, item in enumerate(items) if isinstance(item, Said) and item.learned)
        image = next(item.image for item in items[:first] if isinstance(item, Seen))
        text = '\n'.join(item.text for item in items[:first] if isinstance(item, Said))
        answer = short_answer(parse_turn([item.text for item in items if isinstance(item, Said) and item.learned][-1]))
        truth = read_truth({}, text, answer)
        return QuestionExample(self.lines[number].place, image, text, truth, truth.choices)

    def reward(self, answer: str, example: QuestionExample) -> float:
        """Return 1 for a right short answer, otherwise 0."""
        return exact_reward(answer, example)


def read_items(row: Mapping[str, Any], decode: bool) -> list[Said | Seen]:
    """Return the texts and images of a line.

    :param decode: otherwise images have only their size and no pixels worth reading
    :raises LeftOut: the line is broken, or says nothing to learn
    """
    rows = row.get('interleaved_reason')
    if not isinstance(rows, list) or not all(isinstance(item, dict) for item in rows):
        raise LeftOut('broken line', "'interleaved_reason' is missing or no list of objects")
    items: list[Said | Seen] = []
    answering = False
    for number, item in enumerate(rows):
        value = item.get('value')
        if not isinstance(value, str):
            raise LeftOut('broken line', f'item {number}: value is {type(value).__name__}, expected a text')
        if item.get('type') == 'text':
            learned = str(item.get('need_loss', 'false')).lower() == 'true'
            answering |= learned
            items.append(Said(value, learned))
        else:
            items.append(Seen(_image_of(value, number, decode), camera=not answering))
    if not answering or not any(isinstance(item, Seen) and item.camera for item in items):
        raise LeftOut('broken line', 'no text has need_loss "true", or no image stands before it')
    return items


def _image_of(value: str, number: int, decode: bool) -> np.ndarray:
    try:
        raw = base64.b64decode(value.partition(';base64,')[2] or value, validate=True)
        with Image.open(io.BytesIO(raw)) as image:
            # An array of one repeated value has the size and costs no memory.
            return to_rgb(image) if decode else np.broadcast_to(np.uint8(0), (image.height, image.width, 3))
    except (binascii.Error, OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise LeftOut('unreadable image', f'item {number}: {error}') from error


def open_traces(entry: DataEntry, model: ModelInput) -> InterleavedTraces:
    """Open the traces of a config's entry."""
    return InterleavedTraces(entry, model)
