"""Topics of a recording, by what they are to it: those of the camera, and those below the node's own name."""

from __future__ import annotations

CAMERA_TOPICS: dict[str, str] = {
    'image': 'image_raw',
    'camera_info': 'camera_info',
    'depth': 'depth_registered/image_rect',
}
RECORD_TOPICS: dict[str, str] = {
    'asked_image': '~/recorded/image',
    'depth_color': '~/recorded/depth_color',
    'segmentation': '~/recorded/segmentation',
    'instances': '~/recorded/instances',
    'record': '~/recorded/question',
    'correction': '~/recorded/correction',
}
