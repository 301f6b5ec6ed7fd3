"""Everything the node publishes about a perceived frame, each message with that frame's header."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from rclpy.lifecycle import LifecycleNode, LifecyclePublisher
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Header

from cooper_model.geometry import unproject
from cooper_model.perception import overlay
from cooper_model.types import UNLABELLED, DepthMap, Frame, Modality, SceneObject, Segmentation
from cooper_msgs.msg import QueryRecord
from cooper_ros.conversions import (
    camera_info_message,
    header_of,
    image_message,
    object_message,
    point_cloud_message,
    scene_message,
)
from cooper_ros.inference import Perceived
from cooper_ros.markers import are_current, scene_markers
from cooper_ros.placer import Place, Placer
from cooper_ros.recording.messages import Asked, record_message
from cooper_ros.topics import ANSWERS, OUTPUTS, of_camera

# Reliable reaches both reliable and best-effort subscribers.
# All maps of a frame leave at once, and a subscriber takes its time with the large ones.
_RELIABLE = QoSProfile(depth=5, reliability=ReliabilityPolicy.RELIABLE)
_LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
_NEEDS_BOTH = ('markers', 'scene')


def _vision_msgs() -> Any | None:
    """Return the messages of vision_msgs where it is installed; label_info is offered only there."""
    try:
        return importlib.import_module('vision_msgs.msg')
    except ImportError:
        return None


@dataclass(frozen=True)
class _Shown:
    """What was published last, and where."""

    perceived: Perceived
    place: Place

    @cached_property
    def objects(self) -> tuple[SceneObject, ...]:
        return self.place.objects(self.perceived, self.perceived.frame)


class Publishers:
    """The publishers of one camera; they exist while the node is configured and speak while it is active.

    :param placer: says in which frame points, markers and scene are published
    :param camera: name that their topics stand below; empty for none
    """

    def __init__(self, node: LifecycleNode, placer: Placer, camera: str = '') -> None:
        self._node = node
        self._placer = placer
        self._publishers: dict[str, LifecyclePublisher] = {
            name: node.create_lifecycle_publisher(kind, f'~/{of_camera(name, camera)}', _RELIABLE)
            for name, kind in OUTPUTS.items()
        }
        self._answers = node.create_lifecycle_publisher(QueryRecord, f'~/{of_camera(ANSWERS, camera)}', _RELIABLE)
        self._vision = _vision_msgs()
        self._labels: tuple[str, ...] | None = None
        if self._vision is not None:
            label_info = node.create_lifecycle_publisher(
                self._vision.LabelInfo, f'~/{of_camera("segmentation/label_info", camera)}', _LATCHED
            )
            self._publishers['segmentation/label_info'] = label_info
        self._answer = ''
        self._last: _Shown | None = None

    def destroy(self) -> None:
        """Remove all publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_lifecycle_publisher(publisher)
        self._node.destroy_lifecycle_publisher(self._answers)
        self._publishers.clear()

    def wanted(self, *, points: bool = True, markers: bool = True) -> frozenset[Modality]:
        """Return the maps that somebody subscribes to, directly or through what is made of them.

        :param points, markers: whether ~/points and ~/markers may be published
        """
        silent = {name for name, allowed in (('points', points), ('markers', markers)) if not allowed}
        modalities: set[Modality] = set()
        for name in self._publishers:
            if name in silent or not self._heard(name):
                continue
            if name in _NEEDS_BOTH:
                modalities |= {'depth', 'segmentation'}
            else:
                modalities.add('segmentation' if name.startswith('segmentation') else 'depth')
        return frozenset(modalities)

    def _heard(self, name: str) -> bool:
        publisher = self._publishers.get(name)
        return publisher is not None and publisher.get_subscription_count() > 0

    def publish(self, perceived: Perceived, *, points: bool = True, markers: bool = True) -> None:
        """Publish what somebody listens to: maps at once, points, scene and markers as soon as their place is known.

        :param points, markers: whether ~/points and ~/markers may be published
        """
        frame, depth, header = perceived.frame, perceived.depth, header_of(perceived.frame)
        if depth is not None:
            self._publish_depth(frame, depth, header)
        if perceived.segmentation is not None:
            self._publish_segmentation(frame, perceived.segmentation, header)
        use = partial(self._publish_geometry, perceived, points=points, markers=markers)
        self._placer.when_placed(frame, depth, use)

    def _publish_geometry(self, perceived: Perceived, place: Place, *, points: bool, markers: bool) -> None:
        if points:
            self._publish_points(perceived.frame, perceived.depth, place)
        if perceived.segmentation is None:
            return
        shown = self._last = _Shown(perceived, place)
        if self._heard('scene'):
            self._publishers['scene'].publish(scene_message(shown.objects, perceived.relations, place.header))
        if markers:
            self._publish_markers(place)

    def publish_answer(self, asked: Asked, place: Place, *, markers: bool = True) -> None:
        """Tell of a question and what became of it, and show the answer among the markers from now on.

        :param place: of the frame that was asked about
        """
        if self._answers.get_subscription_count() > 0:
            checkpoint = self._node.get_parameter('checkpoint').value
            message = record_message(asked, place.header, checkpoint)
            if asked.answer is not None:
                message.objects = [object_message(item) for item in place.objects(asked.answer, asked.frame)]
            self._answers.publish(message)
        if asked.answer is None:
            return
        self._answer = asked.answer.text
        if markers:
            self._publish_markers(place)

    def _publish_markers(self, place: Place) -> None:
        if not self._heard('markers'):
            return
        objects, relations, last = (), (), self._last
        if last is not None and are_current(last.place.header, place.header):
            objects, relations, place = last.objects, last.perceived.relations, last.place
        array = scene_markers(objects, relations, self._answer, place.header, place.transform)
        self._publishers['markers'].publish(array)

    def _image(self, name: str, values: np.ndarray, encoding: str, header: Header) -> None:
        self._publishers[name].publish(image_message(values, encoding, header))

    def _publish_depth(self, frame: Frame, depth: DepthMap, header: Header) -> None:
        if self._heard('depth/relative'):
            self._image('depth/relative', depth.relative, '32FC1', header)
        if self._heard('depth/color'):
            self._image('depth/color', depth.color, 'rgb8', header)
        if depth.metres is not None and self._heard('depth/image'):
            self._image('depth/image', depth.metres, '32FC1', header)
        if frame.intrinsics is not None and self._heard('depth/camera_info'):
            self._publishers['depth/camera_info'].publish(camera_info_message(frame.intrinsics, header))

    def _publish_points(self, frame: Frame, depth: DepthMap | None, place: Place) -> None:
        metric = depth is not None and depth.metres is not None and frame.intrinsics is not None
        if not metric or not self._heard('points'):
            return
        points = unproject(depth.metres, frame.intrinsics)
        if place.transform is not None:
            points = place.transform.apply(points)
        self._publishers['points'].publish(point_cloud_message(points, frame.image, place.header))

    def _publish_segmentation(self, frame: Frame, segmentation: Segmentation, header: Header) -> None:
        # First: consumers keep no mask whose names they do not know.
        if self._vision is not None and segmentation.names != self._labels:
            self._publish_labels(segmentation.names, header)
        if self._heard('segmentation/mask'):
            wide = segmentation.labels.dtype == np.uint16
            self._image('segmentation/mask', segmentation.labels, 'mono16' if wide else 'mono8', header)
        if self._heard('segmentation/instances'):
            self._image('segmentation/instances', segmentation.instances, 'mono16', header)
        if self._heard('segmentation/overlay'):
            self._image('segmentation/overlay', overlay(frame.image, segmentation), 'rgb8', header)
        if self._heard('segmentation/confidence'):
            self._image('segmentation/confidence', np.rint(segmentation.confidence * 255), 'mono8', header)

    def _publish_labels(self, names: tuple[str, ...], header: Header) -> None:
        classes = [self._vision.VisionClass(class_id=index, class_name=name) for index, name in enumerate(names)]
        classes.append(self._vision.VisionClass(class_id=UNLABELLED, class_name='unlabelled'))
        message = self._vision.LabelInfo(header=header, class_map=classes)
        self._publishers['segmentation/label_info'].publish(message)
        self._labels = names
