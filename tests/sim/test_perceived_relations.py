"""Relations read from maps agree with those of the true objects: two paths, one set of rules."""

from __future__ import annotations

from collections import Counter

import numpy as np

from cooper_model import geometry
from cooper_model.types import UNLABELLED, DepthMap, Frame, Segmentation

OPPOSITE = {
    'left of': 'right of',
    'above': 'below',
    'in front of': 'behind',
    'closer': 'farther',
}
OPPOSITE.update({b: a for a, b in OPPOSITE.items()})


def perceived(sample):
    """Return the objects and up, as read from perfect maps."""
    names = tuple(v.name for v in sample.visible)
    labels = np.full(sample.ids.shape, UNLABELLED, np.uint8)
    for index, thing in enumerate(sample.visible):
        labels[sample.ids == thing.id] = index
    sure = np.ones(sample.ids.shape, np.float32)
    mask = Segmentation(labels, sample.ids.astype(np.uint16), sure, names, sample.image)
    depth = DepthMap(sample.depth / 6, sample.depth, sample.image)
    objects = geometry.describe_objects(mask, depth, Frame(sample.image, sample.intrinsics), min_area=64)
    return objects, geometry.estimate_up(geometry.unproject(sample.depth, sample.intrinsics))


def stated(objects, up):
    return {(r.subject_id, r.predicate, r.object_id) for r in geometry.relations(objects, up)}


def test_up_is_read_from_depth(samples):
    for sample in samples:
        _, up = perceived(sample)
        assert np.degrees(np.arccos(min(1.0, np.dot(up, sample.up)))) < 4


def test_perceived_relations_do_not_contradict_true_ones(samples):
    agreed, stated_in_all = Counter(), Counter()
    for sample in samples:
        objects, up = perceived(sample)
        seen = stated(objects, up)
        true = stated([v for v in sample.visible if v.area >= 64], sample.up)
        for a, predicate, b in seen:
            assert (a, OPPOSITE.get(predicate), b) not in true, (sample.scene.seed, a, predicate, b)
            stated_in_all[predicate] += 1
            agreed[predicate] += (a, predicate, b) in true
    assert agreed['left of'] == stated_in_all['left of'] > 30
    for predicate in ('in front of', 'closer', 'above', 'on'):
        assert agreed[predicate] >= 0.6 * stated_in_all[predicate] > 3, predicate
