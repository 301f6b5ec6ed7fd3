"""What is recorded of a question and of a frame, as messages under the topics of a node."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from std_msgs.msg import Header

from cooper_model.types import Answer, Frame
from cooper_msgs.msg import QueryRecord
from cooper_ros.conversions import (
    camera_info_message,
    header_of,
    image_message,
    object_message,
    relation_message,
)
from cooper_ros.topics import INPUTS, RECORDED, of_camera

MILLIMETRES = 1000.0


@dataclass(frozen=True)
class Asked:
    """One question and what became of it.

    :param live: the frame is the camera's
    :param answer: None where there is none; ``problem`` then says why
    :param camera: name of the camera that was asked
    """

    query_id: str
    question: str
    choices: tuple[str, ...]
    mode: str
    frame: Frame
    live: bool
    answer: Answer | None
    problem: str = ''
    camera: str = ''


def topic_names(resolve: Callable[[str], str], camera: str = '') -> dict[str, str]:
    """Return the full topic of each role, for what is recorded of a camera.

    :param resolve: ``Node.resolve_topic_name``
    """
    inputs = {role: of_camera(name, camera) for role, name in INPUTS.items()}
    return {role: resolve(name) for role, name in {**inputs, **RECORDED}.items()}


def frame_messages(frame: Frame, *, live: bool = True) -> dict[str, Any]:
    """Return the messages of a frame by role. Measured depth is rounded to millimetres, 0 where there is none.

    :param live: whether the frame is the camera's; others have a topic of their own, so that a camera's stays pure
    """
    header = header_of(frame)
    if not live:
        return {'asked_image': image_message(frame.image, 'rgb8', header)}
    messages = {'image': image_message(frame.image, 'rgb8', header)}
    if frame.intrinsics is not None:
        messages['camera_info'] = camera_info_message(frame.intrinsics, header)
    if frame.depth is not None:
        millimetres = np.rint(np.nan_to_num(frame.depth, nan=0.0) * MILLIMETRES)
        millimetres[millimetres > np.iinfo(np.uint16).max] = 0
        messages['depth'] = image_message(millimetres, '16UC1', header)
    return messages


def question_messages(asked: Asked, checkpoint: str) -> dict[str, Any]:
    """Return the messages of a question by role, the record last: where it is, all else is."""
    header = header_of(asked.frame)
    messages = frame_messages(asked.frame, live=asked.live)
    answer = asked.answer
    if answer is not None and answer.depth is not None:
        messages['depth_color'] = image_message(answer.depth.color, 'rgb8', header)
    if answer is not None and answer.segmentation is not None:
        messages['segmentation'] = image_message(answer.segmentation.color, 'rgb8', header)
        messages['instances'] = image_message(answer.segmentation.instances, 'mono16', header)
    messages['record'] = record_message(asked, header, checkpoint)
    return messages


def record_message(asked: Asked, header: Header, checkpoint: str = '') -> QueryRecord:
    """Return a question and what became of it, with objects as the camera saw them.

    :param header: stamp of the frame, and where the objects stand
    """
    message = QueryRecord(header=header, query_id=asked.query_id, question=asked.question)
    message.choices = list(asked.choices)
    message.mode, message.live, message.checkpoint = asked.mode, asked.live, checkpoint
    message.camera = asked.camera
    message.value, message.message = math.nan, asked.problem
    answer = asked.answer
    if answer is None:
        return message
    message.success = True
    message.answer, message.unit = answer.text, answer.unit
    message.value = math.nan if answer.value is None else float(answer.value)
    message.confidence = float(answer.confidence)
    message.thoughts = list(answer.thoughts)
    message.objects = [object_message(item) for item in answer.objects]
    message.relations = [relation_message(relation) for relation in answer.relations]
    timings: Mapping[str, float] = answer.timings
    message.timing_names = list(timings)
    message.timing_seconds = [float(seconds) for seconds in timings.values()]
    return message
