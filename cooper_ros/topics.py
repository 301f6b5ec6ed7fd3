"""What the node publishes of a frame, below its own name, for who publishes and who listens."""

from __future__ import annotations

from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from visualization_msgs.msg import MarkerArray

from cooper_msgs.msg import SceneGraph

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
METRIC_OUTPUTS = ('depth/image', 'points')
"""Published only where depth is in metres."""

ANSWERS = 'answers'
"""cooper_msgs/QueryRecord of each question, answered or not."""
