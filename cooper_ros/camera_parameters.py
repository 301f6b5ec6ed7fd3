"""Parameters of the camera process: one record that is their names, defaults, ranges and meanings."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from rclpy.exceptions import InvalidParameterValueException
from rclpy.node import Node

from cooper_ros.parameters import RELIABILITIES, Spec


def _parameter(default: Any, description: str, **constraints: Any) -> Any:
    return field(default=default, metadata={'description': description, **constraints})


@dataclass(frozen=True)
class CameraParameters:
    """What the camera process was told; each field is a parameter of the same name, read once at the start."""

    source: str = _parameter('sim', 'sim, or the path of a bag, a video, an image or a folder of images')
    rate: float = _parameter(10.0, 'images a second of the simulation and of a folder [Hz]', limits=(0.1, 120.0))
    speed: float = _parameter(1.0, 'factor on the recorded pace of bags and videos', limits=(0.01, 100.0))
    loop: bool = _parameter(False, 'start again at the end of a bag, video or folder')
    hold_last: bool = _parameter(True, 'go on publishing the last image at the end')
    wait_for_subscribers: int = _parameter(0, 'start when as many subscribe to the image topic', limits=(0, 100))
    frame_id: str = _parameter('camera_optical_frame', 'optical frame of images that bring none')
    vertical_fov: float = _parameter(
        0.0, 'of the camera of a video or folder [deg]; 0 = unknown, no camera_info', limits=(0.0, 170.0)
    )
    publish_depth: bool = _parameter(True, 'publish registered depth where the source has it')
    reliability: str = _parameter('reliable', 'reliability offered to subscribers', choices=RELIABILITIES)
    width: int = _parameter(640, 'width of simulated images [px]', limits=(16, 4096))
    height: int = _parameter(480, 'height of simulated images [px]', limits=(16, 4096))
    seed: int = _parameter(0, 'of the first simulated scene', limits=(0, 2**32 - 1))
    distribution: str = _parameter('eval', 'what simulated scenes are drawn from: eval, train or warehouse')
    scene_period: float = _parameter(5.0, 'time until the next simulated scene [s]', limits=(0.1, 3600.0))
    hold: bool = _parameter(False, 'stay with the first simulated scene')
    questions: int = _parameter(12, 'questions with true answers on ~/truth for each simulated scene', limits=(0, 100))
    image_topic: str = _parameter('', 'image topic of a bag; empty = found by content')
    camera_info_topic: str = _parameter('', 'CameraInfo topic of a bag; empty = found by content')
    depth_topic: str = _parameter('', 'registered depth topic of a bag; empty = found by content')


def declare(node: Node) -> CameraParameters:
    """Declare all parameters on ``node`` and return their values.

    :raises rclpy.exceptions.InvalidParameterValueException: a value is outside its range or not among the choices
    :raises rclpy.exceptions.InvalidParameterTypeException: a value is of another type
    """
    values: dict[str, Any] = {}
    for each in fields(CameraParameters):
        spec = Spec(each.name, each.default, **each.metadata)
        descriptor = spec.descriptor()
        descriptor.read_only = True
        value = node.declare_parameter(each.name, each.default, descriptor).value
        if problem := spec.problem(value):
            raise InvalidParameterValueException(each.name, value, problem)
        values[each.name] = value
    return CameraParameters(**values)
