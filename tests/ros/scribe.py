"""Writes bags of every format for tests."""

from __future__ import annotations

import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Ros2Writer
from rosbags.typesys import Stores, get_typestore

SECOND = 1_000_000_000


class Scribe:
    """Writes messages of ROS 1 or ROS 2 into a bag."""

    def __init__(self, path, storage):
        self.ros1 = storage == 'ros1'
        self.store = get_typestore(Stores.ROS1_NOETIC if self.ros1 else Stores.ROS2_HUMBLE)
        plugins = {'sqlite3': StoragePlugin.SQLITE3, 'mcap': StoragePlugin.MCAP}
        self.writer = Ros1Writer(path) if self.ros1 else Ros2Writer(path, version=8, storage_plugin=plugins[storage])
        self.connections = {}

    def header(self, ns, frame):
        time = self.store.types['builtin_interfaces/msg/Time'](sec=ns // SECOND, nanosec=ns % SECOND)
        extra = {'seq': 0} if self.ros1 else {}
        return self.store.types['std_msgs/msg/Header'](stamp=time, frame_id=frame, **extra)

    def write(self, topic, kind, ns, **fields):
        if topic not in self.connections:
            self.connections[topic] = self.writer.add_connection(topic, kind, typestore=self.store)
        message = self.store.types[kind](**fields)
        serialize = self.store.serialize_ros1 if self.ros1 else self.store.serialize_cdr
        self.writer.write(self.connections[topic], ns, serialize(message, kind))

    def image(self, topic, ns, encoding='rgb8', frame='camera_optical', size=(8, 6)):
        width, height = size
        step = width * {'rgb8': 3, 'mono8': 1, '16UC1': 2, 'mono16': 2, '32FC1': 4}[encoding]
        pixels = (np.arange(step * height) % 251).astype(np.uint8)
        self.write(
            topic, 'sensor_msgs/msg/Image', ns, header=self.header(ns, frame), height=height, width=width,
            encoding=encoding, is_bigendian=0, step=step, data=pixels,
        )  # fmt: skip

    def pixels(self, topic, ns, values, encoding, frame='camera_optical', at=None):
        """Write an image of given values.

        :param at: time of recording, by default the stamp
        """
        raw = np.ascontiguousarray(values)
        data = raw.view(np.uint8).ravel()
        self.write(
            topic, 'sensor_msgs/msg/Image', ns if at is None else at, header=self.header(ns, frame),
            height=raw.shape[0], width=raw.shape[1], encoding=encoding, is_bigendian=0, step=raw.strides[0], data=data,
        )  # fmt: skip

    def compressed(self, topic, ns, data, form, frame='camera_optical'):
        """Write a compressed image."""
        header = self.header(ns, frame)
        self.write(
            topic, 'sensor_msgs/msg/CompressedImage', ns, header=header, format=form,
            data=np.frombuffer(data, np.uint8),
        )  # fmt: skip

    def transform(self, topic, ns, parent, child, rotation):
        """Write one transform of frames, a quaternion x, y, z, w."""
        types = self.store.types
        pose = types['geometry_msgs/msg/Transform'](
            types['geometry_msgs/msg/Vector3'](0.0, 0.0, 1.0), types['geometry_msgs/msg/Quaternion'](*rotation)
        )
        stamped = types['geometry_msgs/msg/TransformStamped'](self.header(ns, parent), child, pose)
        self.write(topic, 'tf2_msgs/msg/TFMessage', ns, transforms=[stamped])

    def info(self, topic, ns, frame='camera_optical', size=(8, 6), focal=10.0):
        roi = self.store.types['sensor_msgs/msg/RegionOfInterest'](0, 0, 0, 0, False)
        matrices = {
            'd': np.zeros(5), 'k': np.array([focal, 0, 4, 0, focal, 3, 0, 0, 1.0]),
            'r': np.eye(3).ravel(), 'p': np.zeros(12),
        }  # fmt: skip
        if self.ros1:
            matrices = {name.upper(): value for name, value in matrices.items()}
        self.write(
            topic, 'sensor_msgs/msg/CameraInfo', ns, header=self.header(ns, frame), height=size[1], width=size[0],
            distortion_model='plumb_bob', binning_x=0, binning_y=0, roi=roi, **matrices,
        )  # fmt: skip
