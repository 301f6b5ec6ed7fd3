"""Depth images as image_transport's plugin ``compressedDepth`` sends them."""

from __future__ import annotations

import struct

import cv2
import numpy as np


def millimetres(depth):
    """Return metres as 16UC1 holds them, 0 where there are none."""
    return np.nan_to_num(depth * 1000, nan=0).astype(np.uint16)


def compressed_depth(depth, encoding):
    """Return the bytes of a depth image ``(height, width)`` [m]: of 16UC1, or of 32FC1 with the plugin's defaults."""
    if encoding == '16UC1':
        values, a, b = millimetres(depth), 0.0, 0.0
    else:
        a, b = 100.0 * (100.0 + 1), 1 - 100.0 * 101.0 / 10.0
        values = np.nan_to_num(a / depth + b, nan=0).clip(0, 65535).astype(np.uint16)
    return struct.pack('<iff', 0, a, b) + cv2.imencode('.png', values)[1].tobytes()
