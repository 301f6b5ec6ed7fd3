"""From messages as ``rosbags`` decodes them to messages that rclpy publishes, field by field."""

from __future__ import annotations

import array
from typing import Any

from sensor_msgs.msg import CameraInfo, CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from cooper_ros.conversions import stamp_from_ns, stamp_to_ns


def header_message(recorded: Any) -> Header:
    """Return a recorded header: same stamp, same frame."""
    return Header(stamp=stamp_from_ns(stamp_to_ns(recorded.stamp)), frame_id=recorded.frame_id)


def image_message(recorded: Any) -> Image:
    """Return a recorded ``sensor_msgs/Image`` with its own header, byte for byte."""
    message = Image(header=header_message(recorded.header), height=recorded.height, width=recorded.width)
    message.encoding = recorded.encoding
    message.is_bigendian = int(recorded.is_bigendian)
    message.step = recorded.step
    message.data = array.array('B', recorded.data.tobytes())
    return message


def compressed_message(recorded: Any) -> CompressedImage:
    """Return a recorded ``sensor_msgs/CompressedImage`` with its own header, byte for byte."""
    message = CompressedImage(header=header_message(recorded.header), format=recorded.format)
    message.data = array.array('B', recorded.data.tobytes())
    return message


def camera_info_message(recorded: Any, header: Header) -> CameraInfo:
    """Return a recorded ``sensor_msgs/CameraInfo`` of ROS 1 or 2 under the given header.

    ROS 1 names the matrices with capitals.
    """
    message = CameraInfo(header=header, height=recorded.height, width=recorded.width)
    message.distortion_model = recorded.distortion_model
    for name in ('d', 'k', 'r', 'p'):
        values = getattr(recorded, name, None)
        if values is None:
            values = getattr(recorded, name.upper())
        setattr(message, name, [float(value) for value in values])
    message.binning_x, message.binning_y = recorded.binning_x, recorded.binning_y
    roi = recorded.roi
    message.roi = RegionOfInterest(
        x_offset=roi.x_offset,
        y_offset=roi.y_offset,
        height=roi.height,
        width=roi.width,
        do_rectify=bool(roi.do_rectify),
    )
    return message
