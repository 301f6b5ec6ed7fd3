"""Reasoning made from simulation truth: what to look at for a question, what one sees there, what follows.

Each category of question has one entry in ``PLANS``: the map that helps, if any, and the facts to state before the
answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cooper_model.geometry import bearing, object_distance
from cooper_model.grammar import boxed_answer
from cooper_model.types import Modality, Turn
from cooper_sim.questions import Observed, Question
from cooper_sim.types import VisibleObject
from training.describe import centimetres, fact, place, quantity, seen

ANGLE_STEP = 15


@dataclass(frozen=True)
class Scene:
    """What facts are read from: the objects of a question, and all that the frame shows."""

    things: Sequence[VisibleObject]
    observed: Observed


def _facts(keys: str) -> Callable[[Scene], str]:
    return lambda scene: '; '.join(fact(thing, keys, scene.observed) for thing in scene.things)


def _ordered(key: str, word: str) -> Callable[[Scene], str]:
    """Return facts that end with the one object that has the least of a number: what is compared is always the same,
    whichever way round the question has it."""

    def facts(scene: Scene) -> str:
        least = min(scene.things, key=lambda thing: quantity(thing, key, scene.observed))
        return f'{_facts(key)(scene)}; {word} {least.name}'

    return facts


def _distances_to_last(scene: Scene) -> str:
    *others, last = scene.things
    places = '; '.join(fact(thing, 'xez', scene.observed) for thing in scene.things)
    far = '; '.join(f'{thing.name} {centimetres(object_distance(thing, last))}' for thing in others)
    nearer = min(others, key=lambda thing: object_distance(thing, last))
    return f'{places}; to {last.name}: {far}; nearer {nearer.name}'


def _separation(scene: Scene) -> str:
    first, second = scene.things
    return f'{_facts("xez")(scene)}; apart {centimetres(object_distance(first, second))}'


def _sizes(scene: Scene) -> str:
    return (_ordered('h', 'lower') if len(scene.things) > 1 else _facts('hw'))(scene)


def _list(scene: Scene) -> str:
    if not scene.things:
        return 'none'
    return '; '.join(f'{thing.name} {place(thing, scene.observed)}' for thing in seen(scene.things))


def _present(scene: Scene) -> str:
    if scene.things:
        return _facts('')(scene)
    return 'not there: ' + '; '.join(thing.name for thing in seen(scene.observed.visible))


def _visible(scene: Scene) -> str:
    shares = ((thing, round(thing.visible_fraction * 10) * 10) for thing in scene.things)
    return '; '.join(f'{fact(thing, "", scene.observed)} visible {share}' for thing, share in shares)


def _turned(scene: Scene) -> str:
    angle = bearing(*scene.things, scene.observed.up)
    turned = round(math.degrees(angle) / ANGLE_STEP) * ANGLE_STEP
    return f'{_facts("xz")(scene)}; turn {turned}'


@dataclass(frozen=True)
class Plan:
    """How a category is reasoned about.

    :param look: the map to generate first; None where the image is enough
    """

    look: Modality | None
    facts: Callable[[Scene], str]


PLANS: dict[str, Plan] = {
    'left_right': Plan(None, _ordered('x', 'left')),
    'above_below': Plan(None, _ordered('e', 'lower')),
    'front_behind': Plan('depth', _ordered('z', 'front')),
    'relative_distance': Plan('depth', _ordered('d', 'nearer')),
    'object_distance_relative': Plan('depth', _distances_to_last),
    'metric_distance': Plan('depth', _facts('d')),
    'metric_separation': Plan('depth', _separation),
    'size': Plan('depth', _sizes),
    'counting': Plan('segmentation', _list),
    'existence': Plan(None, _present),
    'occlusion': Plan('segmentation', _visible),
    'situational': Plan('depth', _turned),
}
LOOK_THOUGHTS = {'depth': 'Depth helps here.', 'segmentation': 'Masks help here.'}


def looking_turn(modality: Modality, request_body: str) -> Turn:
    """Return the turn that asks for a map."""
    return Turn(LOOK_THOUGHTS[modality], modality, request_body)


def answering_turn(question: Question, observed: Observed, thinks: bool = True) -> Turn:
    """Return the turn that answers, with the facts that lead there or without a thought."""
    by_id = {thing.id: thing for thing in observed.visible}
    things = [by_id[number] for number in question.object_ids]
    thought = ''
    if thinks:
        thought = PLANS[question.category].facts(Scene(things, observed)) + '.'
    return Turn(thought, 'answer', boxed_answer(question.answer))
