"""From generated pictures to maps, and from true maps to the pictures that a model is trained to generate.

Depth is a grey picture, linear in metres over the checkpoint's range. A segmentation is flat colours: red and
green carry the class, blue the height of the instance in the picture, so that a model can tell the colour
from the image alone and objects of one class that overlap front to back differ.
"""

from __future__ import annotations

import cv2
import numpy as np

from cooper_model import transforms
from cooper_model.alignment import fuse
from cooper_model.colour_code import read_pixels
from cooper_model.config import ColourCodeConfig
from cooper_model.segments import label_instances
from cooper_model.types import UNLABELLED, DepthMap, Frame, Modality, Segmentation

MIN_AREA = 16
"""Smallest object read from a segmentation picture [px of the picture]."""

_BIN = 8
_REACH = 20.0
_MAX_CLASSES = 64


def read_picture(
    picture: np.ndarray,
    modality: Modality,
    frame: Frame,
    depth_range: tuple[float, float] | None,
    code: ColourCodeConfig,
) -> DepthMap | Segmentation:
    """Read a generated picture of a frame as a map of the frame's size, fused with the depth that the frame has.

    :param picture: ``(h, w, 3)`` float32 in 0..1; one channel is enough for depth
    :param depth_range: ``(near, far)`` [m] of depth pictures of the frame's camera, where the checkpoint states it
    :param code: of segmentation pictures
    """
    size = frame.image.shape[:2]
    if modality == 'segmentation':
        return segmentation(picture, size, code)
    found = depth_map(picture, size, depth_range)
    return found if frame.depth is None else fuse(found, frame.depth)


def depth_map(
    picture: np.ndarray, size: tuple[int, int], depth_range: tuple[float, float] | None
) -> DepthMap:
    """Read a generated depth picture.

    :param picture: ``(h, w, channels)`` float32 in 0..1, of which the mean counts
    :param size: ``(height, width)`` of the map to return
    :param depth_range: ``(near, far)`` [m] that 0 and 1 stand for, where the checkpoint states it
    """
    height, width = size
    relative = np.clip(transforms.picture_to_relative(picture), 0, 1).astype(np.float32)
    relative = cv2.resize(relative, (width, height), interpolation=cv2.INTER_LINEAR)
    metres = None if depth_range is None else transforms.relative_to_depth(relative, depth_range)
    return DepthMap(relative, metres, colour_relative(relative))


def colour_relative(relative: np.ndarray) -> np.ndarray:
    """Colour relative depth ``(h, w)`` in 0..1 as Spectral, ``(h, w, 3)`` uint8 RGB: near is red."""
    table = transforms.to_uint8(transforms.spectral_colours())[:, None]
    index = np.minimum(relative * np.float32(256), 255).astype(np.uint8)
    return cv2.applyColorMap(index, table)


def shown_picture(picture: np.ndarray, modality: Modality) -> np.ndarray:
    """Return a generated picture ``(h, w, 3)`` of 0..1 as it is shown to the model, uint8: depth in colours."""
    if modality == 'depth':
        return colour_relative(np.clip(transforms.picture_to_relative(picture), 0, 1))
    return transforms.to_uint8(picture)


def encode_depth(depth: np.ndarray, depth_range: tuple[float, float]) -> np.ndarray:
    """Return the grey picture ``(h, w, 3)`` uint8 that stands for depth ``(h, w)`` [m]; NaN becomes far."""
    filled = np.nan_to_num(depth, nan=depth_range[1], posinf=depth_range[1])
    grey = np.round(transforms.depth_to_relative(filled, depth_range) * 255).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def encode_segmentation(labels: np.ndarray, instances: np.ndarray, code: ColourCodeConfig) -> np.ndarray:
    """Return true labels as the picture ``(h, w, 3)`` uint8 RGB that a model shall generate.

    :param labels: ``(h, w)`` class index, ``UNLABELLED`` where there is no object
    :param instances: ``(h, w)`` instance number, 0 where there is no object
    :raises ValueError: a label has no colour in ``code``
    """
    instances = np.where(labels == UNLABELLED, 0, instances).astype(np.int64)
    present = labels[instances > 0]
    if present.size and present.max() >= len(code.names):
        raise ValueError(
            f'label {present.max()} has no colour; the colour code has {len(code.names)} classes'
        )
    rows = np.broadcast_to(np.arange(labels.shape[0])[:, None] + 0.5, labels.shape)
    area = np.bincount(instances.ravel())
    centroid = np.bincount(instances.ravel(), rows.ravel()) / np.maximum(area, 1)
    blue = np.asarray(code.blue or (0,), np.uint8)[blue_level(centroid / labels.shape[0], len(code.blue))]
    red_green = np.asarray([*code.red_green, code.background], np.uint8)
    kind = np.where(instances > 0, labels, len(code.names))
    picture = np.empty((*labels.shape, 3), np.uint8)
    picture[..., :2] = red_green[kind]
    picture[..., 2] = np.where(instances > 0, blue[instances], 0)
    return picture


