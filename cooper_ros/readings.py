"""What messages say of time, camera and transforms, whoever decoded them: rclpy or ``rosbags``, from ROS 1 or 2."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cooper_model.placement import RigidTransform
from cooper_model.types import CameraIntrinsics
from cooper_ros.encodings import ConversionError

NANOSECONDS = 1_000_000_000


def stamp_to_ns(stamp: Any) -> int:
    """Return a message's time as nanoseconds."""
    return stamp.sec * NANOSECONDS + stamp.nanosec


def intrinsics_from_message(message: Any, width: int, height: int) -> CameraIntrinsics:
    """Return the intrinsics of an image of ``width`` x ``height`` pixels from matrix K.

    K belongs to the full sensor image: region of interest and binning are applied, then a plain rescaling. Distortion
    is left out, so an ``image_rect`` gives better metres than an ``image_raw``.

    :raises ConversionError: K is zero or not finite (camera not calibrated), or the sizes have different proportions
    """
    k = message.k if hasattr(message, 'k') else message.K  # ROS 1 writes it large
    fx, fy, cx, cy = (float(k[i]) for i in (0, 4, 2, 5))
    if not all(math.isfinite(value) for value in (fx, fy, cx, cy)) or fx <= 0 or fy <= 0:
        raise ConversionError(
            f'camera_info: K has fx {fx}, fy {fy}, cx {cx}, cy {cy}, the camera is not calibrated; '
            'calibrate it to get metres'
        )
    roi = message.roi
    full = CameraIntrinsics(
        fx,
        fy,
        cx - roi.x_offset,
        cy - roi.y_offset,
        roi.width or message.width or width,
        roi.height or message.height or height,
    )
    scale_x, scale_y = full.width / width, full.height / height
    # Binning rounds down, so sizes may be off by a pixel.
    if abs(scale_x / scale_y - 1) > 0.02:
        raise ConversionError(
            f'camera_info: it is for {full.width} x {full.height} pixels, the image has {width} x {height}; '
            'remap camera_info to the topic that belongs to the image'
        )
    return full.scaled(width, height)


def rotation_from_message(rotation: Any) -> np.ndarray:
    """Return the ``(3, 3)`` matrix of a quaternion, of which the length does not count; without length, no rotation."""
    x, y, z, w = np.array([rotation.x, rotation.y, rotation.z, rotation.w], np.float64)
    norm = float(np.sqrt(x * x + y * y + z * z + w * w)) or 1.0
    x, y, z, w = x / norm, y / norm, z / norm, w / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def transform_from_message(message: Any) -> RigidTransform:
    """Return a ``geometry_msgs/Transform``.

    :raises ConversionError: a value is not finite, or the quaternion has not length 1
    """
    moved, turned = message.translation, message.rotation
    length = math.hypot(turned.x, turned.y, turned.z, turned.w)
    translation = np.array([moved.x, moved.y, moved.z], np.float64)
    if not abs(length - 1) < 0.01 or not np.isfinite(translation).all():
        raise ConversionError(
            f'transform: translation {translation.tolist()}, quaternion of length {length:.4g}; expected finite '
            'numbers and length 1; correct its publisher'
        )
    return RigidTransform(rotation_from_message(turned), translation)
