"""What stands in a harvested frame, measured by the rules of the model's own answers, and what may be asked of it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from cooper_model.geometry import describe_objects, estimate_up, unproject
from cooper_model.types import CameraIntrinsics, DepthMap, Segmentation
from cooper_sim.distribution import Distribution
from cooper_sim.questions import Question, ask_questions
from cooper_sim.types import COLORS, KINDS, VisibleObject

if TYPE_CHECKING:
    from cooper_ros.harvest.frames import Harvested

BACKGROUND = frozenset(
    {'', 'background', '_background_', 'unlabelled', 'unlabeled', 'void', 'floor', 'wall', 'ceiling'}
)
MIN_AREA = 64
HIDDEN, CLEAR = 0.5, 1.0
# What must be known for a category to be asked; of things in pictures nobody knows what is hidden behind what.
IN_THE_IMAGE = frozenset({'left_right'})
OF_ALL_THINGS = frozenset({'counting', 'existence'})
METRIC = frozenset(
    {'front_behind', 'relative_distance', 'object_distance_relative', 'metric_distance', 'metric_separation'}
)
OF_GRAVITY = frozenset({'above_below', 'situational', 'size'})


@dataclass(frozen=True)
class Seen:
    """A frame as questions are made from it; see ``cooper_sim.questions.Observed``.

    :param instances: ``(height, width)`` int32, 0 or the id of one of ``visible``
    :param up: against gravity; None where unknown
    """

    instances: np.ndarray
    visible: tuple[VisibleObject, ...]
    intrinsics: CameraIntrinsics
    up: tuple[float, float, float] | None


def read_labels(path: Path) -> dict[int, str]:
    """Return class names by number from a JSON object such as ``{"1": "mug"}``.

    :raises ValueError: it is none
    """
    return parse_labels(path.read_text(encoding='utf-8'), str(path))


def parse_labels(text: str, place: str) -> dict[int, str]:
    """Return class names by number from the text of a JSON object.

    :param place: where it stands, for messages
    :raises ValueError: it is none
    """
    try:
        return {int(number): str(name).strip().lower() for number, name in json.loads(text).items()}
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(f'labels {place}: {error}; write a JSON object such as {{"1": "mug"}}') from error


def observe(harvested: Harvested, labels: Mapping[int, str], *, instances: bool) -> Seen | None:
    """Return the objects of a frame, None where it has no mask.

    :param labels: name by number: of objects where the mask numbers them and there is no class mask, else of classes
    :param instances: whether the mask numbers objects instead of classes
    """
    mask, frame = harvested.mask, harvested.frame
    if mask is None:
        return None
    numbered = mask if instances else _components(mask, labels)
    of_class = mask if harvested.classes is None else harvested.classes
    ids, names = [], []
    for number in np.unique(numbered[numbered > 0]).tolist():
        inside = numbered == number
        name = labels.get(int(np.bincount(np.maximum(of_class[inside], 0)).argmax()), '')
        if np.count_nonzero(inside) >= MIN_AREA and name not in BACKGROUND:
            ids.append(number)
            names.append(name)
    kept = np.where(np.isin(numbered, ids), numbered, 0).astype(np.int32)
    height, width = mask.shape
    camera = frame.intrinsics or CameraIntrinsics.from_vertical_fov(60.0, width, height)
    metric = frame.depth is not None and frame.intrinsics is not None
    up = harvested.up
    if up is None and metric:
        up = estimate_up(unproject(frame.depth, camera))
    visible = _measured(harvested, kept, dict(zip(ids, names, strict=True)), up if metric else None)
    return Seen(kept, _named(visible, frame.image, kept), camera, up)


def _components(mask: np.ndarray, labels: Mapping[int, str]) -> np.ndarray:
    """Number the connected parts of each named class."""
    numbered, last = np.zeros(mask.shape, np.int32), 0
    for number in np.unique(mask).tolist():
        if labels.get(number, '') in BACKGROUND:
            continue
        count, parts = cv2.connectedComponents((mask == number).astype(np.uint8))
        numbered = np.where(parts > 0, parts + last, numbered)
        last += count - 1
    return numbered


def _measured(
    harvested: Harvested, instances: np.ndarray, names: Mapping[int, str], up: tuple[float, ...] | None
) -> list[VisibleObject]:
    """Measure objects as the node measures them, and their extents along gravity where that is known."""
    frame = harvested.frame
    metric = frame.depth is not None and frame.intrinsics is not None
    depth = None
    if metric:
        depth = DepthMap(np.nan_to_num(frame.depth, nan=0.0), frame.depth, frame.image)
    labels = np.zeros(instances.shape, np.uint8)
    whole = Segmentation(labels, instances, np.ones(instances.shape, np.float32), ('object',), frame.image)
    points = unproject(frame.depth, frame.intrinsics) if metric else None
    height, width = instances.shape
    found = []
    for item in describe_objects(whole, depth, frame, MIN_AREA):
        left, top, right, bottom = item.box
        cut = left == 0 or top == 0 or right == width or bottom == height
        inside = instances == item.id
        known = item.center is not None and item.depth is not None
        size = _upright(points[inside], up) if known and up is not None else item.size
        color, kind = _split(names[item.id])
        found.append(
            VisibleObject(
                id=item.id, kind=kind, color=color, name=names[item.id], box=item.box, area=item.area,
                visible_fraction=_visible(inside, frame.depth) if known else HIDDEN, in_frame=0.5 if cut else 1.0,
                center=item.center, size=size, depth=item.depth, metric=known,
            )
        )  # fmt: skip
    return found


def _upright(points: np.ndarray, up: tuple[float, ...]) -> tuple[float, float, float]:
    """Return extents across the view, along gravity and away [m], of the middle nine tenths, stretched."""
    vertical = np.array(up)
    ahead = np.array((0.0, 0.0, 1.0)) - vertical[2] * vertical
    ahead /= max(float(np.linalg.norm(ahead)), 1e-6)
    axes = np.stack([np.cross(ahead, vertical), vertical, ahead])
    valid = points[np.isfinite(points).all(axis=1)]
    off = np.abs(valid[:, 2] - np.median(valid[:, 2]))
    along = valid[off <= max(4 * float(np.median(off)), 0.02)] @ axes.T
    low, high = np.percentile(along, (5, 95), axis=0)
    return tuple(float(value) for value in (high - low) / 0.9)


def _visible(inside: np.ndarray, depth: np.ndarray) -> float:
    """Return ``HIDDEN`` where something clearly nearer borders an object, else ``CLEAR``."""
    grown = cv2.dilate(inside.astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
    around = depth[grown & ~inside]
    middle = float(np.nanmedian(depth[inside]))
    around = around[np.isfinite(around)]
    nearer = np.count_nonzero(around < 0.9 * middle - 0.03)
    return HIDDEN if nearer > 0.08 * max(around.size, 1) else CLEAR


def _split(name: str) -> tuple[str, str]:
    """Return colour and kind of a name; the colour is empty where it names none."""
    first, _, rest = name.partition(' ')
    return (first, rest) if first in COLORS and rest else ('', name)


def _named(visible: list[VisibleObject], image: np.ndarray, instances: np.ndarray) -> tuple[VisibleObject, ...]:
    """Tell things of one name apart by their colours, as far as that goes."""
    counts = Counter(thing.name for thing in visible)
    named = []
    for thing in visible:
        if counts[thing.name] > 1 and not thing.color:
            color = _colour(image[instances == thing.id])
            thing = replace(thing, color=color, name=f'{color} {thing.kind}')
        named.append(thing)
    return tuple(named)


def _colour(pixels: np.ndarray) -> str:
    """Return the named colour that is nearest to the median of some pixels, by hue where they have one."""
    table = np.array(list(COLORS.values()), np.float32)
    middle = np.median(pixels, axis=0).astype(np.float32)[None] / 255
    lab = [cv2.cvtColor(colours[None], cv2.COLOR_RGB2LAB)[0] for colours in (table, middle)]
    weights = np.array((0.4, 1.0, 1.0), np.float32)  # shade says little about the colour of a thing
    return list(COLORS)[int(np.argmin(np.linalg.norm((lab[0] - lab[1]) * weights, axis=1)))]


def questions_about(seen: Seen, labels: Mapping[int, str], seed: int, count: int) -> list[Question]:
    """Return up to ``count`` questions of those categories whose answers are known.

    Things are asked about only where their names are unique. Absence and number are asked only where the labels
    cover all kinds that the questions can name.
    """
    counts = Counter(thing.name for thing in seen.visible)
    unique = tuple(thing for thing in seen.visible if counts[thing.name] == 1)
    metric = tuple(thing for thing in unique if thing.metric)
    rng = np.random.default_rng(seed)
    weights = Distribution.load('eval').questions
    asked: list[Question] = []
    for things, categories in (
        (metric, METRIC | (OF_GRAVITY if seen.up is not None else frozenset())),
        (unique, IN_THE_IMAGE),
        (seen.visible if _covers_all(labels) else (), OF_ALL_THINGS),
    ):
        chosen = {name: weight for name, weight in weights.items() if name in categories}
        if things and sum(chosen.values()) > 0 and len(asked) < count:
            view = replace(seen, visible=things, up=seen.up or (0.0, -1.0, 0.0))
            asked += ask_questions(view, rng, count, chosen)
    order = rng.permutation(len(asked))[:count]
    return [asked[index] for index in sorted(order)]


def _covers_all(labels: Mapping[int, str]) -> bool:
    kinds = {_split(name)[1] for name in labels.values() if name not in BACKGROUND}
    return set(KINDS) == kinds
