"""One seed to one rendered sample with its truth."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooper_model.types import CameraIntrinsics
from cooper_sim.distribution import Distribution
from cooper_sim.scenes import generate_scene
from cooper_sim.truth import visible_objects
from cooper_sim.types import Sample

if TYPE_CHECKING:
    from cooper_sim.render import Renderer


def make_sample(seed: int, renderer: Renderer, distribution: Distribution) -> Sample:
    """Generate, draw and measure the scene of ``seed`` at the renderer's size.

    :raises ValueError: the seed is out of range
    """
    scene = generate_scene(seed, distribution)
    image, depth, ids = renderer.render(scene)
    intrinsics = CameraIntrinsics.from_vertical_fov(scene.fov_y, renderer.width, renderer.height)
    return Sample(image, depth, ids, scene, intrinsics, visible_objects(scene, ids, depth, intrinsics))
