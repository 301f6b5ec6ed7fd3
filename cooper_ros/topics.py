"""The topics of the node: what it hears of each camera, what it publishes of a frame, what it records."""

from __future__ import annotations

from rclpy.node import Node
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from cooper_msgs.msg import SceneGraph

INPUTS: dict[str, str] = {
    'image': 'image_raw',
    'camera_info': 'camera_info',
    'depth': 'depth_registered/image_rect',
}
"""Topics of a camera by what they are to it."""

OUTPUTS: dict[str, type] = {
    'depth/image': Image,
    'depth/relative': Image,
    'depth/color': Image,
    'depth/camera_info': CameraInfo,
    'segmentation/mask': Image,
    'segmentation/instances': Image,
    'segmentation/overlay': Image,
    'segmentation/confidence': Image,
    'points': PointCloud2,
    'markers': MarkerArray,
    'scene': SceneGraph,
}
"""What is published of a frame, below the node's own name."""

METRIC_OUTPUTS = ('depth/image', 'points')
"""Published only where depth is in metres."""

ANSWERS = 'answers'
"""cooper_msgs/QueryRecord of each question, answered or not."""

RECORDED: dict[str, str] = {
    'asked_image': '~/recorded/image',
    'depth_color': '~/recorded/depth_color',
    'segmentation': '~/recorded/segmentation',
    'instances': '~/recorded/instances',
    'record': '~/recorded/question',
    'correction': '~/recorded/correction',
}
"""Topics that stand in recordings alone."""


def of_camera(topic: str, camera: str) -> str:
    """Return a topic as it is called for a camera; one without a name has it as it is."""
    return f'{camera}/{topic}' if camera else topic


def message_of(transport: str) -> type:
    """Return the type of the images that a transport carries."""
    return Image if transport == 'raw' else CompressedImage


def transported(node: Node, topic: str, transport: str) -> str:
    """Return a topic as a transport names it. Remapping the topic moves its transports too, as in image_transport.

    :param transport: raw, compressed, compressedDepth
    """
    return topic if transport == 'raw' else f'{node.resolve_topic_name(topic)}/{transport}'
