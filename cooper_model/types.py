"""Frozen dataclasses that cross borders: frames in; maps, objects, relations, events and answers out.

Camera geometry follows REP 103's optical frame everywhere: x right, y down, z forward, in metres. A *depth* is the z
coordinate of a point, not the length of its ray. Pictures are ``(height, width, 3)`` uint8 in RGB order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Union

import numpy as np

Mode = Literal['auto', 'direct', 'text', 'perception']
MODES: tuple[Mode, ...] = ('auto', 'direct', 'text', 'perception')
Modality = Literal['depth', 'segmentation']
UNLABELLED = 255


class Cancelled(Exception):
    """The caller asked for work to stop; raised between two model steps."""


@dataclass(frozen=True)
class CameraIntrinsics:
    """A pinhole camera without distortion.

    :param fx, fy: focal lengths [px]
    :param cx, cy: principal point [px], measured so that the centre of the first pixel is 0
    :param width, height: size of the image that the four numbers belong to [px]
    :raises ValueError: a value is not finite, or a focal length or a size is not positive
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        numbers = {'fx': self.fx, 'fy': self.fy, 'cx': self.cx, 'cy': self.cy}
        for name, value in numbers.items():
            if not math.isfinite(value):
                raise ValueError(f'camera intrinsics: {name} is {value}; calibrate the camera or leave intrinsics out')
        for name in ('fx', 'fy', 'width', 'height'):
            if getattr(self, name) <= 0:
                raise ValueError(
                    f'camera intrinsics: {name} is {getattr(self, name)}, expected a positive number; '
                    'calibrate the camera or leave intrinsics out'
                )

    @classmethod
    def from_vertical_fov(cls, degrees: float, width: int, height: int) -> CameraIntrinsics:
        """Return a centred camera with square pixels and the given vertical field of view."""
        focal = height / 2 / math.tan(math.radians(degrees) / 2)
        return cls(focal, focal, (width - 1) / 2, (height - 1) / 2, width, height)

    def scaled(self, width: int, height: int) -> CameraIntrinsics:
        """Return the intrinsics of the same view resized to ``width`` x ``height`` pixels."""
        sx, sy = width / self.width, height / self.height
        return CameraIntrinsics(
            self.fx * sx,
            self.fy * sy,
            (self.cx + 0.5) * sx - 0.5,
            (self.cy + 0.5) * sy - 0.5,
            width,
            height,
        )


@dataclass(frozen=True)
class Frame:
    """One camera image with what is known about it.

    :param image: ``(height, width, 3)`` uint8, RGB
    :param intrinsics: the camera, if calibrated
    :param depth: ``(height, width)`` float32 metres registered to the image, NaN where invalid, if measured
    :param stamp_ns: acquisition time [ns]
    :param frame_id: name of the camera's optical frame
    :raises ValueError: the image is not RGB uint8 or has no pixels, or depth has another size
    """

    image: np.ndarray
    intrinsics: CameraIntrinsics | None = None
    depth: np.ndarray | None = None
    stamp_ns: int = 0
    frame_id: str = ''

    def __post_init__(self) -> None:
        image = self.image
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ValueError(
                f'frame: image has shape {image.shape} and type {image.dtype}, expected (height, width, 3) uint8 RGB'
            )
        if 0 in image.shape:
            raise ValueError(f'frame: image of shape {image.shape} has no pixels; check the camera driver')
        if self.depth is not None and self.depth.shape != image.shape[:2]:
            raise ValueError(
                f'frame: depth of shape {self.depth.shape} does not match the image {image.shape[:2]}; '
                'register depth to the image first'
            )


@dataclass(frozen=True)
class Alignment:
    """How generated depth was brought to that of a sensor: ``scale * generated + shift`` [m].

    :param share: share of the image that the sensor measured, 0..1
    :param residual: median error relative to the measured depth after the fit, of the measured pixels
    """

    scale: float
    shift: float
    share: float
    residual: float


@dataclass(frozen=True)
class DepthMap:
    """A generated depth image.

    :param relative: ``(height, width)`` float32 in 0 (near) .. 1 (far)
    :param metres: ``(height, width)`` float32 [m], NaN where invalid; None where the scale is unknown
    :param color: ``(height, width, 3)`` uint8 RGB, matplotlib's Spectral: near is red
    :param alignment: set where ``metres`` holds a sensor's depth, its holes filled
    """

    relative: np.ndarray
    metres: np.ndarray | None
    color: np.ndarray
    alignment: Alignment | None = None


