"""Scenes are deterministic, at rest, in view, and named without doubt; distributions keep apart."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from cooper_model.types import CameraIntrinsics
from cooper_sim import COLORS, KINDS, Distribution, Renderer, generate_scene
from cooper_sim.distribution import FOLDER, MAX_SEED
from cooper_sim.layout import Placed
from cooper_sim.physics import Fell, settle
from cooper_sim.shapes import build, carrying_surfaces
from cooper_sim.textures import TEXTURES
from cooper_sim.truth import silhouette_areas, surface_points
from cooper_sim.types import FURNITURE


def test_a_seed_is_a_scene(distribution):
    first, second = generate_scene(11, distribution), generate_scene(11, distribution)
    assert first.objects == second.objects and first.lights == second.lights
    np.testing.assert_array_equal(first.camera_pose, second.camera_pose)
    np.testing.assert_array_equal(first.primitives.positions, second.primitives.positions)
    assert generate_scene(12, distribution).objects != first.objects


def test_training_and_evaluation_never_share_a_scene():
    names = [path.stem for path in FOLDER.glob('*.json')]
    offsets = sorted(Distribution.load(name).seed_offset for name in names)
    assert {'eval', 'train'} <= set(names)
    assert all(b - a >= MAX_SEED for a, b in zip(offsets, offsets[1:], strict=False))
    first, second = (generate_scene(5, Distribution.load(name)) for name in ('eval', 'train'))
    assert first.objects != second.objects


@pytest.mark.parametrize('seed', [-1, MAX_SEED])
def test_seeds_out_of_range_are_refused(distribution, seed):
    with pytest.raises(ValueError, match=str(seed)):
        generate_scene(seed, distribution)


def test_unknown_and_broken_distributions(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match='eval, train'):
        Distribution.load('test')
    raw = json.loads((FOLDER / 'eval.json').read_text())
    (tmp_path / 'broken.json').write_text(json.dumps({**raw, 'colour': 1}))
    monkeypatch.setattr('cooper_sim.distribution.FOLDER', tmp_path)
    with pytest.raises(ValueError, match='colour'):
        Distribution.load('broken')


def test_a_distribution_that_cannot_be_drawn_says_so(distribution):
    blind = replace(distribution, arrangements=(replace(distribution.arrangements[0], distance=(0.1, 0.2)),))
    with pytest.raises(RuntimeError, match='do not fit together'):
        generate_scene(0, blind)


def test_names_are_unique_and_counts_in_range(samples):
    for sample in samples:
        objects = sample.scene.objects
        assert 2 <= len(objects) <= 6
        assert [o.id for o in objects] == list(range(1, len(objects) + 1))
        assert len({o.name for o in objects}) == len(objects)
        assert all(o.kind in KINDS and o.color in COLORS and o.name == f'{o.color} {o.kind}' for o in objects)


def test_things_rest_on_something(samples):
    """The bottom of each thing is at the floor or at a surface of another thing."""
    for sample in samples:
        objects = sample.scene.objects
        levels = [0.0]
        for other in objects:
            levels += [other.position[2] + s.position[2] for s in carrying_surfaces(other.kind, other.size)]
        for thing in objects:
            bottom = thing.position[2] - thing.size[2] / 2
            assert min(abs(bottom - level) for level in levels) < 0.006, (sample.scene.seed, thing)


def test_nothing_is_inside_anything_else(samples):
    """Centres of two things are never nearer than their smallest half extents together."""
    for sample in samples:
        things = [o for o in sample.scene.objects if o.kind not in FURNITURE]
        for i, a in enumerate(things):
            for b in things[:i]:
                distance = np.linalg.norm(np.subtract(a.position, b.position))
                assert distance > 0.95 * (min(a.size) + min(b.size)) / 2


def test_what_hangs_over_an_edge_falls():
    table = Placed('table', 'red', (0.8, 0.6, 0.4), (0.0, 0.0, 0.2), 0.3)
    at = {'inside': 0.0, 'outside': 0.5}
    box = {k: Placed('box', 'blue', (0.2, 0.2, 0.2), (x, 0.0, 0.504), 0.1) for k, x in at.items()}
    positions, rotations = settle([table, box['inside']])
    assert positions[1, 2] == pytest.approx(0.5, abs=2e-3)
    assert rotations[1, 2, 2] == pytest.approx(1.0, abs=1e-3)
    with pytest.raises(Fell):
        settle([table, box['outside']])


def test_camera_and_room_keep_depth_in_range(samples):
    depth = np.stack([s.depth for s in samples])
    assert depth.min() > 0.15 and depth.max() < 6.0
    for sample in samples:
        pose = sample.scene.camera_pose
        np.testing.assert_allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3), atol=1e-9)
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        assert sample.up[1] < -0.5  # the world's up is roughly the image's


def test_objects_are_large_and_mostly_visible(samples):
    things = [v for s in samples for v in s.visible]
    assert np.mean([v.area >= 64 for v in things]) > 0.9
    small = [v for v in things if v.kind not in FURNITURE]
    across = [max(v.box[2] - v.box[0], v.box[3] - v.box[1]) for v in small]
    assert np.median(across) >= 24
    assert len(things) >= 0.95 * sum(len(s.scene.objects) for s in samples)


@pytest.mark.parametrize('kind', KINDS)
def test_parts_fill_the_size_of_their_kind(kind, distribution):
    size = tuple(float(np.mean(side)) for side in distribution.sizes[kind])
    parts = build(kind, size, (0.5, 0.5, 0.5))
    low = np.min([np.subtract(p.position, p.size) for p in parts], axis=0)
    high = np.max([np.add(p.position, p.size) for p in parts], axis=0)
    np.testing.assert_allclose(high - low, size, atol=0.012)
    np.testing.assert_allclose(high + low, 0, atol=0.012)
    for surface in carrying_surfaces(kind, size):
        assert low[2] < surface.position[2] <= high[2] + 1e-6


def test_unknown_kinds_are_refused():
    with pytest.raises(ValueError, match='sofa'):
        build('sofa', (1, 1, 1), (0, 0, 0))


def test_surface_points_lie_on_the_bounding_box(samples):
    scene = samples[0].scene
    thing = scene.objects[0]
    parts = scene.primitives.of(thing.id)
    points = np.concatenate([surface_points(parts, i) for i in range(len(parts.shapes))])
    assert np.ptp(points[:, 2]) == pytest.approx(thing.size[2], abs=0.012)


def test_silhouettes_are_areas_of_things_drawn_alone(samples):
    renderer = Renderer(512, 384)
    for scene in (sample.scene for sample in samples[:5]):
        camera = CameraIntrinsics.from_vertical_fov(scene.fov_y, 512, 384)
        for thing in scene.objects:
            parts = scene.primitives
            chosen = (parts.object_ids == thing.id) | (parts.object_ids == 0)
            alone = type(parts)(*(getattr(parts, name)[chosen] for name in parts.__dataclass_fields__))
            drawn = np.count_nonzero(renderer.render(replace(scene, primitives=alone))[2] == thing.id)
            inside, everywhere = silhouette_areas(scene, thing.id, camera)
            assert inside == pytest.approx(drawn, rel=0.06), thing
            assert everywhere >= inside


def test_the_warehouse_has_looks_of_its_own():
    home, warehouse = Distribution.load('eval'), Distribution.load('warehouse')
    assert home.room is None and warehouse.room is not None
    floors = {tuple(generate_scene(seed, warehouse).primitives.rgba[0, :3].round(3)) for seed in range(3)}
    lightest = max(max(color) for color in warehouse.room.floor_colors) * 1.15
    assert all(max(color) <= lightest for color in floors)
    known = [name for name, _ in TEXTURES]
    used = {known[n] for seed in range(4) for n in generate_scene(seed, warehouse).primitives.materials if n >= 0}
    assert used <= {'concrete', 'panels'}
    at_home = {known[n] for seed in range(4) for n in generate_scene(seed, home).primitives.materials if n >= 0}
    assert not at_home & {'concrete', 'panels'}
