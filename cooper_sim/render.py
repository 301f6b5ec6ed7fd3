"""Draw scenes with MuJoCo's renderer: RGB, metric depth and instance ids, in two passes.

Scenes are written straight into an ``mjvScene``: no model is compiled for a picture. MuJoCo works with one
rendering context a process (a second one silently draws nothing), so every `Renderer` shares the first one's,
grown as needed.
"""

from __future__ import annotations

import os

import numpy as np

from cooper_sim.textures import SIDE, TEXTURES, texture
from cooper_sim.types import Light, Scene, Shape

os.environ.setdefault('MUJOCO_GL', 'egl')
import mujoco  # noqa: E402

NEAR, FAR = 0.05, 12.0  # [m]
MAX_PRIMITIVES = 400


class RenderError(RuntimeError):
    """The picture came out empty, or no rendering context could be had."""


class Renderer:
    """Draws `Scene`s at a fixed size.

    :param width, height: size of the pictures [px]
    :param shadows: whether lights that cast shadows do so (three times slower)
    :param samples: samples a pixel against jagged edges; 0 for none
    :raises RenderError: no context could be made, or the process already draws with another number of samples
    """

    _context: mujoco.MjrContext | None = None
    _gl: object = None
    _limits: tuple[int, int, int] = (0, 0, 0)

    def __init__(self, width: int, height: int, shadows: bool = True, samples: int = 4) -> None:
        self.width, self.height, self.shadows = width, height, shadows
        self._model = _base_model(width, height, samples)
        self._prepare_context(self._model, (width, height, samples))
        self._view = mujoco.MjvScene(self._model, maxgeom=MAX_PRIMITIVES)
        self._rect = mujoco.MjrRect(0, 0, width, height)
        self._pixels = np.zeros((height, width, 3), np.uint8)
        self._depth = np.zeros((height, width), np.float32)

    @classmethod
    def _prepare_context(cls, model: mujoco.MjModel, wanted: tuple[int, int, int]) -> None:
        width, height, samples = wanted
        if cls._context is None:
            try:
                cls._gl = mujoco.GLContext(width, height)
                cls._gl.make_current()
                cls._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
            except (AttributeError, ImportError, RuntimeError, mujoco.FatalError) as error:
                raise RenderError(
                    f'no rendering context with MUJOCO_GL={os.environ.get("MUJOCO_GL")}: {error}; install '
                    'libegl1 and libgl1, or install libosmesa6 and set MUJOCO_GL=osmesa'
                ) from error
            mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, cls._context)
            cls._limits = wanted
            return
        if samples != cls._limits[2]:
            raise RenderError(
                f'a renderer with {samples} samples a pixel was asked for, but this process draws with '
                f'{cls._limits[2]} already; use the same number, or another process'
            )
        if width > cls._limits[0] or height > cls._limits[1]:
            cls._limits = (max(width, cls._limits[0]), max(height, cls._limits[1]), samples)
            mujoco.mjr_resizeOffscreen(*cls._limits[:2], cls._context)

    def render(self, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ``(H, W, 3)`` uint8 RGB, ``(H, W)`` float32 z [m] and ``(H, W)`` uint8 ids.

        :raises RenderError: the pictures are constant, which is how a lost context shows
        """
        self._fill(scene)
        image = self._draw_picture()
        ids, depth = self._draw_ids()
        if np.ptp(depth) < 1e-6 or np.ptp(image) == 0:
            raise RenderError(
                f'scene {scene.seed} came out as a constant picture: the rendering context of this process '
                'is broken (was a second one made?)'
            )
        return image, depth, ids

    def _draw_picture(self) -> np.ndarray:
        flags = self._view.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = self.shadows
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 0
        mujoco.mjr_render(self._rect, self._view, self._context)
        mujoco.mjr_readPixels(self._pixels, None, self._rect, self._context)
        return self._pixels[::-1].copy()

    def _draw_ids(self) -> tuple[np.ndarray, np.ndarray]:
        """Draw ids and depth, in the pass without multisampling: both then belong to pixel centres."""
        flags = self._view.flags
        flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
        flags[mujoco.mjtRndFlag.mjRND_SEGMENT] = flags[mujoco.mjtRndFlag.mjRND_IDCOLOR] = 1
        mujoco.mjr_render(self._rect, self._view, self._context)
        mujoco.mjr_readPixels(self._pixels, self._depth, self._rect, self._context)
        coded = self._pixels[::-1, :, 0]  # id + 1; 0 where nothing was drawn
        ids = np.where(coded > 0, coded - np.uint8(1), 0).astype(np.uint8)
        # Window depth d in 0..1 to the distance along the optical axis: z = n / (1 - d (1 - n / f)).
        depth = NEAR / (1 - self._depth * (1 - NEAR / FAR))
        return ids, depth[::-1].astype(np.float32)

    def _fill(self, scene: Scene) -> None:
        view, parts = self._view, scene.primitives
        count = len(parts.shapes)
        if count > MAX_PRIMITIVES:
            raise RenderError(
                f'scene {scene.seed} has {count} primitives, at most {MAX_PRIMITIVES} can be drawn'
            )
        rotations = np.ascontiguousarray(parts.rotations.reshape(count, 9), np.float64)
        rgba = parts.rgba.astype(np.float32)
        sizes = parts.sizes.copy()
        cylinders = parts.shapes == Shape.CYLINDER
        sizes[cylinders, 1] = sizes[cylinders, 2]  # MuJoCo wants radius, half height
        for i in range(count):
            geom = view.geoms[i]
            mujoco.mjv_initGeom(
                geom, int(parts.shapes[i]), sizes[i], parts.positions[i], rotations[i], rgba[i]
            )
            geom.matid = int(parts.materials[i])
            geom.segid = int(parts.object_ids[i])
            geom.castshadow = int(parts.object_ids[i] > 0)  # walls would only speckle themselves
            geom.category = mujoco.mjtCatBit.mjCAT_DYNAMIC
        view.ngeom = count
        view.nlight = len(scene.lights)
        for i, light in enumerate(scene.lights):
            _set_light(view.lights[i], light)
        self._set_camera(scene)

    def _set_camera(self, scene: Scene) -> None:
        pose = scene.camera_pose
        half = NEAR * np.tan(np.radians(scene.fov_y) / 2)
        for camera in (self._view.camera[0], self._view.camera[1]):
            camera.pos[:] = pose[:3, 3]
            camera.forward[:] = pose[:3, 2]
            camera.up[:] = -pose[:3, 1]
            camera.orthographic = 0
            camera.frustum_center = 0.0
            camera.frustum_width = half * self.width / self.height
            camera.frustum_bottom, camera.frustum_top = -half, half
            camera.frustum_near, camera.frustum_far = NEAR, FAR


def _set_light(target: mujoco.MjvLight, light: Light) -> None:
    target.type = mujoco.mjtLightType.mjLIGHT_SPOT
    target.headlight = 0
    target.pos[:] = light.position
    target.dir[:] = light.direction
    target.attenuation[:] = (1, 0, 0)
    target.cutoff = light.cutoff
    target.exponent = 1.0
    target.ambient[:] = light.ambient
    target.diffuse[:] = light.diffuse
    target.specular[:] = 0.15
    target.castshadow = light.shadow
    # These bound the depth range of the shadow map; a wide one speckles far walls.
    target.bulbradius = 0.3
    target.range = 6.0


def _base_model(width: int, height: int, samples: int) -> mujoco.MjModel:
    """Return a model without a scene: what a rendering context takes from one are textures and sizes."""
    spec = mujoco.MjSpec()
    for index, (_, repeat) in enumerate(TEXTURES):
        spec.add_texture(
            name=f't{index}', type=mujoco.mjtTexture.mjTEXTURE_2D, builtin=mujoco.mjtBuiltin.mjBUILTIN_FLAT,
            width=SIDE, height=SIDE,
        )  # fmt: skip
        material = spec.add_material(name=f'm{index}', texrepeat=[repeat, repeat], texuniform=True)
        material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = f't{index}'
    spec.stat.extent = 3.0
    model = spec.compile()
    for index, (name, _) in enumerate(TEXTURES):
        grey = np.rint(texture(name) * 255).astype(np.uint8)
        start, channels = model.tex_adr[index], model.tex_nchannel[index]
        model.tex_data[start : start + grey.size * channels] = np.repeat(grey.ravel(), channels)
    model.vis.global_.offwidth, model.vis.global_.offheight = width, height
    model.vis.quality.offsamples = samples
    model.vis.quality.shadowsize = 1024
    model.vis.quality.numquads = 10
    return model
