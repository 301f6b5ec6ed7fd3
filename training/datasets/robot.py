"""A robot's day, as ``robot_format`` lays it down: pictures to generate for stage 1, questions for stages 2a and 2b.

Depth carries no loss where it is unknown, masks none where they are. A frame without depth, or without a mask, is
trained on what it has. An object has the colour of its kind; one of a kind that the checkpoint has not is background.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cooper_model.transforms import resize
from cooper_model.types import UNLABELLED, CameraIntrinsics, Modality
from cooper_sim.grading import Truth
from cooper_sim.records import Record
from cooper_sim.robot_format import (
    FRAMES,
    QUESTIONS,
    UNKNOWN,
    RobotFrame,
    RobotQuestion,
    latest,
    parse_frame,
    parse_question,
)
from cooper_sim.scoring import nearest
from cooper_sim.types import VisibleObject
from training.datasets.base import (
    DENSE,
    DataEntry,
    Example,
    MapTruth,
    ModelInput,
    QuestionExample,
    Target,
    exact_reward,
)
from training.datasets.depth_pairs import depth_target, measured
from training.datasets.images import existing, image_size, read_integers, read_rgb, same_size
from training.datasets.listed import Item, Listed
from training.datasets.masks import check_classes, class_table, coloured
from training.datasets.report import LeftOut, ReadReport
from training.datasets.rows import Line, find_list, read_rows
from training.datasets.scores import depth_values, segmentation_values

REMEDY = 'Name a folder that cooper bag2data wrote, with frames.jsonl in it'
DEPTH_RANGE = (1e-3, 10.0)  # [m] of pictures for checkpoints that state none
MILLIMETRES = 1000.0


@dataclass(frozen=True)
class RobotItem(Item):
    """One frame."""

    frame: RobotFrame


class RobotPictures(Listed[RobotItem]):
    """Frames with the pictures that can be made of their depth and masks.

    :raises ValueError: ``classes`` name what the checkpoint has not
    """

    modalities: tuple[Modality, ...] = ('depth', 'segmentation')

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        check_classes(entry.classes, model.config.colour_code, entry.set)
        if entry.flip:
            raise ValueError(f'{entry.path}: frames are not mirrored, their texts say left and right; drop flip')
        super().__init__(entry, model, FRAMES, REMEDY)
        # Of lines of one frame the last holds.
        self.items = list({item.frame.id: item for item in self.items}.values())

    def _parse(self, row: Mapping[str, Any], line: Line) -> RobotItem:
        frame = frame_of(row, self.root)
        if not frame.depth and not (frame.mask and self.config.colour_code.names):
            raise LeftOut('nothing valid', 'the frame has neither depth nor a mask that the checkpoint has colours for')
        self.check_length(*image_size(self.root / frame.image))
        return RobotItem(self.root / frame.image, line.place, frame)

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one frame; see :class:`training.datasets.base.DataSet`."""
        frame = self.items[number].frame
        record = read_record(frame, self.root, self.model)
        if not maps:
            return Example(record.image, record=_complete(frame, record))
        targets: dict[Modality, Target] = {}
        metres, ids = None, None
        depth_range = self.config.depth_range_of(frame.intrinsics) or DEPTH_RANGE
        if np.isfinite(record.depth).any():
            metres = measured(read_integers(self.root / frame.depth, deep=True), MILLIMETRES)
            targets['depth'] = depth_target(metres, record.ids.shape, depth_range, DENSE)
        known = record.ids != UNKNOWN
        if frame.mask and known.any() and self.config.colour_code.names:
            names = {thing.id: thing.kind for thing in frame.objects} | {UNKNOWN: ''}
            table = class_table(names, self.config.colour_code, self.entry.classes)
            picture = coloured(record.ids, table, self.config.colour_code)
            targets['segmentation'] = Target(picture, None if known.all() else known)
            ids = np.where(table[record.ids] == UNLABELLED, 0, record.ids)
        if not targets:
            raise LeftOut('nothing valid', f'depth and mask of frame {frame.id} know no pixel')
        truth = MapTruth(metres, depth_range, ids, known)
        return Example(record.image, targets, truth, _complete(frame, record))

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return errors of generated depth and IoU of generated masks, of what the frame has."""
        depth = depth_values(pictures['depth'], example.truth)
        return depth | segmentation_values(pictures['segmentation'], example.truth, self.config.colour_code)


class RobotQuestions:
    """Questions about frames, with true answers.

    :raises FileNotFoundError: one of the two lists is missing
    :raises ValueError: no line of one of them can be used
    """

    def __init__(self, entry: DataEntry, model: ModelInput) -> None:
        self.name, self.model = entry.label, model
        path = find_list(entry.path, FRAMES, REMEDY)
        self.root = Path(entry.root or path.parent)
        self.frame_report, self.report = ReadReport(f'{self.name} frames'), ReadReport(self.name)
        frames = read_rows(path, lambda row, line: frame_of(row, self.root), self.frame_report)
        self.frames = {frame.id: frame for frame in frames}
        questions = find_list(path.with_name(QUESTIONS), QUESTIONS, REMEDY)
        items = latest(read_rows(questions, self._parse, self.report))
        self.items = items[: entry.trained(len(items))]

    def __len__(self) -> int:
        return len(self.items)

    def place(self, number: int) -> str:
        """Return what is asked of which frame."""
        return f'{self.root / QUESTIONS}, frame {self.items[number].frame}, {self.items[number].question!r}'

    def _parse(self, row: Mapping[str, Any], line: Line) -> RobotQuestion:
        try:
            question = parse_question(row)
        except (ValueError, TypeError) as error:
            raise LeftOut('broken line', str(error)) from error
        if question.frame not in self.frames:
            raise LeftOut('missing file', f'frame {question.frame!r} is not among those of {FRAMES} that can be used')
        return question

    def question(self, number: int) -> QuestionExample:
        """Return one question; see :class:`training.datasets.base.QuestionSet`."""
        asked = self.items[number]
        frame = self.frames[asked.frame]
        record = _complete(frame, read_record(frame, self.root, self.model))
        return QuestionExample(
            id=f'{asked.frame}/{number}',
            image=read_rgb(self.root / frame.image),
            text=asked.question,
            truth=Truth(asked.answer, asked.value, asked.unit, asked.choices),
            choices=asked.choices,
            category=asked.category,
            intrinsics=frame.intrinsics,
            record=record,
            object_ids=asked.object_ids,
        )

    def reward(self, answer: str, example: QuestionExample) -> float:
        """Return 1 for a right short answer, otherwise 0."""
        return exact_reward(answer, example)


def read_record(frame: RobotFrame, root: Path, model: ModelInput) -> Record:
    """Return a frame as a record of the size that the model encodes, for texts and targets.

    Depth is NaN where it is unknown. Without a camera the record has one of 60 degrees, without ``up`` that of a level
    camera; :func:`_complete` says whether texts may be made of it.

    :raises LeftOut: a file cannot be read
    """
    image = read_rgb(root / frame.image)
    height, width = image.shape[:2]
    image = resize(image, model.config.vae_transform)
    size = image.shape[:2]
    metres = np.full(size, np.nan, np.float32)
    if frame.depth:
        metres = nearest(measured(read_integers(root / frame.depth, deep=True), MILLIMETRES), *size)
    ids = nearest(_read_mask(frame, root), *size) if frame.mask else np.zeros(size, np.int32)
    camera = frame.intrinsics or CameraIntrinsics.from_vertical_fov(60.0, width, height)
    things = tuple(_scaled(thing, size[1] / width, size[0] / height) for thing in frame.objects)
    up = frame.up or (0.0, -1.0, 0.0)
    return Record(0, frame.id, image, metres, ids, camera.scaled(size[1], size[0]), things, up)


def _read_mask(frame: RobotFrame, root: Path) -> np.ndarray:
    ids = read_integers(root / frame.mask)
    unnamed = sorted(set(np.unique(ids).tolist()) - {0, UNKNOWN, *(thing.id for thing in frame.objects)})
    if unnamed:
        raise LeftOut('unreadable image', f'{root / frame.mask} has ids {unnamed} that no object of the line has')
    return ids


def _complete(frame: RobotFrame, record: Record) -> Record | None:
    """Return the record if all that texts speak of is known: camera, up, masks and metric objects."""
    known = frame.intrinsics and frame.up and frame.mask and all(thing.metric for thing in frame.objects)
    return record if known else None


def _scaled(thing: VisibleObject, across: float, down: float) -> VisibleObject:
    left, top, right, bottom = thing.box
    box = (round(left * across), round(top * down), round(right * across), round(bottom * down))
    return replace(thing, box=box, area=round(thing.area * across * down))


def frame_of(row: Mapping[str, Any], root: Path) -> RobotFrame:
    """Return the frame of a line whose files are there and fit together.

    :raises LeftOut: they do not, or the line is broken
    """
    try:
        frame = parse_frame(row)
    except (ValueError, TypeError) as error:
        raise LeftOut('broken line', str(error)) from error
    image = existing(root, frame.image)
    for name in (frame.depth, frame.mask):
        if name:
            same_size(image, existing(root, name))
    height, width = image_size(image)
    camera = frame.intrinsics
    if camera is not None and (camera.height, camera.width) != (height, width):
        sizes = f'intrinsics are of {camera.width} x {camera.height}, the image has {width} x {height}'
        raise LeftOut('sizes differ', f'{sizes} pixels')
    return frame


def open_set(entry: DataEntry, model: ModelInput) -> RobotPictures:
    """Open the frames of a config's entry as pictures."""
    return RobotPictures(entry, model)


def open_questions(entry: DataEntry, model: ModelInput) -> RobotQuestions:
    """Open the questions of a config's entry."""
    return RobotQuestions(entry, model)
