"""Parameters of the node: one table with names, defaults, ranges and meanings; from it declaration and checks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from cooper_model import flow, loading
from cooper_model.types import MODES

BACKENDS = (loading.AUTO, *reversed(loading.BACKENDS), loading.REMOTE)
DTYPES = (loading.AUTO, 'float32', 'bfloat16')
METHODS = ('auto', *flow.METHODS)
MODALITIES = ('depth', 'segmentation')
TRANSPORTS = ('raw', 'compressed')
DEPTH_TRANSPORTS = ('raw', 'compressedDepth')
TRANSFORMS = ('/tf', '/tf_static')
RELIABILITIES = ('best_effort', 'reliable')


@dataclass(frozen=True)
class Spec:
    """One parameter.

    :param limits: least and greatest value of a number
    :param choices: values that a text, or each of a list of texts, may have
    :param excluded: numbers within the limits that cannot be used
    :param check: returns why a value cannot be taken, or an empty text
    :param fixed: can be changed only while the node is unconfigured, because it decides what is loaded or subscribed
    """

    name: str
    default: Any
    description: str
    limits: tuple[float, float] | None = None
    choices: tuple[str, ...] = ()
    excluded: tuple[int, ...] = ()
    check: Callable[[Any], str] | None = None
    fixed: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """Return what ``ros2 param describe`` shows."""
        descriptor = ParameterDescriptor(description=self.description)
        constraints = [f'one of: {", ".join(self.choices)}'] if self.choices else []
        if self.fixed:
            constraints.append('changeable only while the node is unconfigured')
        descriptor.additional_constraints = '; '.join(constraints)
        if self.limits and isinstance(self.default, float):
            low, high = self.limits
            descriptor.floating_point_range = [FloatingPointRange(from_value=low, to_value=high, step=0.0)]
        elif self.limits:
            low, high = (int(limit) for limit in self.limits)
            descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
        return descriptor

    def problem(self, value: Any) -> str:
        """Return why ``value`` cannot be taken, or an empty text. Ranges are checked by rclpy from the descriptor."""
        if value in self.excluded:
            return f'{self.name}: {value} cannot be used; expected {self.description}'
        if self.check is not None and (reason := self.check(value)):
            return f'{self.name}: {reason}'
        if not self.choices:
            return ''
        values = [value] if isinstance(value, str) else list(value)
        wrong = [each for each in values if each not in self.choices]
        return f'{self.name}: {wrong[0]!r} is unknown, expected {" | ".join(self.choices)}' if wrong else ''


def _camera_problem(names: Sequence[str]) -> str:
    """Return why cameras cannot be called this, or an empty text."""
    if list(names) == ['']:
        return ''
    for name in names:
        if not re.fullmatch(r'[A-Za-z](_?[A-Za-z0-9])*', name):
            return f'{name!r} is no name of a camera; expected letters, digits and single underscores, as in front_left'
        if list(names).count(name) > 1:
            return f'{name!r} stands there twice; name each camera once'
    return '' if names else "no camera is named; expected [''] for one without a name"


def _reuse_problem(change: float) -> str:
    """Return why velocities cannot be reused up to this change, or an empty text."""
    return '' if change == -1 or change >= 0 else f'{change:g} is no change; expected 0 or more, or -1'


SPECS = (
    Spec('checkpoint', '', 'folder of the checkpoint; empty = the built-in cooper-nano', fixed=True),
    Spec('backend', 'auto', 'what computes the model; auto = the best that is there', choices=BACKENDS, fixed=True),
    Spec('server', '', 'address of the remote backend, for example http://192.168.1.20:8000', fixed=True),
    Spec(
        'server_timeout',
        10.0,
        'longest silence of the server, then the local model answers [s]',
        (0.1, 3600.0),
        fixed=True,
    ),
    Spec('graphs', '', 'folder with exported graphs for onnx and tensorrt; empty = the cache', fixed=True),
    Spec('quantise', '', 'formats of weights for torch, for example int8 or int4; empty = as they are', fixed=True),
    Spec(
        'dtype',
        'auto',
        'number type of weights and arithmetic; auto = bfloat16 on a GPU, float32 on a CPU',
        choices=DTYPES,
        fixed=True,
    ),
    Spec('device', '', 'device of the backend, for example cpu or cuda:0; empty = the best that is there', fixed=True),
    Spec('autostart', True, 'configure and activate the node at its start', fixed=True),
    Spec('cameras', [''], "names of the cameras; [''] = one without a name", check=_camera_problem, fixed=True),
    Spec('perception_rate', 2.0, 'perceived frames a second of each camera [Hz]; 0 = only on demand', (0.0, 60.0)),
    Spec('modalities', list(MODALITIES), 'what is perceived continuously', choices=MODALITIES),
    Spec('default_mode', 'auto', 'how a question without a mode is answered', choices=MODES),
    Spec('seed', 0, 'seed of the noise that images are generated from', (0, 2**31 - 1)),
    Spec('image_transport', 'raw', 'which image topic to subscribe to', choices=TRANSPORTS, fixed=True),
    Spec('depth_transport', 'raw', 'which depth topic to subscribe to', choices=DEPTH_TRANSPORTS, fixed=True),
    Spec('image_reliability', 'best_effort', 'reliability asked of the camera', choices=RELIABILITIES, fixed=True),
    Spec(
        'sampler.num_timesteps',
        0,
        '2 or more points of the image sampler; 0 = of the checkpoint',
        (0, 1000),
        excluded=(1,),
    ),
    Spec('sampler.method', 'auto', 'how a step of the sampler is made; auto = of the checkpoint', choices=METHODS),
    Spec('sampler.shift', 0.0, 'how much of the time is spent near noise; 0 = of the checkpoint', (0.0, 100.0)),
    Spec(
        'sampler.reuse',
        -1.0,
        'change of the velocity up to which the last one is used again; 0 = never, -1 = of the checkpoint',
        (-1.0, 10.0),
        check=_reuse_problem,
    ),
    Spec(
        'sampler.guidance_period',
        0,
        'in every how many steps guidance is computed anew; 0 = of the checkpoint',
        (0, 1000),
    ),
    Spec('sampler.image_scale', 0.0, 'guidance by the camera image; 0 = of the checkpoint', (0.0, 20.0)),
    Spec('sampler.text_scale', 0.0, 'guidance by the text; 0 = of the checkpoint', (0.0, 20.0)),
    Spec('max_turns', 0, 'turns after which an answer is forced; 0 = of the checkpoint', (0, 16)),
    Spec('min_object_area', 64, 'least area of an object [px of the camera image]', (1, 1_000_000)),
    Spec('max_image_age', 5.0, 'oldest newest frame that a question is answered on [s]; 0 = any', (0.0, 86400.0)),
    Spec('query_timeout', 60.0, 'longest time for one question, waiting included [s]', (0.1, 86400.0)),
    Spec(
        'target_frame', '', "frame of points, markers and objects; empty = the camera's optical frame", fixed=True
    ),
    Spec('publish_points', True, 'publish ~/points where depth is metric'),
    Spec('publish_markers', True, 'publish ~/markers'),
    Spec('record', '', 'folder that questions are recorded into; empty = none'),
    Spec('record_rate', 0.0, 'frames recorded a second between questions [Hz]; 0 = none', (0.0, 60.0)),
    Spec('record_topics', list(TRANSFORMS), 'topics of other nodes that are recorded as they come'),
    Spec('record_file_size', 64, 'size at which the next bag begins [MB]', (1, 100_000)),
    Spec('record_max_size', 4096, 'size of all bags together; then the oldest go [MB]', (2, 100_000_000)),
    Spec('record_min_free', 256, 'space that recording leaves free on the disk [MB]; 0 = none', (0, 100_000_000)),
    Spec('diagnostics_period', 1.0, 'time between two messages on /diagnostics [s]', (0.1, 60.0)),
)
_BY_NAME = {spec.name: spec for spec in SPECS}
# Settings of the image sampler by their names in SamplerConfig; the default of each stands for the checkpoint's value.
SAMPLER = {spec.name.removeprefix('sampler.'): spec for spec in SPECS if spec.name.startswith('sampler.')}


class Parameters:
    """The declared parameters of a node. Values are read when they are used, so a change takes effect at once.

    :raises rclpy.exceptions.ParameterException: a value given at the start is of the wrong type or out of range
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self.configured = False
        # Before the declarations, so that values given at the start are checked as well.
        node.add_on_set_parameters_callback(self._check)
        for spec in SPECS:
            node.declare_parameter(spec.name, spec.default, spec.descriptor())

    def __getitem__(self, name: str) -> Any:
        """Return the value of a parameter of the table."""
        return self._node.get_parameter(name).value

    def sampler(self) -> dict[str, Any]:
        """Return the settings of the image sampler that are not the checkpoint's, by name."""
        given = {name: self[spec.name] for name, spec in SAMPLER.items()}
        return {name: value for name, value in given.items() if value != SAMPLER[name].default}

    def _check(self, changes: Sequence[Parameter]) -> SetParametersResult:
        for change in changes:
            spec = _BY_NAME.get(change.name)
            if spec is None:
                continue
            reason = spec.problem(change.value)
            if not reason and spec.fixed and self.configured:
                node = self._node.get_fully_qualified_name()
                reason = (
                    f'{spec.name} can be changed only while the node is unconfigured; '
                    f'run: ros2 lifecycle set {node} deactivate, then cleanup'
                )
            if reason:
                return SetParametersResult(successful=False, reason=reason)
        return SetParametersResult(successful=True)
