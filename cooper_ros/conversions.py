"""Between ROS messages and the model's types: images, cameras, stamps, objects, relations, answers."""

from __future__ import annotations

import array
import math
from typing import Any

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from sensor_msgs.msg import CameraInfo, Image, PointCloud2, PointField, RegionOfInterest
from std_msgs.msg import Header

from cooper_model.types import CameraIntrinsics, Evidence, Frame, Relation, SceneObject
from cooper_msgs.msg import Evidence as EvidenceMessage
from cooper_msgs.msg import Relation as RelationMessage
from cooper_msgs.msg import SceneGraph
from cooper_msgs.msg import SceneObject as SceneObjectMessage
from cooper_ros.encodings import colour_from_compressed, colour_from_image
from cooper_ros.readings import NANOSECONDS, stamp_to_ns

_DTYPES = {'rgb8': np.uint8, 'mono8': np.uint8, 'mono16': np.uint16, '16UC1': np.uint16, '32FC1': np.float32}
_FIELDS = ('x', 'y', 'z', 'rgb')


def stamp_from_ns(nanoseconds: int) -> Time:
    """Return nanoseconds as a message's time."""
    seconds, rest = divmod(nanoseconds, NANOSECONDS)
    return Time(sec=seconds, nanosec=rest)


def header_of(frame: Frame) -> Header:
    """Return the header that the frame came with."""
    return Header(stamp=stamp_from_ns(frame.stamp_ns), frame_id=frame.frame_id)


def _bytes_of(values: np.ndarray) -> array.array:
    # rclpy takes an array of the right type as it is; any other sequence it checks element by element.
    data = array.array('B')
    data.frombytes(np.ascontiguousarray(values).view(np.uint8).data)
    return data


def image_message(values: np.ndarray, encoding: str, header: Header) -> Image:
    """Return an image message of ``(height, width)`` or ``(height, width, 3)`` values.

    :param encoding: rgb8, mono8, mono16, 16UC1 or 32FC1; values are cast to its type
    """
    values = np.ascontiguousarray(values, np.dtype(_DTYPES[encoding]).newbyteorder('<'))
    message = Image(header=header, height=values.shape[0], width=values.shape[1], encoding=encoding)
    message.step = values.strides[0]
    message.data = _bytes_of(values)
    return message


def frame_from_message(
    message: Any, intrinsics: CameraIntrinsics | None = None, depth: np.ndarray | None = None
) -> Frame:
    """Return the frame of a ``sensor_msgs/Image`` or ``CompressedImage``.

    :param depth: ``(height, width)`` float32 metres registered to the image
    :raises ConversionError: the image cannot be decoded
    """
    decode = colour_from_image if isinstance(message, Image) else colour_from_compressed
    return Frame(decode(message), intrinsics, depth, stamp_to_ns(message.header.stamp), message.header.frame_id)


def camera_info_message(intrinsics: CameraIntrinsics, header: Header) -> CameraInfo:
    """Return the message of an undistorted camera."""
    fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
    message = CameraInfo(header=header, width=intrinsics.width, height=intrinsics.height)
    message.distortion_model = 'plumb_bob'
    message.d = [0.0] * 5
    message.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    message.r = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]
    message.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    return message


def transform_message(pose: np.ndarray, parent: str, header: Header) -> TransformStamped:
    """Return the transform of a frame, that of ``header``, in its parent.

    :param pose: ``(4, 4)`` parent from frame [m], a rotation and a translation
    """
    axis = cv2.Rodrigues(pose[:3, :3])[0].ravel()
    angle = float(np.linalg.norm(axis))
    x, y, z = (float(value) for value in axis * (math.sin(angle / 2) / max(angle, 1e-12)))
    across, along, above = (float(value) for value in pose[:3, 3])
    message = TransformStamped(header=Header(stamp=header.stamp, frame_id=parent), child_frame_id=header.frame_id)
    message.transform.translation = Vector3(x=across, y=along, z=above)
    message.transform.rotation = Quaternion(x=x, y=y, z=z, w=math.cos(angle / 2))
    return message


def point_cloud_message(points: np.ndarray, colours: np.ndarray, header: Header) -> PointCloud2:
    """Return an organised cloud with fields x, y, z and rgb, as RViz and PCL read it.

    :param points: ``(height, width, 3)`` metres in the optical frame, NaN where invalid
    :param colours: ``(height, width, 3)`` uint8 RGB
    """
    height, width = points.shape[:2]
    cloud = np.zeros((height, width, len(_FIELDS)), '<f4')
    cloud[:, :, :3] = points
    # A colour is the integer 0x00RRGGBB in the place of a float, so blue comes first.
    cloud.view(np.uint8)[:, :, 12:15] = colours[:, :, ::-1]
    message = PointCloud2(header=header, height=height, width=width, is_bigendian=False, is_dense=False)
    message.fields = [
        PointField(name=name, offset=4 * place, datatype=PointField.FLOAT32, count=1)
        for place, name in enumerate(_FIELDS)
    ]
    message.point_step = 4 * len(_FIELDS)
    message.row_step = message.point_step * width
    message.data = _bytes_of(cloud)
    return message


def object_message(item: SceneObject) -> SceneObjectMessage:
    """Return one object; lengths are NaN where it has no depth."""
    left, top, right, bottom = item.box
    unknown = (math.nan,) * 3
    x, y, z = (float(value) for value in item.center or unknown)
    dx, dy, dz = (float(value) for value in item.size or unknown)
    return SceneObjectMessage(
        id=item.id,
        name=item.name,
        confidence=float(item.confidence),
        box=RegionOfInterest(x_offset=left, y_offset=top, width=right - left, height=bottom - top),
        area=int(item.area),
        center=Point(x=x, y=y, z=z),
        size=Vector3(x=dx, y=dy, z=dz),
        depth=math.nan if item.depth is None else float(item.depth),
        metric=item.metric,
    )


def evidence_message(evidence: Evidence | None) -> EvidenceMessage:
    """Return what an object was measured from; without any, no pixels and a depth of NaN."""
    if evidence is None:
        return EvidenceMessage(depth=math.nan)
    return EvidenceMessage(
        x=evidence.pixel[0],
        y=evidence.pixel[1],
        pixels=evidence.pixels,
        depth=math.nan if evidence.depth is None else evidence.depth,
        measured=evidence.measured,
    )


def relation_message(relation: Relation) -> RelationMessage:
    """Return one relation and what it rests on."""
    of_subject, of_object = relation.evidence
    return RelationMessage(
        subject_id=relation.subject_id,
        subject=relation.subject,
        predicate=relation.predicate,
        object_id=relation.object_id,
        object=relation.object,
        distance=float(relation.distance),
        confidence=float(relation.confidence),
        subject_evidence=evidence_message(of_subject),
        object_evidence=evidence_message(of_object),
    )


def scene_message(objects: tuple[SceneObject, ...], relations: tuple[Relation, ...], header: Header) -> SceneGraph:
    """Return objects and relations of one frame."""
    return SceneGraph(
        header=header,
        objects=[object_message(item) for item in objects],
        relations=[relation_message(relation) for relation in relations],
    )
