"""Topics of other nodes that are recorded as they come, such as TF and masks of a robot's own segmenter."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import Any

from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy

from cooper_ros.recording.recorder import Recorder

LOOK_SECONDS = 1.0
_DEPTH = 100


class OtherTopics:
    """Subscribes to the topics of the parameter ``record_topics`` while recording is on, as soon as they appear."""

    def __init__(self, node: Node, recorder: Recorder, settings: Any) -> None:
        self._node = node
        self._recorder = recorder
        self._settings = settings
        self._subscriptions: dict[str, Any] = {}
        self._skipped: dict[str, str] = {}
        # A steady clock: simulated time may stand still.
        self._group = MutuallyExclusiveCallbackGroup()
        clock = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = node.create_timer(LOOK_SECONDS, self._look, callback_group=self._group, clock=clock)

    def _look(self) -> None:
        wanted = {self._node.resolve_topic_name(name) for name in self._settings['record_topics'] if name}
        if not self._settings['record']:
            wanted = set()
        for topic in [topic for topic in self._subscriptions if topic not in wanted]:
            self._node.destroy_subscription(self._subscriptions.pop(topic))
        for topic in sorted(wanted - set(self._subscriptions)):
            self._subscribe(topic)
        self._recorder.skip('; '.join(f'{topic}: {reason}' for topic, reason in sorted(self._skipped.items())))

    def _subscribe(self, topic: str) -> None:
        publishers = self._node.get_publishers_info_by_topic(topic)
        if not publishers:
            return  # nobody speaks yet
        kind = publishers[0].topic_type
        try:
            package, folder, name = kind.split('/')
            message_type = getattr(import_module(f'{package}.{folder}'), name)
        except (ImportError, AttributeError) as error:
            self._skipped[topic] = f'{kind} is not installed here ({error})'
            return
        self._skipped.pop(topic, None)
        qualities = [each.qos_profile for each in publishers]
        latched = all(each.durability == DurabilityPolicy.TRANSIENT_LOCAL for each in qualities)
        reliable = all(each.reliability == ReliabilityPolicy.RELIABLE for each in qualities)
        quality = QoSProfile(
            depth=_DEPTH,
            durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
            reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        )
        take = partial(self._take, topic, kind, latched)
        self._subscriptions[topic] = self._node.create_subscription(
            message_type, topic, take, quality, callback_group=self._group, raw=True
        )

    def _take(self, topic: str, kind: str, latched: bool, data: bytes) -> None:
        self._recorder.add_raw(topic, kind, data, latched=latched)