@dataclass(frozen=True)
class Segmentation:
    """A generated segmentation image, read back into labels.

    :param labels: ``(height, width)`` uint8 or uint16 index into ``names``; ``UNLABELLED`` (255) is background
    :param instances: ``(height, width)`` uint16, 0 where there is no object
    :param confidence: ``(height, width)`` float32 in 0..1
    :param names: name of each class
    :param color: ``(height, width, 3)`` uint8 RGB, the picture that the model drew
    """

    labels: np.ndarray
    instances: np.ndarray
    confidence: np.ndarray
    names: tuple[str, ...]
    color: np.ndarray


@dataclass(frozen=True)
class Evidence:
    """What an object's place was measured from: which pixels, and which depth.

    :param pixel: ``(x, y)`` of a visible pixel of the object, the nearest to its middle [px]
    :param pixels: visible pixels that have a depth
    :param depth: median z of these pixels, in the unit of ``SceneObject.center``; None where too few have any
    :param measured: share of these pixels whose depth a sensor measured, 0..1; that of the others was generated
    """

    pixel: tuple[int, int]
    pixels: int
    depth: float | None
    measured: float


@dataclass(frozen=True)
class SceneObject:
    """One visible object.

    :param id: value in ``Segmentation.instances``, from 1
    :param name: class name, or class name with a colour where known
    :param confidence: 0..1
    :param box: ``(left, top, right, bottom)`` in pixels, right and bottom exclusive
    :param area: visible pixels
    :param center: centre of the visible surface in the optical frame: [m] if ``metric``, otherwise in units of the
        depth range; ``None`` where there is no depth
    :param size: extent of the visible surface along x, y, z, in the unit of ``center``
    :param depth: median z of the visible surface, in the unit of ``center``
    :param metric: whether lengths are metres
    :param evidence: what center, size and depth were read from, where they were read from maps
    """

    id: int
    name: str
    confidence: float
    box: tuple[int, int, int, int]
    area: int
    center: tuple[float, float, float] | None = None
    size: tuple[float, float, float] | None = None
    depth: float | None = None
    metric: bool = False
    evidence: Evidence | None = None


@dataclass(frozen=True)
class Relation:
    """``subject predicate object``, for example *ball left of box*.

    :param distance: between the two centres [m]; NaN where unknown
    :param confidence: 0..1
    :param evidence: of subject and object; None each for objects that were not read from maps
    """

    subject_id: int
    subject: str
    predicate: str
    object_id: int
    object: str
    distance: float
    confidence: float
    evidence: tuple[Evidence | None, Evidence | None] = (None, None)


@dataclass(frozen=True)
class Turn:
    """One parsed model turn: a thought and what the model then did.

    :param thought: text between the thinking tags; empty where there are none
    :param action: an image to generate, ``answer``, or None for a turn without any tag
    :param body: text inside the action's tags
    """

    thought: str
    action: Literal['depth', 'segmentation', 'answer'] | None
    body: str


@dataclass(frozen=True)
class Answer:
    """The outcome of one question.

    :param text: the short answer
    :param value, unit: where the answer is a number
    :param confidence: geometric mean of the probabilities of the answer's tokens, 0..1
    :param mode: the mode that was asked for
    :param thoughts: one text a turn
    :param depth, segmentation: the last map of each kind generated on the way
    :param objects, relations: read from the maps and the camera, independent of the model's words
    :param timings: seconds by part
    :param forced: whether the answer had to be forced (turn limit, or a turn without any tag)
    """

    text: str
    mode: Mode
    value: float | None = None
    unit: str = ''
    confidence: float = 0.0
    thoughts: tuple[str, ...] = ()
    depth: DepthMap | None = None
    segmentation: Segmentation | None = None
    objects: tuple[SceneObject, ...] = ()
    relations: tuple[Relation, ...] = ()
    timings: Mapping[str, float] = field(default_factory=dict)
    forced: bool = False


# Events: what a reasoner yields, in order, while it works.


@dataclass(frozen=True)
class TextDelta:
    """More of the model's own text, as it is decoded. ``turn`` counts from 0."""

    turn: int
    text: str


@dataclass(frozen=True)
class ImageRequested:
    """The model (or the mode) asks for a map; generation starts now."""

    turn: int
    modality: Modality


@dataclass(frozen=True)
class ImageProgress:
    """One denoising step is done."""

    turn: int
    modality: Modality
    step: int
    steps: int


@dataclass(frozen=True)
class ImageReady:
    """A map is finished, at the size of the input frame.

    :param picture: what the map was read from, ``(height, width, channels)`` float32 in 0..1 at the model's size
    """

    turn: int
    modality: Modality
    image: Union[DepthMap, Segmentation]
    seconds: float
    picture: np.ndarray


@dataclass(frozen=True)
class TurnDone:
    """A model turn is complete and parsed."""

    turn: int
    parsed: Turn


@dataclass(frozen=True)
class AnswerReady:
    """The last event of a question."""

    answer: Answer


Event = Union[TextDelta, ImageRequested, ImageProgress, ImageReady, TurnDone, AnswerReady]
