"""Our own folder of a robot's day: what stands in it, written and read by this one definition.

``frames.jsonl`` has a camera frame a line, ``questions.jsonl`` a question about one; image files lie below ``images/``,
``depth/`` (16-bit PNG, millimetres, 0 unknown) and ``masks/`` (16-bit PNG, 0 no object, 65535 unknown, otherwise the
``id`` of an object). Lines are only ever added, each after its files, so that a killed writer loses at most the frame
at hand. Of lines of one frame, and of lines that ask the same of it, the last holds: so a correction is corrected.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

from cooper_model.types import CameraIntrinsics, Frame
from cooper_sim.questions import Form
from cooper_sim.types import VisibleObject

FRAMES, QUESTIONS = 'frames.jsonl', 'questions.jsonl'
UNKNOWN = 65535
Source = Literal['rule', 'correction']
_NAME = re.compile(r'[\w.-]+')
_UP_TOLERANCE = 1e-3


@dataclass(frozen=True)
class RobotFrame:
    """One line of ``frames.jsonl``.

    :param id: unique in the folder; letters, digits, ``_``, ``-`` and ``.``
    :param image, depth, mask: files relative to the folder; depth and mask may be empty
    :param intrinsics: of the image, None where not calibrated
    :param up: unit vector against gravity in the optical frame, None where unknown
    :param stamp_ns: acquisition time [ns]
    :param frame_id: name of the camera's optical frame
    :param objects: what the mask's ids are, in pixels of the image and metres of the optical frame
    :raises ValueError: a value is out of range
    """

    id: str
    image: str
    depth: str = ''
    mask: str = ''
    intrinsics: CameraIntrinsics | None = None
    up: tuple[float, float, float] | None = None
    stamp_ns: int = 0
    frame_id: str = ''
    objects: tuple[VisibleObject, ...] = ()

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.id):
            raise ValueError(f'frame id {self.id!r} cannot name a file; use letters, digits, _, - and .')
        if self.up is not None and abs(math.hypot(*self.up) - 1) > _UP_TOLERANCE:
            raise ValueError(f'frame {self.id}: up is {self.up}, expected a vector of length 1')
        ids = [thing.id for thing in self.objects]
        if len(set(ids)) < len(ids) or not all(0 < number < UNKNOWN for number in ids):
            raise ValueError(f'frame {self.id}: object ids are {ids}, expected different numbers in 1..{UNKNOWN - 1}')


@dataclass(frozen=True)
class RobotQuestion:
    """One line of ``questions.jsonl``.

    :param frame: id of the frame that it is asked about
    :param form, choices, answer, value, unit, category: as of :class:`cooper_sim.questions.Question`
    :param object_ids: what it is about, in the order of mention; empty where not known
    :param source: made by the rules of the simulation, or the correction of a human
    :raises ValueError: a value is out of range
    """

    frame: str
    question: str
    answer: str
    form: Form = 'open'
    choices: tuple[str, ...] = ()
    value: float | None = None
    unit: str = ''
    category: str = ''
    object_ids: tuple[int, ...] = ()
    source: Source = 'rule'

    def __post_init__(self) -> None:
        for name, known in (('form', get_args(Form)), ('source', get_args(Source))):
            if getattr(self, name) not in known:
                raise ValueError(f'question: {name} is {getattr(self, name)!r}, expected one of {", ".join(known)}')
        if not self.question.strip() or not self.answer.strip():
            raise ValueError(f'question {self.question!r} with answer {self.answer!r}: neither may be empty')
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f'question: value is {self.value}, expected a number; leave it out for words')


def parse_frame(row: Mapping[str, Any]) -> RobotFrame:
    """Return what a line of ``frames.jsonl`` says.

    :raises ValueError, TypeError: a key is unknown or missing, or a value does not fit
    """
    given = dict(row)
    if given.get('intrinsics') is not None:
        given['intrinsics'] = CameraIntrinsics(**given['intrinsics'])
    if given.get('up') is not None:
        given['up'] = _numbers('up', given['up'], 3)
    given['objects'] = tuple(_parse_object(thing) for thing in given.get('objects', ()))
    _check_texts(given, ('id', 'image', 'depth', 'mask', 'frame_id'))
    return RobotFrame(**given)


def _parse_object(row: object) -> VisibleObject:
    if not isinstance(row, Mapping):
        raise TypeError(f'an object is {row!r:.60}, expected a mapping')
    lengths = {'box': 4, 'center': 3, 'size': 3}
    # Without depth or calibration an object has a place in the image alone.
    unknown = {key for key in ('center', 'size', 'depth') if row.get(key) is None and row.get('metric') is False}
    given = {
        key: _numbers(key, value, lengths[key]) if key in lengths and key not in unknown else value
        for key, value in row.items()
    }
    for name in {'id', 'area', 'depth', 'visible_fraction', 'in_frame'} - unknown:
        if name in given and (isinstance(given[name], bool) or not isinstance(given[name], (int, float))):
            raise TypeError(f'{name} of an object is {given[name]!r}, expected a number')
    return VisibleObject(**given)


def _numbers(name: str, values: object, count: int) -> tuple:
    """Return ``count`` numbers as they are."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise TypeError(f'{name} is {values!r:.60}, expected {count} numbers')
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        raise TypeError(f'{name} is {values!r:.60}, expected {count} numbers')
    return tuple(values)


def parse_question(row: Mapping[str, Any]) -> RobotQuestion:
    """Return what a line of ``questions.jsonl`` says.

    :raises ValueError, TypeError: a key is unknown or missing, or a value does not fit
    """
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
    _check_texts(given, ('frame', 'question', 'answer', 'unit', 'category'))
    for name, kind in (('choices', str), ('object_ids', int)):
        values = given.get(name, ())
        if not isinstance(values, tuple) or not all(isinstance(value, kind) for value in values):
            raise TypeError(f'{name} is {values!r:.60}, expected a list of {kind.__name__}')
    return RobotQuestion(**given)


