"""The run behind ``cooper demo``: a real node and a real camera in processes of their own, asked like by any robot."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooper_cli.demo_report import Asked, Report, check, silent_topics
from cooper_cli.viewing import VIEWER_MODULE
from cooper_model.types import MODES
from cooper_ros.client import ClientError, CooperClient, Question
from cooper_ros.processes import ProcessFailed, RosProcess
from cooper_ros.sources import SourceKind, image_files, kind_of
from cooper_ros.watcher import Watcher

if TYPE_CHECKING:
    from cooper_ros.bags import CameraTopics

START_SECONDS = 90.0
FIRST_IMAGE_SECONDS = 30.0
QUESTION_SECONDS = 40.0
OUTPUT_SECONDS = 15.0
LONGEST_RUN = 130.0
# Seconds after which the diagnostics of both processes have come once more.
SETTLE_SECONDS = 2.5
GENERAL_QUESTIONS = (
    'Which object is closest to the camera?',
    'How many objects are there?',
    'Which object is the largest?',
    'What is left of the middle of the picture?',
    'How far away is the closest object?',
    'Is there a table?',
)
USUAL_MODE = 'auto'
# How a robot asks, most of all; each other mode once, early on, to show that it works.
OPENING = tuple(chain.from_iterable((USUAL_MODE, mode) for mode in MODES if mode != USUAL_MODE))


@dataclass(frozen=True)
class DemoSettings:
    """What the user chose.

    :param camera: sim, or the path of a bag, a video, an image or a folder of images
    :param seconds: how long questions are asked after the first image, at least until each mode had its turn
    :param out: folder that exists, for logs and pictures
    :param model: parameters of the node that choose what computes
    :param world: what simulated scenes are drawn from
    :param recording: file that the live viewer saves what it shows to; empty for no viewer
    """

    camera: str
    seconds: float
    out: Path
    model: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    world: str = 'eval'
    recording: str = ''


@dataclass
class Demo:
    """One run. ``tell`` takes lines for people while it goes on."""

    settings: DemoSettings
    tell: Callable[[str], None]
    report: Report = field(init=False)
    namespace: str = field(init=False, default='')

    def run(self) -> Report:
        """Run to the end, whatever comes, and return what happened.

        :raises SourceError: the camera source does not exist or cannot be read
        """
        kind = kind_of(self.settings.camera)
        self.report = Report(self.settings.camera, kind)
        topics: CameraTopics | None = None
        if kind == 'bag':
            topics = _topics_of(self.settings.camera)
            self.report.recorded = topics.image.count
        self.namespace = _private_names()
        with ExitStack() as stack:
            try:
                self._run(stack, kind, topics)
            except (ProcessFailed, ClientError, TimeoutError) as error:
                self.report.problems.append(str(error))
        check(self.report)
        return self.report

    def _run(self, stack: ExitStack, kind: SourceKind, topics: CameraTopics | None) -> None:
        began = time.monotonic()
        compressed = topics is not None and topics.image.compressed
        with uninterrupted():
            client = stack.enter_context(CooperClient(namespace=self.namespace))
        viewer = self._start_viewer(stack, compressed)
        node = self._start(stack, 'cooper_ros.node', self._node_parameters(topics), 'node.log')
        camera = self._start(stack, 'cooper_ros.camera', self._camera_parameters(kind), 'camera.log')
        with uninterrupted():
            watcher = Watcher(client.node, self.namespace, compressed, self.settings.seconds / 6)
        self.tell(f'node {node.pid} and camera {camera.pid} started in ROS domain {os.environ["ROS_DOMAIN_ID"]}')

        def alive() -> None:
            for process in (node, camera, *viewer):
                process.require_alive()

        self._wait_until_active(client, watcher, node, alive)
        self.report.start_seconds = time.monotonic() - began
        self.tell(f'node active after {self.report.start_seconds:.1f} s')
        received = lambda: int(watcher.status('cooper: camera').get('received', 0))  # noqa: E731
        if not watcher.wait_for(lambda: watcher.newest_stamp() and received(), FIRST_IMAGE_SECONDS, alive):
            raise TimeoutError(
                f'the node received no camera image within {FIRST_IMAGE_SECONDS:g} s; the log of the camera:\n'
                f'{camera.tail()}'
            )
        self._ask(client, watcher, alive, began)
        self._read_relations(client)
        watcher.wait_for(lambda: not silent_topics(watcher.output_counts, kind), OUTPUT_SECONDS, alive)
        left = LONGEST_RUN - (time.monotonic() - began)
        if kind != 'sim' and not watcher.wait_for(lambda: _played(watcher), left, alive):
            self.tell('the recording is longer than the run')
        # Camera first: then every image that it published is accounted for by the node.
        self.report.camera_status = camera.stop()
        watcher.wait_for(lambda: _camera_state(watcher) == 'finished', SETTLE_SECONDS, node.require_alive)
        time.sleep(SETTLE_SECONDS)
        node.require_alive()
        self._account(watcher)
        self.report.node_status = node.stop()
        self.report.seconds = time.monotonic() - began

    def _start_viewer(self, stack: ExitStack, compressed: bool) -> list[RosProcess]:
        """Start the viewer where it is wanted; it outlives node and camera, so that it shows their end too."""
        if not self.settings.recording:
            return []
        parameters = {'save': self.settings.recording, 'compressed': compressed}
        return [self._start(stack, VIEWER_MODULE, parameters, 'viewer.log')]

    def _start(self, stack: ExitStack, module: str, parameters: Mapping[str, Any], log: str) -> RosProcess:
        with uninterrupted():
            return stack.enter_context(RosProcess(module, parameters, self.settings.out / log, self.namespace))

    def _node_parameters(self, topics: CameraTopics | None) -> dict[str, Any]:
        settings = self.settings
        compressed = topics is not None and topics.image.compressed
        measured = None if topics is None else topics.depth
        return {
            **settings.model,
            'seed': settings.seed,
            'image_transport': 'compressed' if compressed else 'raw',
            'depth_transport': 'compressedDepth' if measured is not None and measured.compressed else 'raw',
            # Every image is to be accounted for, on a machine that is busy with other things too.
            'image_reliability': 'reliable',
            'max_image_age': 30.0,
        }

    def _camera_parameters(self, kind: SourceKind) -> dict[str, Any]:
        settings = self.settings
        parameters: dict[str, Any] = {
            'source': settings.camera if kind == 'sim' else str(Path(settings.camera).resolve()),
            'seed': settings.seed,
            'scene_period': max(5.0, settings.seconds / 3),
            'distribution': settings.world,
            'wait_for_subscribers': 3 if settings.recording else 2,
            # The model is to show what it sees by itself.
            'publish_depth': kind == 'bag',
        }
        if kind == 'images':
            count = len(image_files(Path(settings.camera)))
            parameters['rate'] = min(10.0, max(0.5, count / settings.seconds))
        return parameters

    def _wait_until_active(
        self, client: CooperClient, watcher: Watcher, node: RosProcess, alive: Callable[[], None]
    ) -> None:
        def model() -> dict[str, str]:
            return watcher.status('cooper: model')

        end = time.monotonic() + START_SECONDS
        while not client.is_there() or client.state() != 'active':
            alive()
            if model().get('level') == '2':
                raise ProcessFailed(f'the node did not start: {model()["message"]}; its log:\n{node.tail()}')
            if time.monotonic() > end:
                raise TimeoutError(f'the node is not active after {START_SECONDS:g} s; its log:\n{node.tail()}')
            time.sleep(0.2)

    # Questions

    def _ask(self, client: CooperClient, watcher: Watcher, alive: Callable[[], None], began: float) -> None:
        """Ask in the usual mode and in each other one once, by service and by action, until the time is over."""
        general = cycle(GENERAL_QUESTIONS)
        first = time.monotonic()
        for turn, mode in enumerate(chain(OPENING, repeat(USUAL_MODE))):
            now = time.monotonic()
            if turn >= len(OPENING) and now - first >= self.settings.seconds:
                return
            if now - began > LONGEST_RUN:
                self.report.problems.append(f'stopped asking after {LONGEST_RUN:g} s')
                return
            alive()
            asked = self._choose(turn, watcher, mode, general)
            # Two turns each: the usual mode comes every other turn, and is to go both ways.
            asked.via = 'action' if (turn + 1) // 2 % 2 else 'service'
            self._ask_one(client, watcher, asked)
            self.report.asked.append(asked)
            self.tell(asked.line())
            # Questions go before perception: on a slow machine, one after the other would leave it no time.
            before = _perceived_messages(watcher)
            watcher.wait_for(lambda: _perceived_messages(watcher) > before, OUTPUT_SECONDS, alive)  # noqa: B023

    def _choose(self, turn: int, watcher: Watcher, mode: str, general: Iterator[str]) -> Asked:
        scene = watcher.truth_at(watcher.newest_stamp())
        if not scene or not scene['questions']:
            return Asked(Question(next(general), mode=mode))
        chosen = scene['questions'][turn % len(scene['questions'])]
        # The text names the choices already.
        return Asked(Question(chosen['text'], mode=mode), truth={**chosen, 'seed': scene['seed']})

    def _ask_one(self, client: CooperClient, watcher: Watcher, asked: Asked) -> None:
        try:
            if asked.via == 'action':
                asked.reply = client.ask(asked.question, QUESTION_SECONDS, asked.feedback.append)
            else:
                asked.reply = client.query(asked.question, QUESTION_SECONDS)
        except ClientError as error:
            asked.error = str(error)
            return
        asked.camera = watcher.camera_image(asked.reply.stamp_ns)
        scene = watcher.truth_at(asked.reply.stamp_ns)
        if asked.truth is not None and (scene is None or scene['seed'] != asked.truth['seed']):
            # The node took an image of the next scene, of which the answer need not be true.
            asked.truth = None

    def _read_relations(self, client: CooperClient) -> None:
        scene = client.relations(timeout=QUESTION_SECONDS)
        self.report.relations = len(scene.relations)
        self.report.objects = len(scene.objects)
        self.tell(f'get_relations: {len(scene.objects)} objects, {len(scene.relations)} relations')

    # The account

    def _account(self, watcher: Watcher) -> None:
        report = self.report
        camera, node = watcher.status('camera: source'), watcher.status('cooper: camera')
        model = watcher.status('cooper: model')
        report.published = int(camera.get('images published', 0))
        for name in ('received', 'used', 'dropped', 'undecodable'):
            setattr(report, name, int(node.get(name, 0)))
        report.perceived = int(model.get('perceived', 0))
        report.failed = int(model.get('failed', 0))
        report.outputs = watcher.output_counts
        report.perceived_headers = watcher.perceived_headers()
        report.foreign_headers = {str(header): sorted(names) for header, names in watcher.foreign_headers().items()}
        report.distinct_images = watcher.input_count
        report.pictures = watcher.pictures()


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold interrupts back until the end, so that no process is started and then not known of, and no ROS entity is
    left half made, which its node could not destroy."""
    held: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.signal(number, lambda number, _: held.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
    for number in held[:1]:
        signal.raise_signal(number)


def _topics_of(source: str) -> CameraTopics:
    """Return what a bag holds of its camera."""
    from cooper_ros.bags import CameraBag

    with CameraBag(source) as bag:
        return bag.topics


def _perceived_messages(watcher: Watcher) -> int:
    # Markers are published for answers too.
    return sum(count for name, count in watcher.output_counts.items() if name != 'markers')


def _played(watcher: Watcher) -> bool:
    return _camera_state(watcher) in ('holding the last image', 'finished')


def _camera_state(watcher: Watcher) -> str:
    return watcher.status('camera: source').get('state', '')


def _private_names() -> str:
    """Keep the demo to itself, unless the user has chosen a domain to be heard in; return the namespace."""
    if 'ROS_DOMAIN_ID' in os.environ:
        return ''
    os.environ['ROS_DOMAIN_ID'] = str(1 + os.getpid() % 100)
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    # There are only a hundred domains, so another run may have the same.
    return f'/demo_{os.getpid()}'
