"""Answers and events of the model as responses, results and feedback."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from cooper_model.types import Answer, AnswerReady, Event, Frame, ImageReady, ImageRequested, TextDelta
from cooper_msgs.action import Ask
from cooper_msgs.srv import GetRelations
from cooper_ros.conversions import header_of, image_message, object_message, relation_message
from cooper_ros.inference import Perceived, Question
from cooper_ros.placer import Place


def fill_answer(message: Any, answer: Answer, frame: Frame, place: Place) -> None:
    """Write an answer into a ``Query`` response or an ``Ask`` result; its objects stand in ``place``."""
    header = header_of(frame)
    message.header = place.header
    message.answer = answer.text
    message.value = math.nan if answer.value is None else float(answer.value)
    message.unit = answer.unit
    message.confidence = float(answer.confidence)
    message.thoughts = list(answer.thoughts)
    if answer.depth is not None:
        message.depth_color = image_message(answer.depth.color, 'rgb8', header)
    if answer.segmentation is not None:
        message.segmentation = image_message(answer.segmentation.color, 'rgb8', header)
    message.objects = [object_message(item) for item in place.objects(answer, frame)]
    message.relations = [relation_message(relation) for relation in answer.relations]
    message.success = True


def feedback_of(event: Event, question: Question) -> Ask.Feedback | None:
    """Return what the asker of a question is told of an event, None where it says nothing new."""
    feedback = partial(Ask.Feedback, camera=question.camera)
    if isinstance(event, TextDelta):
        return feedback(stage='thinking', text=event.text)
    if isinstance(event, ImageRequested):
        return feedback(stage=event.modality)
    if isinstance(event, ImageReady):
        image = image_message(event.image.color, 'rgb8', header_of(question.frame))
        return feedback(stage=event.modality, image=image)
    if isinstance(event, AnswerReady):
        return feedback(stage='answer', text=event.answer.text)
    return None


def fill_relations(
    response: GetRelations.Response, request: GetRelations.Request, perceived: Perceived, place: Place
) -> None:
    """Write the relations that a request's filters let through, and the objects that they name, in ``place``."""
    filters = (request.subject, request.predicate, request.object)
    relations = [
        relation
        for relation in perceived.relations
        if _matches(request.subject, relation.subject)
        and _matches(request.predicate, relation.predicate)
        and _matches(request.object, relation.object)
    ]
    named = {each for relation in relations for each in (relation.subject_id, relation.object_id)}
    objects = [item for item in place.objects(perceived, perceived.frame) if item.id in named or not any(filters)]
    response.objects = [object_message(item) for item in objects]
    response.relations = [relation_message(relation) for relation in relations]
    response.header = place.header
    response.success = True


def _matches(given: str, value: str) -> bool:
    """Whether a filter fits: empty, equal, or the class of a name that has a colour before it (ball, red ball)."""
    wanted, value = given.strip().lower(), value.lower()
    return not wanted or value == wanted or value.endswith(f' {wanted}')
