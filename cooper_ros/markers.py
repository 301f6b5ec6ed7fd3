"""What RViz shows of a scene: boxes, names, arrows between related objects, and the last answer.

Only metric objects are drawn: a box in unknown units would stand in a wrong place. *Up* is up in the picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from cooper_model.placement import RigidTransform
from cooper_model.types import Relation, SceneObject
from cooper_ros.conversions import stamp_to_ns

TEXT_HEIGHT = 0.06
CURRENT_SECONDS = 5.0
_BOX = ColorRGBA(r=0.2, g=0.7, b=1.0, a=0.35)
_NAME = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
_ARROW = ColorRGBA(r=1.0, g=0.6, b=0.1, a=0.9)
_ANSWER = ColorRGBA(r=0.5, g=1.0, b=0.5, a=1.0)
_ANSWER_PLACE = np.array((0.0, -0.4, 1.5))
_UP = np.array((0.0, -1.0, 0.0))
NAMESPACES = ('objects', 'names', 'relations', 'predicates', 'answer')


def scene_markers(
    objects: Sequence[SceneObject],
    relations: Sequence[Relation],
    answer: str,
    header: Header,
    transform: RigidTransform | None = None,
) -> MarkerArray:
    """Return everything there is to show; the first marker deletes what was shown before.

    :param objects: with their places in the frame of ``header``
    :param transform: from the optical frame (x right, y down, z forward) into it; None where it is the optical frame
    """
    transform = transform or RigidTransform.identity()
    up = transform.rotation @ _UP
    located = {item.id: item for item in objects if item.metric and item.center is not None}
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in located.values():
        markers += [_box(item, header), _name(item, up, header)]
    for number, relation in enumerate(_one_a_pair(relations, located)):
        markers += _arrow(number, relation, located, header)
    if answer:
        place = _above(located.values(), up) if located else transform.apply(_ANSWER_PLACE)
        markers.append(_text('answer', 0, answer, place, header))
        markers[-1].color = _ANSWER
    return MarkerArray(markers=markers)


def are_current(boxes: Header, asked: Header) -> bool:
    """Return whether boxes of one frame may stand beside the answer about another.

    Later, the robot has moved on, and the transforms of that time, which TF keeps for ten seconds, are gone: RViz
    would drop the whole array.
    """
    return abs(stamp_to_ns(asked.stamp) - stamp_to_ns(boxes.stamp)) <= CURRENT_SECONDS * 1e9


def _point(place: Iterable[float]) -> Point:
    x, y, z = (float(value) for value in place)
    return Point(x=x, y=y, z=z)


def _marker(namespace: str, number: int, kind: int, header: Header) -> Marker:
    marker = Marker(header=header, ns=namespace, id=number, type=kind, action=Marker.ADD, lifetime=Duration())
    marker.pose.orientation.w = 1.0
    return marker


def _text(namespace: str, number: int, text: str, place: Iterable[float], header: Header) -> Marker:
    marker = _marker(namespace, number, Marker.TEXT_VIEW_FACING, header)
    marker.text = text
    marker.pose.position = _point(place)
    marker.scale.z = TEXT_HEIGHT
    marker.color = _NAME
    return marker


def _box(item: SceneObject, header: Header) -> Marker:
    marker = _marker('objects', item.id, Marker.CUBE, header)
    marker.pose.position = _point(item.center)
    # RViz refuses a box without thickness, which a flat surface seen from the front has.
    x, y, z = (max(float(length), 0.01) for length in item.size or (0, 0, 0))
    marker.scale = Vector3(x=x, y=y, z=z)
    marker.color = _BOX
    return marker


def _name(item: SceneObject, up: np.ndarray, header: Header) -> Marker:
    place = np.add(item.center, up * (_half_height(item, up) + TEXT_HEIGHT))
    return _text('names', item.id, f'{item.name} {item.depth:.2f} m' if item.depth else item.name, place, header)


def _half_height(item: SceneObject, up: np.ndarray) -> float:
    return float(np.abs(up) @ np.array(item.size)) / 2 if item.size else 0.0


def _one_a_pair(relations: Sequence[Relation], located: dict[int, SceneObject]) -> list[Relation]:
    """Return the surest relation of each pair: its inverse, and weaker ones, would lie on the same arrow."""
    best: dict[frozenset[int], Relation] = {}
    for relation in relations:
        if relation.subject_id not in located or relation.object_id not in located:
            continue
        pair = frozenset((relation.subject_id, relation.object_id))
        if pair not in best or relation.confidence > best[pair].confidence:
            best[pair] = relation
    return list(best.values())


def _arrow(number: int, relation: Relation, located: dict[int, SceneObject], header: Header) -> list[Marker]:
    start, end = located[relation.subject_id].center, located[relation.object_id].center
    marker = _marker('relations', number, Marker.ARROW, header)
    marker.points = [_point(start), _point(end)]
    marker.scale = Vector3(x=0.01, y=0.025, z=0.04)
    marker.color = _ARROW
    middle = [(a + b) / 2 for a, b in zip(start, end, strict=True)]
    label = _text('predicates', number, relation.predicate, middle, header)
    label.scale.z = TEXT_HEIGHT / 2
    label.color = _ARROW
    return [marker, label]


def _above(objects: Iterable[SceneObject], up: np.ndarray) -> np.ndarray:
    """Return a place over the middle of all objects, above the highest."""
    items = list(objects)
    middle = np.mean([item.center for item in items], axis=0)
    top = max(float(up @ item.center) + _half_height(item, up) for item in items)
    return middle + up * (top + 4 * TEXT_HEIGHT - float(up @ middle))
