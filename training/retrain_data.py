"""A robot's folder as retraining reads it: which frames are held out, and each frame as latents, maps and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from cooper_model.perception import shown_picture
from cooper_model.types import Modality
from cooper_sim.robot_format import FRAMES, QUESTIONS, RobotFrame, RobotQuestion, latest, parse_question
from training.data import Sample
from training.datasets.base import DataEntry, Example, ModelInput
from training.datasets.images import image_size
from training.datasets.report import LeftOut, ReadReport
from training.datasets.robot import RobotItem, RobotPictures, frame_of
from training.datasets.rows import Line, read_rows
from training.latents import Encoder, counted_tokens

BLOCKS = 10
HELD_OUT_BLOCKS = (3, 8)
LEAST_TRAINED, LEAST_HELD_OUT = 4, 2
MEMORY = 1_500_000_000  # of frames that are kept ready [bytes]


@dataclass(frozen=True)
class Split:
    """Ids of frames.

    :param apart: neighbours in time of frames that are held out; nothing is done with them
    """

    trained: tuple[str, ...]
    held_out: tuple[str, ...]
    apart: tuple[str, ...]


def split(frames: Sequence[RobotFrame]) -> Split:
    """Hold out about a fifth of the frames, in blocks of time, so that nothing trained on shows the same moment.

    The time of each bag is cut into ten blocks with equally many frames. Two are held out, and the frame before and
    after each is left out. Of bags too short for that every fifth is held out whole.

    :raises ValueError: too few frames
    """
    bags: dict[str, dict[int, list[str]]] = {}
    for frame in sorted(frames, key=lambda frame: (bag_of(frame), frame.stamp_ns, frame.id)):
        bags.setdefault(bag_of(frame), {}).setdefault(frame.stamp_ns, []).append(frame.id)
    parts: dict[str, list[str]] = {'trained': [], 'held_out': [], 'apart': []}
    short = [bag for bag, moments in bags.items() if len(moments) < BLOCKS]
    for bag, moments in bags.items():
        if bag in short:
            part = 'held_out' if short.index(bag) % 5 == 4 else 'trained'
            parts[part] += [name for names in moments.values() for name in names]
            continue
        blocks = np.array_split(np.arange(len(moments)), BLOCKS)
        held = {int(n) for block in HELD_OUT_BLOCKS for n in blocks[block]}
        for number, names in enumerate(moments.values()):
            near = {number - 1, number + 1} & held
            parts['held_out' if number in held else 'apart' if near else 'trained'] += names
    found = Split(**{name: tuple(ids) for name, ids in parts.items()})
    if len(found.trained) < LEAST_TRAINED or len(found.held_out) < LEAST_HELD_OUT:
        raise ValueError(
            f'{len(frames)} frames of {len(bags)} bags leave {len(found.trained)} to train on and '
            f'{len(found.held_out)} to hold out, at least {LEAST_TRAINED} and {LEAST_HELD_OUT} are needed; record for '
            'longer, or lower --novelty of cooper bag2data'
        )
    return found


def bag_of(frame: RobotFrame) -> str:
    """Return which bag a frame is of, as ``cooper bag2data`` names frames; empty where its name does not tell."""
    bag, found, _ = frame.id.rpartition(f'_{frame.stamp_ns}')
    return bag if found else ''


class _Pictures(RobotPictures):
    """Frames of a robot's folder, those without maps too: they may be asked about."""

    def _parse(self, row: Mapping[str, Any], line: Line) -> RobotItem:
        frame = frame_of(row, self.root)
        self.check_length(*image_size(self.root / frame.image))
        return RobotItem(self.root / frame.image, line.place, frame)


class RobotFolder:
    """The frames of a folder with their questions.

    :ivar frames: those that have depth, a mask or a question
    :raises FileNotFoundError: the folder holds no frames
    :raises ValueError: none of them can be used
    """

    def __init__(self, folder: str | Path, model: ModelInput) -> None:
        self.folder, self.model = Path(folder), model
        self.questions: dict[str, list[RobotQuestion]] = {}
        if (self.folder / QUESTIONS).is_file():
            for question in latest(read_rows(self.folder / QUESTIONS, _question, ReadReport('questions'))):
                self.questions.setdefault(question.frame, []).append(question)
        self.pictures = _Pictures(DataEntry('robot', str(folder)), model)
        found = [item.frame for item in self.pictures.items]
        if not any(frame.depth or frame.mask for frame in found):
            raise ValueError(
                f'{self.folder / FRAMES}: no frame has depth and none has a mask, so there are no maps to learn; '
                'record a depth topic that is registered to the image, or a mask topic, for cooper bag2data'
            )
        self.frames = [frame for frame in found if frame.depth or frame.mask or frame.id in self.questions]
        self._numbers = {frame.id: number for number, frame in enumerate(found)}

    def frame(self, name: str) -> RobotFrame:
        """Return a frame by its id."""
        return self.pictures.items[self._numbers[name]].frame

    def example(self, name: str) -> Example:
        """Return a frame with the pictures that can be made of it, none where neither depth nor mask know a pixel.

        :raises LeftOut: a file cannot be read
        """
        number = self._numbers[name]
        try:
            return self.pictures.example(number)
        except LeftOut as error:
            if error.reason != 'nothing valid':
                raise
            return self.pictures.example(number, maps=False)


def _question(row: Mapping[str, Any], line: Line) -> RobotQuestion:
    try:
        return parse_question(row)
    except (ValueError, TypeError) as error:
        raise LeftOut('broken line', str(error)) from error


@dataclass(frozen=True)
class FrameSample(Sample):
    """One frame as latents, with what may be said of it.

    :param maps: true maps as they are shown to the model, ``(height, width, 3)`` uint8
    """

    maps: Mapping[Modality, np.ndarray]
    questions: tuple[RobotQuestion, ...]


class FrameSamples:
    """Some frames of a folder ready for training, the last ones used kept in memory.

    :param names: ids of frames
    """

    def __init__(self, folder: RobotFolder, names: Sequence[str], encoder: Encoder) -> None:
        self.folder, self.names, self._encoder = folder, names, encoder
        height, width = image_size(folder.pictures.items[0].image)
        height, width = folder.model.latent_size(height, width)
        self._kept = lru_cache(max(8, MEMORY // (30 * height * width)))(self._make)

    def __len__(self) -> int:
        return len(self.names)

    def draw(self, rng: np.random.Generator) -> FrameSample:
        """Return one of them; one that cannot be read is reported and another drawn.

        :raises ValueError: none can be read
        """
        for number in rng.permutation(len(self.names)):
            try:
                return self._kept(self.names[int(number)])
            except LeftOut as error:
                self.folder.pictures.report.leave_out(self.names[int(number)], error)
        raise ValueError(f'{self.folder.folder}: no frame can be read; {self.folder.pictures.report.summary()}')

    def _make(self, name: str) -> FrameSample:
        example = self.folder.example(name)
        image, *rows = self._encoder.encode([example.image, *(t.picture for t in example.targets.values())])
        masks = {kind: counted_tokens(target, self._encoder.stride) for kind, target in example.targets.items()}
        maps = {kind: shown_picture(target.picture, kind) for kind, target in example.targets.items()}
        return FrameSample(
            Example(example.image, record=example.record),
            image,
            dict(zip(example.targets, rows, strict=True)),
            {kind: mask for kind, mask in masks.items() if mask is not None},
            maps,
            tuple(self.folder.questions.get(name, ())),
        )
