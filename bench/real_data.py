"""Real camera images, where they come from and what one may do with them: RGB-D pairs, photographs, frames of bags.

The folder has the form of the project's shared data: ``rgbd/index.json``, ``photos/coco_cc/instances.json`` (COCO), and
bags under ``bags/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cooper_cli.pictures import load_image
from cooper_model.types import CameraIntrinsics, Frame
from cooper_ros.bags import CameraBag
from cooper_ros.encodings import colour_from_compressed, colour_from_image, depth_from_image
from cooper_ros.readings import NANOSECONDS, intrinsics_from_message, stamp_to_ns

TOGETHER = 0.1  # a colour and a depth image further apart in time [s] do not show the same
BAG_SOURCES = {
    'tum_fr1_rpy_ros2': ('TUM RGB-D freiburg1_rpy (Sturm et al. 2012), converted to a ROS 2 bag', 'CC BY 4.0'),
    'realsense_d435_ros2': ('RealSense D435, from IntelRealSense/librealsense, converted to a ROS 2 bag', 'Apache-2.0'),
}


@dataclass(frozen=True)
class Shot:
    """One image. ``frame.depth`` is what a sensor measured, None where there was none.

    :param group: what its scores are averaged with
    :param source, licence: to be told wherever the image is shown
    """

    name: str
    group: str
    frame: Frame
    source: str
    licence: str


def pairs(data: Path, groups: Sequence[str]) -> list[Shot]:
    """Return the registered colour and depth pairs of some folders of ``rgbd/``.

    :raises FileNotFoundError: the index or an image is missing
    :raises ValueError: a group has no pair
    """
    entries = _json(data / 'rgbd' / 'index.json')
    chosen = [(Path(entry['color']).parts[0], entry) for entry in entries if entry['registered']]
    missing = set(groups) - {group for group, _ in chosen}
    if missing:
        known = ', '.join(sorted({group for group, _ in chosen}))
        raise ValueError(f'{data / "rgbd"} has no registered pairs of {", ".join(sorted(missing))}; there are: {known}')
    return [_pair(data / 'rgbd', group, entry) for group, entry in chosen if group in groups]


def _pair(folder: Path, group: str, entry: dict[str, Any]) -> Shot:
    image = load_image(folder / entry['color'])
    raw = np.asarray(Image.open(folder / entry['depth']))
    metres = np.where(raw > 0, raw / np.float32(entry['depth_units_per_m']), np.nan).astype(np.float32)
    height, width = image.shape[:2]
    lens = entry['intrinsics']
    camera = CameraIntrinsics(*(lens[name] for name in ('fx', 'fy', 'cx', 'cy')), width, height)
    source = f'{entry["scene"]}, {entry["sensor"]}, from {entry["origin"]}'
    return Shot(entry['id'], group, Frame(image, camera, metres), source, entry['licence'])


def photos(data: Path, count: int) -> list[Shot]:
    """Return the first photographs of ``photos/coco_cc``; their cameras are unknown.

    :raises FileNotFoundError: the list or an image is missing
    """
    folder = data / 'photos' / 'coco_cc'
    listed = _json(folder / 'instances.json')
    licences = {entry['id']: entry['name'] for entry in listed['licenses']}
    return [
        Shot(
            Path(entry['file_name']).stem,
            'photos',
            Frame(load_image(folder / entry['file_name'])),
            f'photograph on Flickr by way of COCO 2017: {entry["flickr_url"]}',
            licences[entry['license']],
        )
        for entry in listed['images'][:count]
    ]


def bag_frames(bag: Path, count: int) -> list[Shot]:
    """Return frames of a bag, evenly spread over its length, with registered depth where it has some.

    :raises BagError: it is no bag, or has no camera
    """
    with CameraBag(bag) as opened:
        total = opened.topics.image.count
        wanted = {int(place) for place in (np.arange(count) + 0.5) * total / count} if count else set()
        frames = list(_decoded(opened, wanted))
    source, licence = BAG_SOURCES.get(bag.name, ('', ''))
    return [Shot(f'{bag.name}_{number}', 'bags', frame, source, licence) for number, frame in enumerate(frames)]


def _decoded(bag: CameraBag, wanted: set[int]) -> Iterator[Frame]:
    decode = colour_from_compressed if bag.topics.image.compressed else colour_from_image
    images, depths, camera, number = [], [], None, 0
    for recorded in bag.messages():
        if recorded.role == 'camera_info':
            camera = camera or recorded.message
        elif recorded.role == 'depth':
            depths.append(recorded.message)
        else:
            if number in wanted:
                images.append(recorded.message)
            number += 1
    for message in images:
        stamp = stamp_to_ns(message.header.stamp)
        image = decode(message)
        frame = Frame(image, camera and intrinsics_from_message(camera, image.shape[1], image.shape[0]))
        nearest = min(depths, key=lambda depth: abs(stamp_to_ns(depth.header.stamp) - stamp), default=None)
        if nearest is not None and abs(stamp_to_ns(nearest.header.stamp) - stamp) <= TOGETHER * NANOSECONDS:
            frame = replace(frame, depth=depth_from_image(nearest))
        yield frame


def _json(path: Path) -> Any:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; name the folder of the shared data with --data')
    return json.loads(path.read_text(encoding='utf-8'))
