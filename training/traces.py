"""Reasoning made from simulation truth: what to look at for a question, what one sees there, what follows.

Each category of question has one entry in ``PLANS``: the map that helps, if any, and the facts to state before the
answer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cooper_model.geometry import object_distance
from cooper_model.grammar import boxed_answer
from cooper_model.types import Modality, Turn
from cooper_sim.questions import Observed, Question
from cooper_sim.types import VisibleObject
from training.describe import centimetres, fact, listing, quantity, seen

ANGLE_STEP = 15
LEVEL = 'xef'


@dataclass(frozen=True)
class Scene:
    """What facts are read from: the objects of a question, and all that the frame shows."""

    things: Sequence[VisibleObject]
    observed: Observed

    def between(self, first: VisibleObject, second: VisibleObject, keys: str) -> list[int]:
        """Return how far the second is from the first along each key [cm], from the numbers that facts state."""
        stated = [[centimetres(quantity(t, key, self.observed)) for key in keys] for t in (first, second)]
        return [there - here for here, there in zip(*stated, strict=True)]


@dataclass(frozen=True)
class Thought:
    """What leads to an answer.

    :param seen: facts that are read from the image or a map
    :param follows: what comes of them by reckoning alone, empty where the answer is next
    """

    seen: str
    follows: str = ''

    def __str__(self) -> str:
        return f'{self.seen}; {self.follows}.' if self.follows else f'{self.seen}.'


Reasoning = Callable[[Scene], Thought]


def _facts(scene: Scene, keys: str) -> str:
    return '; '.join(fact(thing, keys, scene.observed) for thing in scene.things)


def _stated(keys: str) -> Reasoning:
    return lambda scene: Thought(_facts(scene, keys))


def _ordered(key: str, word: str) -> Reasoning:
    """Return reasoning that ends with the one object that has the least of a number: what is compared is always the
    same, whichever way round the question has it."""

    def think(scene: Scene) -> Thought:
        least = min(scene.things, key=lambda thing: quantity(thing, key, scene.observed))
        return Thought(_facts(scene, key), f'{word} {least.name}')

    return think


def _apart(scene: Scene, first: VisibleObject, second: VisibleObject) -> str:
    """Return the parts of the way between two objects, without signs, and its length."""
    parts = ' '.join(str(abs(part)) for part in scene.between(first, second, LEVEL))
    return f'{parts} apart {centimetres(object_distance(first, second))}'


def _distances_to_last(scene: Scene) -> Thought:
    *others, last = scene.things
    ways = '; '.join(f'{thing.name} {_apart(scene, thing, last)}' for thing in others)
    nearer = min(others, key=lambda thing: object_distance(thing, last))
    return Thought(_facts(scene, LEVEL), f'to {last.name}: {ways}; nearer {nearer.name}')


def _separation(scene: Scene) -> Thought:
    return Thought(_facts(scene, LEVEL), _apart(scene, *scene.things))


def _sizes(scene: Scene) -> Thought:
    return (_ordered('h', 'lower') if len(scene.things) > 1 else _stated('hw'))(scene)


def _counted(scene: Scene) -> Thought:
    """List all objects, then go through them with a running count of those that the question is about.

    Each step asks of one object whether it fits. To name those that fit takes looking for all of a kind and colour at
    once, which a small model gets wrong even where its list is right.
    """
    wanted = {thing.id for thing in scene.things}
    counts, count = [], 0
    for thing in seen(scene.observed.visible):
        count += thing.id in wanted
        counts.append(f'{thing.name} {count}')
    return Thought(f'all: {listing(scene.observed)}', f'these: {"; ".join(counts) or "none"}')


def _visible(scene: Scene) -> Thought:
    shares = ((thing, round(thing.visible_fraction * 10) * 10) for thing in scene.things)
    return Thought('; '.join(f'{fact(thing, "", scene.observed)} visible {share}' for thing, share in shares))


def _turned(scene: Scene) -> Thought:
    """State the ways from the viewer, their directions clockwise from straight ahead, and the turn between them."""
    viewer, *others = scene.things
    ways, directions = [], []
    for thing in others:
        right, forward = scene.between(viewer, thing, 'xf')
        directions.append(round(math.degrees(math.atan2(right, forward)) / ANGLE_STEP) * ANGLE_STEP)
        ways.append(f'{thing.name} {right} {forward} towards {directions[-1]}')
    turn = (directions[1] - directions[0] + 180) % 360 - 180
    return Thought(_facts(scene, 'xf'), f'from {viewer.name}: {"; ".join(ways)}; turn {turn}')


@dataclass(frozen=True)
class Plan:
    """How a category is reasoned about.

    :param look: the map to generate first; None where the image is enough
    """

    look: Modality | None
    think: Reasoning


PLANS: dict[str, Plan] = {
    'left_right': Plan(None, _ordered('x', 'left')),
    'above_below': Plan(None, _ordered('e', 'lower')),
    'front_behind': Plan('depth', _ordered('z', 'front')),
    'relative_distance': Plan('depth', _ordered('d', 'nearer')),
    'object_distance_relative': Plan('depth', _distances_to_last),
    'metric_distance': Plan('depth', _stated('d')),
    'metric_separation': Plan('depth', _separation),
    'size': Plan('depth', _sizes),
    'counting': Plan('segmentation', _counted),
    'existence': Plan(None, _counted),
    'occlusion': Plan('segmentation', _visible),
    'situational': Plan('depth', _turned),
}
LOOK_THOUGHTS = {'depth': 'Depth helps here.', 'segmentation': 'Masks help here.'}


def looking_turn(modality: Modality, request_body: str) -> Turn:
    """Return the turn that asks for a map."""
    return Turn(LOOK_THOUGHTS[modality], modality, request_body)


def think(question: Question, observed: Observed) -> Thought:
    """Return the facts that lead to the answer of a question, and what follows from them."""
    by_id = {thing.id: thing for thing in observed.visible}
    return PLANS[question.category].think(Scene([by_id[number] for number in question.object_ids], observed))


def answering_turn(question: Question, observed: Observed, thinks: bool = True) -> Turn:
    """Return the turn that answers, with the facts that lead there or without a thought."""
    thought = str(think(question, observed)) if thinks else ''
    return Turn(thought, 'answer', boxed_answer(question.answer))