def blue_level(place: np.ndarray, levels: int) -> np.ndarray:
    """Return the index of the blue level of instances with centroids at ``place`` (0 top .. 1 bottom)."""
    return np.minimum(place * levels, max(levels - 1, 0)).astype(np.int64)


def segmentation(
    picture: np.ndarray, size: tuple[int, int], code: ColourCodeConfig, min_area: int = MIN_AREA
) -> Segmentation:
    """Read a generated segmentation picture.

    Without a colour code in the checkpoint, colours are clustered and classes are called ``class N`` with the
    number that the codes of ADE20K give them.

    :param picture: ``(h, w, 3)`` float32 in 0..1
    :param size: ``(height, width)`` of the maps to return
    :param min_area: smaller objects are taken for part of what surrounds them [px of ``picture``]
    """
    if len(code.names) > UNLABELLED:
        raise ValueError(
            f'the colour code has {len(code.names)} classes; labels are 8 bits, at most {UNLABELLED} fit'
        )
    colours = colours_of(picture)
    by_place = bool(code.names)
    if not by_place:
        code = _clustered_code(colours, min_area)
    pixels = read_pixels(colours, code)
    kinds, instances = label_instances(pixels, colours, code, min_area, by_place)
    labels = np.where(kinds == len(code.names), UNLABELLED, kinds).astype(np.uint8)
    height, width = size
    layers = (labels, instances.astype(np.uint16), pixels.confidence, colours)
    resized = [cv2.resize(values, (width, height), interpolation=cv2.INTER_NEAREST) for values in layers]
    return Segmentation(resized[0], resized[1], resized[2], code.names, resized[3])


def colours_of(picture: np.ndarray) -> np.ndarray:
    """Return a generated picture of 0..1 in 8 bits, rounded: what a segmentation is read from."""
    return np.round(np.clip(picture, 0, 1) * np.float32(255)).astype(np.uint8)


def _clustered_code(colours: np.ndarray, min_area: int) -> ColourCodeConfig:
    """Return a colour code made of the colours that the picture has, for a checkpoint that states none."""
    found = _peaks(colours[..., :2], min_area)
    black = np.hypot(found[:, 0], found[:, 1]) < _REACH
    classes = np.round(found[~black]).astype(int)
    # ADE20K's files hold class // 256 * 10 in red and class % 256 in green.
    names = [f'class {int(round(red / 10)) * 256 + green}' for red, green in classes]
    blue = np.unique(np.round(_peaks(colours[..., 2:], min_area)).astype(int))
    return ColourCodeConfig(
        names=tuple(names),
        red_green=tuple((int(red), int(green)) for red, green in classes),
        blue=tuple(int(level) for level in blue),
    )


def _peaks(values: np.ndarray, min_area: int) -> np.ndarray:
    """Return the commonest values ``(peaks, channels)`` of a picture, no two of them close together."""
    flat = values.reshape(-1, values.shape[-1])
    cells, owner, counts = np.unique(
        flat.astype(np.int32) // _BIN, axis=0, return_inverse=True, return_counts=True
    )
    owner = owner.reshape(-1)
    sums = np.stack([np.bincount(owner, flat[:, c]) for c in range(flat.shape[1])], axis=1)
    peaks: list[np.ndarray] = []
    free = np.ones(len(cells), bool)
    means = sums / counts[:, None]
    while len(peaks) < _MAX_CLASSES and free.any():
        top = int(np.argmax(np.where(free, counts, 0)))
        near = free & (np.linalg.norm(means - means[top], axis=1) < _REACH)
        if counts[near].sum() < min_area:
            break
        peaks.append(sums[near].sum(0) / counts[near].sum())
        free &= ~near
    return np.asarray(peaks, np.float64).reshape(-1, flat.shape[1])


def overlay(image: np.ndarray, segmentation: Segmentation) -> np.ndarray:
    """Return the image with every instance tinted in the drawn colour and outlined in white.

    :param image: ``(height, width, 3)`` uint8 RGB, of the segmentation's size
    """
    ids = segmentation.instances
    mixed = cv2.addWeighted(image, 0.5, segmentation.color, 0.5, 0)
    mixed = cv2.copyTo(mixed, (ids > 0).astype(np.uint8), image.copy())
    edge = np.zeros(ids.shape, bool)
    edge[:, 1:] = ids[:, 1:] != ids[:, :-1]
    edge[1:] |= ids[1:] != ids[:-1]
    mixed[edge] = 255
    return mixed
