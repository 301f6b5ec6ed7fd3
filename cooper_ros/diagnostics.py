"""What ``/diagnostics`` says about the node, its cameras, the model and the recording."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile

from cooper_ros.cameras import Camera
from cooper_ros.frames import FrameCounts
from cooper_ros.parameters import Parameters
from cooper_ros.pipeline import Pipeline
from cooper_ros.readings import NANOSECONDS
from cooper_ros.recording.recorder import RecordingState
from cooper_ros.usage import memory

_PATIENCE_SECONDS = 3.0
_REMINDER_SECONDS = 30.0
# Stamps that differ more than this from the clock of this node come from another clock [s]. Those of a recording lie
# behind it, by an hour or more, and in this century: a clock that was never set, or a simulation's, begins with 0.
_CLOCKS_APART, _RECORDED, _THIS_CENTURY = 2.0, 3600.0, 978_307_200.0


@dataclass(frozen=True)
class _Before:
    """A camera at the last message: its counts, and for how long it has been silent [s]."""

    counts: FrameCounts = FrameCounts()
    silent: float = 0.0


class Diagnostics:
    """Publishes statuses in every lifecycle state: *node*, *model*, *recording*, and *camera* with the name of each.

    :ivar problem: why the node could not be configured; empty where it could

    :param misplaced: why geometry is not in the frame wanted; empty where it is
    """

    def __init__(
        self,
        node: LifecycleNode,
        parameters: Parameters,
        pipeline: Pipeline,
        active: Callable[[], bool],
        recording: Callable[[], RecordingState],
        misplaced: Callable[[], str],
    ) -> None:
        self.problem = ''
        self._node = node
        self._parameters = parameters
        self._pipeline = pipeline
        self._active = active
        self._recording_state = recording
        self._misplaced = misplaced
        self._dropped = 0
        self._failed = 0
        self._before: dict[str, _Before] = {}
        self._perceived = 0
        self._publisher = node.create_publisher(DiagnosticArray, '/diagnostics', QoSProfile(depth=10))
        self._period = parameters['diagnostics_period']
        # A steady clock: simulated time may stand still, and that is worth telling.
        group, clock = MutuallyExclusiveCallbackGroup(), Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(self._period, self._publish, callback_group=group, clock=clock)

    def _publish(self) -> None:
        message = DiagnosticArray()
        message.header.stamp = self._node.get_clock().now().to_msg()
        cameras = map(self._camera, self._pipeline.cameras)
        message.status = [self._this_node(), *cameras, self._model(), self._recording()]
        self._publisher.publish(message)
        if self._period != self._parameters['diagnostics_period']:
            self._period = self._parameters['diagnostics_period']
            self._timer.timer_period_ns = round(self._period * 1e9)

    def _status(self, part: str, level: bytes, text: str, values: Mapping[str, Any]) -> DiagnosticStatus:
        name = self._node.get_fully_qualified_name().lstrip('/')
        pairs = [KeyValue(key=key, value=str(value)) for key, value in values.items()]
        hardware = self._parameters['checkpoint'] or 'cooper-nano'
        return DiagnosticStatus(level=level, name=f'{name}: {part}', message=text, hardware_id=hardware, values=pairs)

    def _this_node(self) -> DiagnosticStatus:
        own = (self._node.get_name(), self._node.get_namespace())
        namesakes = self._node.get_node_names_and_namespaces().count(own) - 1
        level, text = DiagnosticStatus.OK, 'active' if self._active() else 'not active'
        if namesakes > 0:
            full = self._node.get_fully_qualified_name()
            level, text = DiagnosticStatus.WARN, (
                f'another node is called {full}, so requests reach one or the other; end it, or start one of the two '
                'with -r __node:=NAME or -r __ns:=/ROBOT'
            )
            self._node.get_logger().warning(text, throttle_duration_sec=_REMINDER_SECONDS)
        elif self._misplaced():
            level, text = DiagnosticStatus.WARN, self._misplaced()
        return self._status('node', level, text, {'others of this name': namesakes, **memory()})

    def _camera(self, camera: Camera) -> DiagnosticStatus:
        frames = camera.frames
        counts, age = frames.counts, frames.age()
        before = self._before.get(camera.name, _Before())
        oldest = self._parameters['max_image_age']
        now = self._node.get_clock().now().nanoseconds
        delay = frames.delay(now)
        level, text = _of_clocks(delay or 0.0, now / NANOSECONDS)
        if not self._active():
            level, text = DiagnosticStatus.STALE, 'the node is not active'
        elif age is None:
            level, text = DiagnosticStatus.STALE, camera.silence()
        elif counts.undecodable > before.counts.undecodable:
            level, text = DiagnosticStatus.ERROR, frames.last_error
        elif 0 < oldest < age:
            level, text = DiagnosticStatus.STALE, f'no image for {age:.1f} s; check the camera'
        elif frames.companions.camera_info is None:
            level, text = DiagnosticStatus.WARN, 'no camera_info, so objects have no metres; remap camera_info'
        elif frames.companions.warnings:
            level, text = DiagnosticStatus.WARN, '; '.join(frames.companions.warnings)
        silent = before.silent + self._period if level == DiagnosticStatus.STALE and self._active() else 0.0
        self._before[camera.name] = _Before(counts, silent)
        if silent > _PATIENCE_SECONDS:
            self._node.get_logger().warning(text, throttle_duration_sec=_REMINDER_SECONDS)
        values = {
            'received': counts.received,
            'used': counts.used,
            'dropped': counts.dropped,
            'undecodable': counts.undecodable,
            'lost in transport': counts.lost,
            'rate [Hz]': f'{(counts.received - before.counts.received) / self._period:.2f}',
            'age of newest [s]': '' if age is None else f'{age:.3f}',
            'from stamp to arrival [s]': '' if delay is None else f'{delay:.3f}',
        }
        return self._status(f'camera {camera.name}'.rstrip(), level, text, values)

    def _model(self) -> DiagnosticStatus:
        worker, model, counts = self._pipeline.worker, self._pipeline.model, self._pipeline.counts
        level, text = DiagnosticStatus.OK, 'the model is ready'
        if self.problem:
            level, text = DiagnosticStatus.ERROR, self.problem
        elif worker is None:
            level, text = DiagnosticStatus.STALE, 'no model is loaded; configure the node'
        elif not worker.alive:
            level, text = DiagnosticStatus.ERROR, 'the inference thread has ended; clean up and configure the node'
        elif counts.failed > self._failed:
            level, text = DiagnosticStatus.ERROR, f'failed: {counts.last_error}'
        elif model is not None and model.trouble:
            level, text = DiagnosticStatus.WARN, f'{model.backend} serves: {model.trouble}'
        self._failed = counts.failed
        rate = max(0, counts.perceived - self._perceived) / self._period
        self._perceived = counts.perceived
        values = {
            'backend': model.backend if model else '',
            'wanted backend': self._parameters['backend'],
            'perception': 'enabled' if self._pipeline.enabled else 'disabled',
            'perceived': counts.perceived,
            'perception rate [Hz]': f'{rate:.2f}',
            'preempted': worker.preempted if worker else 0,
            'answered': counts.answered,
            'failed': counts.failed,
            'last error': counts.last_error,
            'waiting questions': worker.waiting if worker else 0,
            'last perception [s]': f'{counts.perceive_seconds:.3f}',
            **{f'last perception: {part} [s]': f'{value:.3f}' for part, value in counts.perceive_parts.items()},
            'last answer [s]': f'{counts.answer_seconds:.3f}',
            **{f'last answer: {part} [s]': f'{value:.3f}' for part, value in counts.answer_parts.items()},
        }
        return self._status('model', level, text, values)

    def _recording(self) -> DiagnosticStatus:
        state = self._recording_state()
        level, text = DiagnosticStatus.OK, f'recording into {state.bag}' if state.bag else 'not recording'
        if state.problem:
            level, text = DiagnosticStatus.ERROR, f'recording stopped: {state.problem}'
            self._node.get_logger().error(text, throttle_duration_sec=_REMINDER_SECONDS)
        elif state.dropped > self._dropped:
            level, text = DiagnosticStatus.WARN, 'the disk is too slow for what is recorded; lower record_rate'
        elif state.skipped:
            level, text = DiagnosticStatus.WARN, f'not recorded: {state.skipped}'
        self._dropped = state.dropped
        return self._status('recording', level, text, vars(state))


def _of_clocks(delay: float, now: float) -> tuple[bytes, str]:
    """Return level and text of a camera whose images arrive.

    :param delay: from stamp to arrival [s]
    :param now: on the clock of this node [s]
    """
    if abs(delay) <= _CLOCKS_APART:
        return DiagnosticStatus.OK, 'images arrive'
    side = 'after' if delay > 0 else 'before'
    apart = f'images arrive {abs(delay):.1f} s {side} their stamps by the clock of this node'
    if delay >= _RECORDED and now - delay >= _THIS_CENTURY:
        return DiagnosticStatus.OK, f'{apart}, as those of a recording do; if it is none, set the clock of the camera'
    return DiagnosticStatus.WARN, (
        f'{apart}; synchronise the clocks of the machines (chrony), or set use_sim_time with a simulation'
    )
