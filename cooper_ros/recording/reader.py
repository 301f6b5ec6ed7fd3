"""Reading recorded questions back, from whole bags and from those that a crash cut off. Needs no ROS installation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from cooper_model.types import CameraIntrinsics
from cooper_ros.bags import CAMERA_INFO, IMAGE
from cooper_ros.encodings import colour_from_image, depth_from_image, labels_from_image
from cooper_ros.readings import intrinsics_from_message, stamp_to_ns
from cooper_ros.recording.corrections import Correction
from cooper_ros.salvage import open_bag

RECORD = 'cooper_msgs/msg/QueryRecord'
CORRECTION = 'cooper_msgs/msg/Correction'
_IMAGES = {
    'recorded/image': ('image', colour_from_image),
    'recorded/depth_color': ('depth_color', colour_from_image),
    'recorded/segmentation': ('segmentation', colour_from_image),
    'recorded/instances': ('instances', labels_from_image),
}


@dataclass(frozen=True)
class Recorded:
    """One recorded question.

    :param time_ns: when it was recorded [ns]; its images have the same
    :param stamp_ns, frame_id: header of the frame
    :param live: the frame is the camera's
    :param value: None where the answer is no number
    :param objects: by id in the instance image, the name
    :param timings: seconds by part
    :param problem: why there is no answer
    :param camera: name of the camera that was asked; empty where the only one has none
    """

    time_ns: int
    stamp_ns: int
    frame_id: str
    query_id: str
    question: str
    choices: tuple[str, ...]
    mode: str
    live: bool
    answer: str
    value: float | None
    unit: str
    confidence: float
    thoughts: tuple[str, ...]
    objects: dict[int, str]
    timings: dict[str, float]
    checkpoint: str
    problem: str
    camera: str = ''


@dataclass(frozen=True)
class Pictures:
    """The images of a recorded question, each None where there is none.

    :param image, depth_color, segmentation: ``(height, width, 3)`` uint8 RGB
    :param instances: ``(height, width)`` int32, 0 where there is no object
    :param depth: ``(height, width)`` float32 [m], measured, NaN where invalid
    :param intrinsics: of the camera
    """

    image: np.ndarray | None = None
    depth_color: np.ndarray | None = None
    segmentation: np.ndarray | None = None
    instances: np.ndarray | None = None
    depth: np.ndarray | None = None
    intrinsics: CameraIntrinsics | None = None


class QuestionBag:
    """The questions in one bag. A context manager.

    :raises BagError: it is no bag, or nothing in it can be read
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._bag = open_bag(path)

    def __enter__(self) -> QuestionBag:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bag.close()

    @property
    def damage(self) -> str:
        """Why the bag ends before its end; empty where it is whole."""
        return self._bag.damage

    def questions(self) -> list[Recorded]:
        """Return the questions in the order in which they were recorded."""
        return [_recorded(time_ns, message) for _, time_ns, message in self._bag.read(kinds=(RECORD,))]

    def corrections(self) -> list[Correction]:
        """Return the corrections that were recorded in the bag itself."""
        return [_correction(message) for _, _, message in self._bag.read(kinds=(CORRECTION,))]

    def pictures(self, question: Recorded) -> Pictures:
        """Return the images of a question."""
        found: dict[str, Any] = {}
        kinds = (IMAGE, CAMERA_INFO)
        for topic, _, message in self._bag.read(kinds=kinds, start=question.time_ns, stop=question.time_ns + 1):
            ending = '/'.join(topic.split('/')[-2:])
            if hasattr(message, 'k'):
                found['intrinsics'] = intrinsics_from_message(message, message.width, message.height)
            elif ending in _IMAGES:
                name, decode = _IMAGES[ending]
                found[name] = decode(message)
            elif message.encoding == '16UC1':
                found['depth'] = depth_from_image(message)
            else:
                found.setdefault('image', colour_from_image(message))
        return Pictures(**found)


def _recorded(time_ns: int, message: Any) -> Recorded:
    return Recorded(
        time_ns=time_ns,
        stamp_ns=stamp_to_ns(message.header.stamp),
        frame_id=message.header.frame_id,
        query_id=message.query_id,
        question=message.question,
        choices=tuple(message.choices),
        mode=message.mode,
        live=bool(message.live),
        answer=message.answer,
        value=None if math.isnan(message.value) else float(message.value),
        unit=message.unit,
        confidence=float(message.confidence),
        thoughts=tuple(message.thoughts),
        objects={int(item.id): item.name for item in message.objects},
        timings=dict(zip(message.timing_names, (float(each) for each in message.timing_seconds), strict=False)),
        checkpoint=message.checkpoint,
        problem='' if message.success else message.message,
        camera=getattr(message, 'camera', ''),  # bags of earlier versions have no such field
    )


def _correction(message: Any) -> Correction:
    return Correction(
        query_id=message.query_id,
        answer=message.answer,
        note=message.note,
        useless=bool(message.useless) or None,
        object=message.object,
        mask=labels_from_image(message.mask) > 0 if message.mask.width else None,
        stamp_ns=stamp_to_ns(message.stamp),
    )