def _check_texts(row: Mapping[str, Any], names: Sequence[str]) -> None:
    for name in names:
        if not isinstance(row.get(name, ''), str):
            raise TypeError(f'{name} is {row[name]!r}, expected a text')


def latest(questions: Iterable[RobotQuestion]) -> list[RobotQuestion]:
    """Return questions without those that a later one asks anew of the same frame."""
    return list({(each.frame, each.question): each for each in questions}.values())


class RobotWriter:
    """Adds frames and questions to a folder; goes on where an earlier writer stopped.

    :ivar frames: those that are there, by id
    :raises ValueError: a line that is there cannot be read, other than the last, which a killed writer may have torn
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        for name in ('images', 'depth', 'masks'):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.frames = {frame.id: frame for frame in map(parse_frame, _mend(self.folder / FRAMES))}
        self.questions = [parse_question(row) for row in _mend(self.folder / QUESTIONS)]

    def add_frame(
        self,
        id: str,  # noqa: A002 - as the line calls it
        frame: Frame,
        instances: np.ndarray | None = None,
        objects: Sequence[VisibleObject] = (),
        up: tuple[float, float, float] | None = None,
    ) -> RobotFrame:
        """Write a frame with its files.

        :param frame: with depth [m], NaN where unknown, if measured
        :param instances: ``(height, width)`` integers, 0 no object, ``UNKNOWN``, otherwise the id of one of ``objects``
        :raises ValueError: the id is taken, or values do not fit together
        """
        if id in self.frames:
            raise ValueError(f'{self.folder} holds a frame {id!r} already; give each its own id, such as its stamp')
        if instances is not None:
            _check_instances(id, frame.image.shape[:2], instances, objects)
        depth = f'depth/{id}.png' if frame.depth is not None else ''
        mask = f'masks/{id}.png' if instances is not None else ''
        line = RobotFrame(
            id, f'images/{id}.png', depth, mask, frame.intrinsics, up, frame.stamp_ns, frame.frame_id, tuple(objects)
        )
        Image.fromarray(frame.image).save(self.folder / line.image)
        if frame.depth is not None:
            Image.fromarray(millimetres(frame.depth)).save(self.folder / line.depth)
        if instances is not None:
            Image.fromarray(instances.astype(np.uint16)).save(self.folder / line.mask)
        self._add_line(line)
        return line

    def change_mask(
        self,
        id: str,  # noqa: A002 - as the line calls it
        instances: np.ndarray,
        objects: Sequence[VisibleObject],
    ) -> bool:
        """Give a frame that is there another mask; return whether it is another.

        :param instances, objects: as of :meth:`add_frame`
        :raises ValueError: there is no such frame, or values do not fit together
        """
        if id not in self.frames:
            raise ValueError(f'{self.folder} holds no frame {id!r} to give a mask to; add it first')
        before, mask = self.frames[id], instances.astype(np.uint16)
        with Image.open(self.folder / before.image) as picture:
            _check_instances(id, (picture.height, picture.width), instances, objects)
        if before.mask and before.objects == tuple(objects):
            with Image.open(self.folder / before.mask) as picture:
                if np.array_equal(np.array(picture), mask):
                    return False
        # A file of its own: the line that holds until the new one is written goes on naming the earlier mask.
        name = f'masks/{id}~{hashlib.sha256(mask.tobytes()).hexdigest()[:12]}.png'
        Image.fromarray(mask).save(self.folder / name)
        self._add_line(replace(before, mask=name, objects=tuple(objects)))
        return True

    def _add_line(self, line: RobotFrame) -> None:
        _append(self.folder / FRAMES, asdict(line))
        self.frames[line.id] = line

    def add_question(self, question: RobotQuestion) -> None:
        """Write a question about a frame that is there.

        :raises ValueError: its frame is not
        """
        if question.frame not in self.frames:
            raise ValueError(f'{self.folder} holds no frame {question.frame!r} to ask about; add it first')
        _append(self.folder / QUESTIONS, asdict(question))
        self.questions.append(question)


def millimetres(metres: np.ndarray) -> np.ndarray:
    """Return depth [m] as uint16 millimetres, 0 where it is NaN, not positive, or beyond what 16 bits hold."""
    scaled = np.round(np.nan_to_num(metres.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0) * 1000)
    return np.where((scaled > 0) & (scaled <= 65535), scaled, 0).astype(np.uint16)


def _check_instances(
    name: str, size: tuple[int, int], instances: np.ndarray, objects: Sequence[VisibleObject]
) -> None:
    if instances.shape != size:
        raise ValueError(f'frame {name}: mask of shape {instances.shape} on an image of {size}')
    unnamed = sorted(set(np.unique(instances).tolist()) - {0, UNKNOWN, *(thing.id for thing in objects)})
    if unnamed:
        raise ValueError(f'frame {name}: the mask has ids {unnamed} that no object has')


def _append(path: Path, row: Mapping[str, Any]) -> None:
    with open(path, 'a', encoding='utf-8') as file:
        file.write(json.dumps(row, ensure_ascii=False) + '\n')
        file.flush()
        os.fsync(file.fileno())


def _mend(path: Path) -> list[Mapping[str, Any]]:
    """Return the rows of a file; cut off a last line that was not written to its end."""
    if not path.is_file():
        return []
    raw = path.read_bytes()
    whole = raw[: raw.rfind(b'\n') + 1]
    if len(whole) < len(raw):
        with open(path, 'r+b') as file:
            file.truncate(len(whole))
    rows = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path}:{number} is not valid JSON: {error}; delete the line to go on') from error
    return rows
