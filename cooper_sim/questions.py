"""Questions about a sample, with true answers, in the categories of spatial benchmarks.

Rules come from `cooper_model.geometry`. What is not clear is not asked: things too small to see, differences
within their margin. The wanted answer is drawn before the objects, so that no answer of a category dominates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import permutations
from typing import Literal, Protocol

import numpy as np

from cooper_model import geometry
from cooper_model.types import CameraIntrinsics
from cooper_sim.distribution import Distribution
from cooper_sim.phrasing import CHOICE, NUMBER, YES_NO, metres, plural, with_article
from cooper_sim.types import COLORS, KINDS, VisibleObject

Form = Literal['choice', 'yes_no', 'number', 'open']
MIN_AREA = 64 / (128 * 96)  # smallest visible area that is asked about, as a share of the image
HIDDEN, WHOLE = 0.75, 0.93  # visible fraction below which a thing is partly hidden, above which it is not
# How often the rarer answer is sought: it is there in fewer scenes.
SEEK_HIDDEN = 0.75
COMMON_DISTANCE = 1.15  # of things from the camera [m]


@dataclass(frozen=True)
class Question:
    """A question with its true answer.

    :param choices: the options, all named in the text; empty for numbers, ``('yes', 'no')`` for yes/no
    :param answer: short lower-case text; numbers as `phrasing.metres` or an integer
    :param value, unit: the exact number and ``m``, or a count without a unit; None and empty for words
    :param object_ids: what it is about, in the order of mention
    :param viewer, target: ids of where one stands and what one faces, in situational questions
    """

    text: str
    category: str
    form: Form
    choices: tuple[str, ...]
    answer: str
    value: float | None = None
    unit: str = ''
    object_ids: tuple[int, ...] = ()
    viewer: int | None = None
    target: int | None = None


class Observed(Protocol):
    """What questions are made from: a `Sample` or a `Record`."""

    @property
    def visible(self) -> tuple[VisibleObject, ...]: ...
    @property
    def intrinsics(self) -> CameraIntrinsics: ...
    @property
    def up(self) -> tuple[float, float, float]: ...


@dataclass(frozen=True)
class _View:
    """What a maker of questions works with: random numbers, everything visible, and what is large enough."""

    rng: np.random.Generator
    everything: tuple[VisibleObject, ...]
    clear: tuple[VisibleObject, ...]
    up: tuple[float, float, float]

    def coin(self, chance: float = 0.5) -> bool:
        return bool(self.rng.random() < chance)

    def one(self, items: list | tuple):  # noqa: ANN202 - returns an item
        return items[int(self.rng.integers(len(items)))]

    def pairs(self) -> list[tuple[VisibleObject, VisibleObject]]:
        return list(permutations(self.clear, 2))


Maker = Callable[[_View], 'Question | None']
PairRatio = Callable[[VisibleObject, VisibleObject], 'float | None']


def ask_questions(
    sample: Observed, rng: np.random.Generator, per_scene: int = 4, weights: Mapping[str, float] | None = None
) -> list[Question]:
    """Return up to ``per_scene`` different questions, of different categories as long as there are any.

    :param weights: relative frequency of each category; by default those of the evaluation distribution
    :returns: fewer where the scene does not hold that many clear questions
    """
    smallest = MIN_AREA * sample.intrinsics.width * sample.intrinsics.height
    clear = tuple(thing for thing in sample.visible if thing.area >= smallest)
    view = _View(rng, sample.visible, clear, sample.up)
    weights = _evaluation_weights() if weights is None else weights
    names = [name for name in MAKERS if weights.get(name, 0) > 0]
    chances = np.array([weights[name] for name in names], np.float64)
    asked: dict[str, Question] = {}
    for _ in range(2 + per_scene):
        for index in rng.choice(len(names), len(names), replace=False, p=chances / chances.sum()):
            question = MAKERS[names[index]](view)
            if question is not None:
                asked.setdefault(question.text, question)
            if len(asked) >= per_scene:
                return list(asked.values())
    return list(asked.values())


@lru_cache(maxsize=1)
def _evaluation_weights() -> Mapping[str, float]:
    return Distribution.load('eval').questions


def _yes_no(text: str, category: str, truth: bool, ids: tuple[int, ...]) -> Question:
    return Question(text, category, 'yes_no', ('yes', 'no'), 'yes' if truth else 'no', object_ids=ids)


def _pair_words(view: _View, category: str, words: tuple[str, str], ratio: PairRatio) -> Question | None:
    """Ask which of two opposite words holds for a pair, or whether one of them does."""
    pairs = [(a, b) for a, b in view.pairs() if geometry.confidence_of(ratio(a, b)) > 0]
    if not pairs:
        return None
    first, second = view.one(pairs)  # words[0] holds for (first, second), words[1] for (second, first)
    holds = int(view.coin())
    a, b = (second, first) if holds else (first, second)
    ids = (a.id, b.id)
    if view.coin():
        text = view.one(CHOICE[category]).format(a=a.name, b=b.name)
        return Question(text, category, 'choice', words, words[holds], object_ids=ids)
    said = int(view.coin())
    text = view.one(YES_NO[words[said]]).format(a=a.name, b=b.name)
    return _yes_no(text, category, said == holds, ids)


def _left_right(view: _View) -> Question | None:
    return _pair_words(view, 'left_right', ('left', 'right'), geometry.left_ratio)


def _above_below(view: _View) -> Question | None:
    return _pair_words(view, 'above_below', ('above', 'below'), partial(geometry.above_ratio, up=view.up))


def _front_behind(view: _View) -> Question | None:
    return _pair_words(view, 'front_behind', ('in front', 'behind'), geometry.front_ratio)


def _which(
    view: _View, category: str, wording: tuple[str, str], chosen: tuple, other: VisibleObject | None
) -> Question:
    """Ask which of ``chosen`` = (right answer, wrong answer) it is, or whether it is one of them.

    :param wording: keys of the templates of the choice and of the yes/no form
    """
    right, wrong = chosen
    last = {} if other is None else {'c': other.name}
    tail = () if other is None else (other.id,)
    swapped = view.coin()
    a, b = (wrong, right) if swapped else (right, wrong)
    ids = (a.id, b.id, *tail)
    if view.coin():
        text = view.one(CHOICE[wording[0]]).format(a=a.name, b=b.name, **last)
        return Question(text, category, 'choice', (a.name, b.name), right.name, object_ids=ids)
    text = view.one(YES_NO[wording[1]]).format(a=a.name, b=b.name, **last)
    return _yes_no(text, category, not swapped, ids)


def _relative_distance(view: _View) -> Question | None:
    pairs = [(a, b) for a, b in view.pairs() if geometry.confidence_of(geometry.closer_ratio(a, b)) > 0]
    if not pairs:
        return None
    near, far = view.one(pairs)
    word = 'closer' if view.coin() else 'farther'
    return _which(
        view, 'relative_distance', (word, word), (near, far) if word == 'closer' else (far, near), None
    )


def _object_distance_relative(view: _View) -> Question | None:
    found = []
    for a, b, c in permutations(view.clear, 3):
        near, far = geometry.object_distance(a, c), geometry.object_distance(b, c)
        if far - near > max(0.08, 0.25 * far):
            found.append((a, b, c))
    if not found:
        return None
    a, b, c = view.one(found)
    return _which(view, 'object_distance_relative', ('object_distance_relative',) * 2, (a, b), c)


def _number(
    view: _View, category: str, wording: str, value: float, things: tuple[VisibleObject, ...]
) -> Question:
    names = dict(zip('ab', (thing.name for thing in things), strict=False))
    text = view.one(NUMBER[wording]).format(**names)
    ids = tuple(thing.id for thing in things)
    return Question(text, category, 'number', (), metres(value), float(value), 'm', ids)


def _metric_distance(view: _View) -> Question | None:
    things = [thing for thing in view.clear if thing.in_frame > 0.6]
    if not things:
        return None
    thing = view.one(things)
    distance = geometry.camera_distance(thing)
    # Thin out the middle of the range, where one constant answer would be right too often.
    if not view.coin(0.25 + abs(math.log(distance / COMMON_DISTANCE)) / 0.4):
        return None
    return _number(view, 'metric_distance', 'metric_distance', distance, (thing,))


def _metric_separation(view: _View) -> Question | None:
    pairs = [(a, b) for a, b in view.pairs() if min(a.in_frame, b.in_frame) > 0.6]
    if not pairs:
        return None
    a, b = view.one(pairs)
    return _number(view, 'metric_separation', 'metric_separation', geometry.object_distance(a, b), (a, b))


def _size(view: _View) -> Question | None:
    whole = [thing for thing in view.clear if thing.in_frame > 0.9 and thing.visible_fraction > 0.6]
    pairs = [(a, b) for a, b in permutations(whole, 2) if a.size[1] > 1.3 * b.size[1]]
    if pairs and view.coin():
        return _which(view, 'size', ('taller', 'taller'), view.one(pairs), None)
    if not whole:
        return None
    thing = view.one(whole)
    wording, axis = ('tall', 1) if view.coin(0.6) else ('wide', 0)
    return _number(view, 'size', wording, thing.size[axis], (thing,))


def _counting(view: _View) -> Question | None:
    """Ask for the number of things of a kind, of a colour, or altogether."""
    sort = view.one(('kind', 'kind', 'color', 'all'))
    if sort == 'all':
        if len(view.clear) < len(view.everything) or not view.clear:
            return None
        return _count_question(view, 'objects', view.clear)
    groups: dict[str, list[VisibleObject]] = {key: [] for key in (KINDS if sort == 'kind' else COLORS)}
    for thing in view.everything:
        groups[getattr(thing, sort)].append(thing)
    unclear = {getattr(thing, sort) for thing in view.everything if thing not in view.clear}
    by_count: dict[int, list[str]] = {}
    for key, things in groups.items():
        if key not in unclear:
            by_count.setdefault(len(things), []).append(key)
    counts = sorted(by_count)
    chances = np.array([1.0 if count < 2 else 3.0 for count in counts])
    count = counts[int(view.rng.choice(len(counts), p=chances / chances.sum()))]
    key = view.one(by_count[count])
    return _count_question(view, plural(key) if sort == 'kind' else f'{key} objects', groups[key])


def _count_question(
    view: _View, thing: str, counted: list[VisibleObject] | tuple[VisibleObject, ...]
) -> Question:
    text = view.one(NUMBER['counting']).format(thing=thing)
    ids = tuple(found.id for found in counted)
    return Question(text, 'counting', 'number', (), str(len(counted)), float(len(counted)), '', ids)


def _existence(view: _View) -> Question | None:
    """Ask for a name or a kind; an absent name shares its kind or colour with something present."""
    if not view.clear:
        return None
    present = view.coin()
    by_kind = view.coin(0.3)
    ids: tuple[int, ...] = ()
    if present:
        thing = view.one(view.clear)
        name = thing.kind if by_kind else thing.name
        ids = tuple(other.id for other in view.clear if name in (other.kind, other.name))
    elif by_kind:
        name = view.one([kind for kind in KINDS if kind not in {thing.kind for thing in view.everything}])
    else:
        taken = {thing.name for thing in view.everything}
        like = view.one(view.clear)
        same_kind = view.coin()
        names = [f'{c} {like.kind}' for c in COLORS] if same_kind else [f'{like.color} {k}' for k in KINDS]
        name = view.one([name for name in names if name not in taken])
    text = view.one(YES_NO['existence']).format(thing=with_article(name))
    return _yes_no(text, 'existence', present, ids)


def _occlusion(view: _View) -> Question | None:
    hidden = view.coin(SEEK_HIDDEN)
    things = [
        t for t in view.clear if (t.visible_fraction < HIDDEN if hidden else t.visible_fraction > WHOLE)
    ]
    if not things:
        return None
    thing = view.one(things)
    if view.coin(0.3):
        text = view.one(CHOICE['occlusion']).format(a=thing.name)
        answer = 'partly hidden' if hidden else 'fully visible'
        return Question(
            text, 'occlusion', 'choice', ('fully visible', 'partly hidden'), answer, object_ids=(thing.id,)
        )
    return _yes_no(view.one(YES_NO['occlusion']).format(a=thing.name), 'occlusion', hidden, (thing.id,))


def _situational(view: _View) -> Question | None:
    wanted = 1 if view.coin() else -1
    found = []
    for viewer, target, thing in permutations(view.clear, 3):
        angle = geometry.bearing(viewer, target, thing, view.up)
        apart = min(_level_distance(viewer, other, view.up) for other in (target, thing))
        if angle is not None and np.radians(25) < wanted * angle < np.radians(155) and apart > 0.15:
            found.append((viewer, target, thing))
    if not found:
        return None
    viewer, target, thing = view.one(found)
    text = view.one(CHOICE['situational']).format(a=viewer.name, b=target.name, c=thing.name)
    ids = (viewer.id, target.id, thing.id)
    answer = 'right' if wanted > 0 else 'left'
    return Question(
        text,
        'situational',
        'choice',
        ('left', 'right'),
        answer,
        object_ids=ids,
        viewer=viewer.id,
        target=target.id,
    )


def _level_distance(a: VisibleObject, b: VisibleObject, up: tuple[float, float, float]) -> float:
    """Return the distance between two centres seen from above [m]."""
    return float(np.sqrt(max(geometry.object_distance(a, b) ** 2 - geometry.rise(a, b, up) ** 2, 0.0)))


MAKERS: dict[str, Maker] = {
    'left_right': _left_right,
    'above_below': _above_below,
    'front_behind': _front_behind,
    'relative_distance': _relative_distance,
    'object_distance_relative': _object_distance_relative,
    'metric_distance': _metric_distance,
    'metric_separation': _metric_separation,
    'size': _size,
    'counting': _counting,
    'existence': _existence,
    'occlusion': _occlusion,
    'situational': _situational,
}
CATEGORIES: tuple[str, ...] = tuple(MAKERS)
