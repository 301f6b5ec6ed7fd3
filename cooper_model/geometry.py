"""Metres, points and relations from depth, masks and the camera: here alone stands what *left of* means.

Every rule takes anything `Located`: objects perceived in a generated mask and true objects of a simulation
alike. A rule compares a difference with a margin that grows with the objects; a relation is stated only where
the difference exceeds its margin, with confidence ratio / (ratio + 1), from one half upwards. Objects that
lack what a rule needs give no relation.

Frame: optical (x right, y down, z forward). ``up`` is the direction against gravity in that frame; without it
the camera is taken to be level for *above* and *below*, which are then only stated where tilts up to 45
degrees agree.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import permutations
from typing import Protocol

import numpy as np

from cooper_model.alignment import valid_depth
from cooper_model.types import CameraIntrinsics, DepthMap, Evidence, Frame, Relation, SceneObject, Segmentation

PREDICATES: tuple[str, ...] = (
    'left of', 'right of', 'above', 'below', 'in front of', 'behind', 'closer', 'farther', 'on', 'inside',
    'next to',
)  # fmt: skip
CONTAINERS: frozenset[str] = frozenset(
    {'shelf', 'bookshelf', 'cabinet', 'bowl', 'basket', 'drawer', 'bin', 'sink'}
)
Vector = tuple[float, float, float]


class Located(Protocol):
    """What the rules read; units as in `SceneObject`."""

    @property
    def id(self) -> int: ...
    @property
    def name(self) -> str: ...
    @property
    def box(self) -> tuple[int, int, int, int]: ...
    @property
    def center(self) -> Vector | None: ...
    @property
    def size(self) -> Vector | None: ...
    @property
    def depth(self) -> float | None: ...
    @property
    def metric(self) -> bool: ...
    @property
    def confidence(self) -> float: ...


# Depth to points and objects


_ROWS_FOR_UP = 96
_POINTS_OF_OBJECT = 4000
# The fewest pixels of an object, and the smallest share of them, that must have a depth.
_FEWEST, _SHARE = 4, 0.2


def unproject(depth: np.ndarray, intrinsics: CameraIntrinsics) -> np.ndarray:
    """Return each pixel's point, ``(height, width, 3)`` float32, optical frame, in the unit of ``depth``.

    :param depth: ``(height, width)`` z; NaN, infinite and non-positive values give NaN points
    :param intrinsics: of an image of any size of the same view
    """
    height, width = depth.shape
    if (intrinsics.width, intrinsics.height) != (width, height):
        intrinsics = intrinsics.scaled(width, height)
    z = np.where(np.isfinite(depth) & (depth > 0), depth, np.nan).astype(np.float32)
    x = ((np.arange(width) - intrinsics.cx) / intrinsics.fx).astype(np.float32)
    y = ((np.arange(height) - intrinsics.cy) / intrinsics.fy).astype(np.float32)
    return np.stack([z * x, z * y[:, None], z], axis=-1)


def describe_objects(
    segmentation: Segmentation, depth: DepthMap | None, frame: Frame, min_area: int = 16
) -> list[SceneObject]:
    """Return one `SceneObject` for each instance of at least ``min_area`` pixels, by id.

    Centre and size need depth and the frame's intrinsics; they come from robust extents of the visible
    surface.

    :raises ValueError: depth and segmentation differ in size
    """
    if depth is not None and depth.relative.shape != segmentation.instances.shape:
        raise ValueError(
            f'depth of shape {depth.relative.shape} does not match the segmentation '
            f'{segmentation.instances.shape}; give both at the same resolution'
        )
    metric = depth is not None and depth.metres is not None
    z = points = measured = None
    if depth is not None:
        z = depth.metres if metric else depth.relative
        points = None if frame.intrinsics is None else unproject(z, frame.intrinsics)
        if depth.alignment is not None and frame.depth is not None:
            measured = valid_depth(frame.depth)
    found = []
    for number, area in enumerate(np.bincount(segmentation.instances.ravel())):
        if number == 0 or area < max(min_area, 1):
            continue
        rows, columns = np.nonzero(segmentation.instances == number)
        box = (int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
        label = int(np.bincount(segmentation.labels[rows, columns]).argmax())
        name = segmentation.names[label] if label < len(segmentation.names) else 'object'
        confidence = float(np.mean(segmentation.confidence[rows, columns]))
        evidence = _evidence(rows, columns, z, measured)
        center, size = (None, None) if points is None else extent(surface_points(points, rows, columns))
        found.append(
            SceneObject(number, name, confidence, box, int(area), center, size, evidence.depth, metric, evidence)
        )
    return found


def _evidence(rows: np.ndarray, columns: np.ndarray, z: np.ndarray | None, measured: np.ndarray | None) -> Evidence:
    """Return what the pixels of an object tell of its depth."""
    middle = (np.median(columns), np.median(rows))
    nearest = int(np.argmin((columns - middle[0]) ** 2 + (rows - middle[1]) ** 2))
    pixel = (int(columns[nearest]), int(rows[nearest]))
    if z is None:
        return Evidence(pixel, 0, None, 0.0)
    values = z[rows, columns]
    valid = np.isfinite(values) & (values > 0)
    count = int(valid.sum())
    depth = float(np.median(values[valid])) if count >= max(_FEWEST, _SHARE * values.size) else None
    share = 0.0 if measured is None or not count else float(np.mean(measured[rows, columns][valid]))
    return Evidence(pixel, count, depth, share)


def surface_points(points: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray | None:
    """Return points ``(N, 3)`` on the surface of an object, from a few thousand of its pixels.

    None where too few of them have depth. Depth bleeds over the outlines of generated maps, so points far from the
    median depth are left out.

    :param points: ``(height, width, 3)`` as `unproject` returns
    :param rows, columns: of the object's pixels
    """
    thin = max(1, len(rows) // _POINTS_OF_OBJECT)
    chosen = points[rows[::thin], columns[::thin]]
    valid = chosen[np.isfinite(chosen).all(axis=1)]
    if len(valid) < max(_FEWEST, _SHARE * len(chosen)):
        return None
    off = np.abs(valid[:, 2] - np.median(valid[:, 2]))
    return valid[off <= max(4 * float(np.median(off)), 0.02)]


def extent(surface: np.ndarray | None) -> tuple[Vector | None, Vector | None]:
    """Return the middle and the extent of ``(N, 3)`` points along their axes; None for both without points.

    Extents are those of the middle nine tenths, stretched.
    """
    if surface is None:
        return None, None
    low, high = np.percentile(surface, (5, 95), axis=0)
    middle, size = (low + high) / 2, (high - low) / 0.9
    return tuple(map(float, middle)), tuple(map(float, size))


def estimate_up(points: np.ndarray) -> Vector | None:
    """Return the direction against gravity in the optical frame, from the level surfaces in view.

    Surface normals within 60 degrees of the image's up are averaged, outliers dropped in turn; walls fall
    away because their normals do not point up. Holds for tilts below about 50 degrees.

    :param points: ``(height, width, 3)`` as `unproject` returns
    :returns: a unit vector, or None where fewer than a twentieth of the pixels lie on such surfaces
    """
    # A level surface that matters spans many pixels: a hundred rows tell as much as a thousand.
    thin = max(1, min(points.shape[:2]) // _ROWS_FOR_UP)
    points = points[::thin, ::thin]
    step = max(1, min(points.shape[:2]) // 32)
    across = points[: -2 * step, 2 * step :] - points[: -2 * step, : -2 * step]
    along = points[2 * step :, : -2 * step] - points[: -2 * step, : -2 * step]
    normals = np.cross(across, along).reshape(-1, 3)
    length = np.linalg.norm(normals, axis=1)
    with np.errstate(invalid='ignore', divide='ignore'):
        normals = normals / length[:, None]
    facing = np.einsum('ni,ni->n', normals, points[: -2 * step, : -2 * step].reshape(-1, 3))
    normals = np.where(facing[:, None] > 0, -normals, normals)
    chosen = normals[np.isfinite(normals).all(axis=1) & (normals[:, 1] < -0.5)]
    for limit in (0.85, 0.93, 0.97):
        if len(chosen) < 0.05 * len(normals):
            return None
        middle = np.median(chosen, axis=0)
        middle /= np.linalg.norm(middle)
        chosen = chosen[chosen @ middle > limit]
    if len(chosen) < 0.05 * len(normals):
        return None
    up = chosen.mean(axis=0)
    return tuple(float(v) for v in up / np.linalg.norm(up))


# Measures


def camera_distance(a: Located) -> float | None:
    """Return the distance from the camera to the centre of ``a``; its depth where that is unknown."""
    return a.depth if a.center is None else float(np.linalg.norm(a.center))


def object_distance(a: Located, b: Located) -> float | None:
    """Return the distance between the two centres, in their unit."""
    if a.center is None or b.center is None:
        return None
    return float(np.linalg.norm(np.subtract(a.center, b.center)))


def rise(a: Located, b: Located, up: Vector | None = None) -> float | None:
    """Return how much higher the centre of ``a`` is than that of ``b``, in their unit."""
    if a.center is None or b.center is None:
        return None
    return float(np.dot(np.subtract(a.center, b.center), (0.0, -1.0, 0.0) if up is None else up))


def bearing(viewer: Located, target: Located, thing: Located, up: Vector | None = None) -> float | None:
    """Return the direction of ``thing`` for someone at ``viewer`` who faces ``target`` [rad].

    Seen from above: 0 is straight ahead, positive to the right, in -pi .. pi. None where centres are unknown
    or (in the horizontal plane) coincide.
    """
    if viewer.center is None or target.center is None or thing.center is None:
        return None
    vertical = np.array((0.0, -1.0, 0.0) if up is None else up)
    ahead, there = (np.subtract(p.center, viewer.center) for p in (target, thing))
    ahead, there = (v - np.dot(v, vertical) * vertical for v in (ahead, there))
    if min(np.linalg.norm(ahead), np.linalg.norm(there)) < 1e-6:
        return None
    right = np.cross(ahead, vertical)
    return float(np.arctan2(np.dot(there, right), np.dot(there, ahead)))


# Rules. Each returns a signed ratio of a difference to its margin; above 1 the rule holds.


def confidence_of(ratio: float | None, sign: int = 1) -> float:
    """Return a rule's confidence, or its opposite's (``sign`` -1): 0 up to the margin, then r / (r + 1)."""
    if ratio is None or not np.isfinite(ratio):
        return 0.0
    ratio = float(sign * ratio)
    return ratio / (ratio + 1) if ratio > 1 else 0.0


def left_ratio(a: Located, b: Located) -> float:
    """Return how clearly ``a`` is left of ``b`` in the image; negative means right."""
    widths = (a.box[2] - a.box[0], b.box[2] - b.box[0])
    return (b.box[0] + b.box[2] - a.box[0] - a.box[2]) / 2 / (0.4 * max(widths) + 1)


def above_ratio(a: Located, b: Located, up: Vector | None = None) -> float | None:
    """Return how clearly ``a`` is higher than ``b``; negative means lower, 0 where image and space disagree.

    In space, the centre of one must be beyond the top or bottom of the other, so that things of different
    height on one floor are neither above nor below each other.
    """
    heights = (a.box[3] - a.box[1], b.box[3] - b.box[1])
    image = (b.box[1] + b.box[3] - a.box[1] - a.box[3]) / 2 / (0.3 * max(heights) + 1)
    difference = rise(a, b, up)
    if difference is None or a.size is None or b.size is None:
        return image
    margin = 0.5 * max(a.size[1], b.size[1]) + 0.02
    if up is None:
        margin = max(margin, abs(a.center[2] - b.center[2]))
    return difference / margin if difference * image > 0 else 0.0


def closer_ratio(a: Located, b: Located) -> float | None:
    """Return how clearly ``a`` is closer to the camera than ``b``; negative means farther."""
    return _nearness(camera_distance(a), camera_distance(b), a, b)


def front_ratio(a: Located, b: Located) -> float | None:
    """Return how clearly ``a`` is in front of ``b`` along the line of sight; negative means behind."""
    known = a.center is not None and b.center is not None
    return _nearness(a.center[2] if known else a.depth, b.center[2] if known else b.depth, a, b)


def _nearness(za: float | None, zb: float | None, a: Located, b: Located) -> float | None:
    if za is None or zb is None:
        return None
    thickness = 0.0 if a.size is None or b.size is None else 0.3 * (a.size[2] + b.size[2])
    return (zb - za) / max(0.04 * (abs(za) + abs(zb)), thickness, 1e-6)


def on_ratio(a: Located, b: Located, up: Vector | None = None) -> float | None:
    """Return how clearly ``a`` rests on top of ``b``.

    Its centre must be higher by about half of both heights, over ``b``, and its lower edge within ``b``'s
    box.
    """
    higher = rise(a, b, up)
    if higher is None or a.size is None or b.size is None:
        return None
    expected = (a.size[1] + b.size[1]) / 2
    apart = np.subtract(a.center, b.center)
    sideways = float(np.sqrt(max(float(apart @ apart) - higher**2, 0.0)))
    over = 0.5 * max(b.size[0], b.size[2])
    middle = (a.box[0] + a.box[2]) / 2
    within = b.box[0] <= middle <= b.box[2] and b.box[1] - 3 <= a.box[3] <= b.box[3] + 2
    if not within or not 0.5 * expected < higher < 1.4 * expected or sideways > over:
        return None
    return min(higher / (0.5 * expected), over / max(sideways, 1e-6), 4.0)


def inside_ratio(a: Located, b: Located, up: Vector | None = None) -> float | None:
    """Return how clearly ``a`` is inside ``b``, a container, by name."""
    if (
        not b.name
        or b.name.split()[-1] not in CONTAINERS
        or a.center is None
        or b.center is None
        or b.size is None
    ):
        return None
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    own = (a.box[2] - a.box[0]) * (a.box[3] - a.box[1])
    contained = max(width, 0) * max(height, 0) / max(own, 1)
    deep = abs(a.center[2] - b.center[2]) / max(0.5 * b.size[2] + 0.02, 1e-6)
    if contained < 0.8 or deep > 1 or on_ratio(a, b, up) is not None:
        return None
    return 1 + 2 * (1 - deep) * contained


def next_to_ratio(a: Located, b: Located, up: Vector | None = None) -> float | None:
    """Return how clearly ``a`` stands beside ``b``: on about the same level, with a small gap."""
    distance = object_distance(a, b)
    if (
        distance is None
        or a.size is None
        or b.size is None
        or any(on_ratio(*p, up) for p in ((a, b), (b, a)))
    ):
        return None
    reach = (a.size[0] + b.size[0]) / 2  # what is visible of a thing says little about its depth
    level = abs(rise(a, b, up)) <= 0.5 * max(a.size[1], b.size[1]) + 0.02
    gap = distance - reach
    return 1.5 * reach / max(distance, 1e-6) if level and reach > 0 and gap < 0.5 * reach else None


def relations(objects: Sequence[Located], up: Vector | None = None) -> list[Relation]:
    """Return every relation that is clear between two objects, both ways, the surest first.

    :param up: direction against gravity in the optical frame, see `estimate_up`
    """
    above = partial(above_ratio, up=up)
    rules: tuple[tuple[str, Callable[[Located, Located], float | None], int], ...] = (
        ('left of', left_ratio, 1), ('right of', left_ratio, -1),
        ('above', above, 1), ('below', above, -1),
        ('in front of', front_ratio, 1), ('behind', front_ratio, -1),
        ('closer', closer_ratio, 1), ('farther', closer_ratio, -1),
        ('on', partial(on_ratio, up=up), 1),
        ('inside', partial(inside_ratio, up=up), 1),
        ('next to', partial(next_to_ratio, up=up), 1),
    )  # fmt: skip
    found = []
    for a, b in permutations(objects, 2):
        distance = object_distance(a, b) if a.metric and b.metric else None
        for predicate, ratio, sign in rules:
            sure = confidence_of(ratio(a, b), sign) * min(a.confidence, b.confidence)
            if sure > 0:
                length = float('nan') if distance is None else distance
                rests_on = (_evidence_of(a), _evidence_of(b))
                found.append(Relation(a.id, a.name, predicate, b.id, b.name, length, sure, rests_on))
    return sorted(found, key=lambda relation: -relation.confidence)


def _evidence_of(item: Located) -> Evidence | None:
    return item.evidence if isinstance(item, SceneObject) else None
