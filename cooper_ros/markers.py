"""What RViz shows of a scene: boxes, names, arrows between related objects, and the last answer.

All markers stand in the camera's optical frame (x right, y down, z forward), so *up* is -y. Only metric objects are
drawn: a box in unknown units would stand in a wrong place.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from builtin_interfaces.msg import Duration
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA, Header
from visualization_msgs.msg import Marker, MarkerArray

from cooper_model.types import Relation, SceneObject

TEXT_HEIGHT = 0.06
_BOX = ColorRGBA(r=0.2, g=0.7, b=1.0, a=0.35)
_NAME = ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
_ARROW = ColorRGBA(r=1.0, g=0.6, b=0.1, a=0.9)
_ANSWER = ColorRGBA(r=0.5, g=1.0, b=0.5, a=1.0)
_ANSWER_PLACE = (0.0, -0.4, 1.5)


def scene_markers(
    objects: Sequence[SceneObject], relations: Sequence[Relation], answer: str, header: Header
) -> MarkerArray:
    """Return everything there is to show; the first marker deletes what was shown before."""
    located = {item.id: item for item in objects if item.metric and item.center is not None}
    markers = [Marker(header=header, action=Marker.DELETEALL)]
    for item in located.values():
        markers += [_box(item, header), _name(item, header)]
    for number, relation in enumerate(_one_a_pair(relations, located)):
        markers += _arrow(number, relation, located, header)
    if answer:
        markers.append(_text('answer', 0, answer, _answer_place(located.values()), header))
        markers[-1].color = _ANSWER
    return MarkerArray(markers=markers)


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


def _name(item: SceneObject, header: Header) -> Marker:
    x, y, z = item.center
    top = y - (item.size[1] / 2 if item.size else 0) - TEXT_HEIGHT
    return _text('names', item.id, f'{item.name} {item.depth:.2f} m' if item.depth else item.name, (x, top, z), header)


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


def _answer_place(objects: Iterable[SceneObject]) -> tuple[float, float, float]:
    """Return a place above all objects, or one in front of the camera where there are none."""
    items = list(objects)
    if not items:
        return _ANSWER_PLACE
    x = sum(item.center[0] for item in items) / len(items)
    z = sum(item.center[2] for item in items) / len(items)
    top = min(item.center[1] - (item.size[1] / 2 if item.size else 0) for item in items)
    return (x, top - 4 * TEXT_HEIGHT, z)
