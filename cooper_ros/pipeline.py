"""Frames in, maps and answers out: the newest frame, the worker and the model put together."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cooper_model import loading
from cooper_model.scene import describe_scene
from cooper_model.types import (
    MODES,
    Answer,
    AnswerReady,
    Cancelled,
    Event,
    Frame,
    ImageReady,
    Modality,
    Relation,
    SceneObject,
)
from cooper_ros.encodings import ConversionError
from cooper_ros.frames import FrameStore, NoFrame
from cooper_ros.parameters import MODALITIES, Parameters
from cooper_ros.publishers import Perceived
from cooper_ros.worker import Busy, Closed, InferenceWorker, Job, Stop

if TYPE_CHECKING:
    from cooper_model.config import CooperConfig
    from cooper_model.reasoner import Reasoner

CAPACITY = 8


class BadQuestion(ValueError):
    """The question cannot be asked; the text names what is wrong with it."""


class QueryTimeout(TimeoutError):
    """The parameter query_timeout was too short for a question."""


# What a request may meet in ordinary life. Everything else is a fault of the node, and is logged with its traceback.
EXPECTED = (BadQuestion, ConversionError, NoFrame, Busy, Closed, QueryTimeout, Cancelled)
_POLL_SECONDS = 0.05
# A camera that is a little early must not lose every other frame.
_EARLY = 0.1


@dataclass(frozen=True)
class Question:
    """One question about one frame.

    :param mode: empty stands for the parameter ``default_mode``
    :param live: the frame is the camera's, so that what is perceived in it is worth publishing
    """

    frame: Frame
    text: str
    choices: tuple[str, ...] = ()
    mode: str = ''
    live: bool = False


@dataclass(frozen=True)
class WorkCounts:
    """What the model has done since the node was configured."""

    perceived: int = 0
    answered: int = 0
    failed: int = 0
    last_error: str = ''
    perceive_seconds: float = 0.0
    answer_seconds: float = 0.0


@dataclass(frozen=True)
class _Last:
    """What was perceived last: when (monotonic [s]), and how many frames had come before it began."""

    perceived: Perceived
    finished: float
    received: int


class Pipeline:
    """Runs the model for the node: continuously on the newest frame, and on request.

    :param publish: takes each perceived frame, in the worker's thread
    :param wanted: which maps somebody listens to
    :param on_error: told of every failure of the continuous perception
    """

    def __init__(
        self,
        frames: FrameStore,
        parameters: Parameters,
        publish: Callable[[Perceived], None],
        wanted: Callable[[], frozenset[Modality]],
        on_error: Callable[[Exception], None],
    ) -> None:
        self.frames = frames
        self.enabled = True
        self.counts = WorkCounts()
        self._parameters = parameters
        self._publish = publish
        self._wanted = wanted
        self._on_error = on_error
        self._worker: InferenceWorker[Reasoner] | None = None
        self._config: CooperConfig | None = None
        self._due = 0.0
        self._last: _Last | None = None

    @property
    def worker(self) -> InferenceWorker[Reasoner] | None:
        """The thread that owns the model, None where none is loaded."""
        return self._worker

    def start(self) -> None:
        """Load the model and wait for it.

        :raises Exception: whatever loading raised
        """
        self.stop()
        self.counts = WorkCounts()
        worker = InferenceWorker(self._load, self._continuous, self._fail, CAPACITY)
        worker.ready.result()
        self._worker = worker

    def stop(self) -> None:
        """End the worker after the current model step and let go of the model."""
        worker, self._worker = self._worker, None
        self._last = None
        if worker is not None:
            worker.close()

    def _load(self) -> Reasoner:
        checkpoint, device, graphs = (self._parameters[name] or None for name in ('checkpoint', 'device', 'graphs'))
        reasoner = loading.load(checkpoint, self._parameters['backend'], device, graphs=graphs)
        self._config = reasoner.backend.config
        return reasoner

    def _apply_settings(self, reasoner: Reasoner) -> None:
        """Let parameters that may change between two jobs take effect; zero stands for the checkpoint's value."""
        names = ('num_timesteps', 'image_scale', 'text_scale')
        given = {name: self._parameters[f'sampler.{name}'] for name in names}
        reasoner.sampler = replace(self._config.sampler, **{name: value for name, value in given.items() if value})
        turns = self._parameters['max_turns'] or self._config.max_turns
        reasoner.backend.config = replace(self._config, max_turns=turns)

    # Continuous perception

    def image_arrived(self) -> None:
        """Perceive the newest frame if the rate allows it."""
        rate = self._parameters['perception_rate']
        if self._worker is None or not self.enabled or rate <= 0:
            return
        now = time.monotonic()
        if now < self._due - _EARLY / rate:
            return
        self._due = max(self._due + 1 / rate, now)
        self._worker.wake()

    def _continuous(self, reasoner: Reasoner, stop: Stop) -> None:
        wanted = self._wanted()
        modalities = tuple(name for name in self._parameters['modalities'] if name in wanted)
        if not modalities or not self.enabled:
            return
        frame = self.newest()
        self._publish(self._perceive(reasoner, frame, modalities, stop))

    def _fail(self, error: Exception) -> None:
        self._count_failure(error)
        self._on_error(error)

    def _count_failure(self, error: Exception) -> None:
        if not isinstance(error, EXPECTED):
            self.counts = replace(self.counts, failed=self.counts.failed + 1, last_error=repr(error))

    def _perceive(
        self, reasoner: Reasoner, frame: Frame, modalities: tuple[Modality, ...], stop: Stop
    ) -> Perceived:
        began, received = time.monotonic(), self.frames.counts.received
        self._apply_settings(reasoner)
        maps: dict[str, Any] = {}
        for event in reasoner.perceive(frame, modalities, seed=self._parameters['seed'], cancelled=stop):
            if isinstance(event, ImageReady):
                maps[event.modality] = event.image
        depth, segmentation = maps.get('depth'), maps.get('segmentation')
        objects, relations = self._large(*describe_scene(frame, depth, segmentation))
        seconds = time.monotonic() - began
        perceived = Perceived(frame, depth, segmentation, objects, relations, seconds)
        self._last = _Last(perceived, time.monotonic(), received)
        self.counts = replace(self.counts, perceived=self.counts.perceived + 1, perceive_seconds=seconds)
        return perceived

    def _large(
        self, objects: tuple[SceneObject, ...], relations: tuple[Relation, ...]
    ) -> tuple[tuple[SceneObject, ...], tuple[Relation, ...]]:
        """Leave out objects below min_object_area, and what is said of them."""
        least = self._parameters['min_object_area']
        large = {item.id for item in objects if item.area >= least}
        return (
            tuple(item for item in objects if item.id in large),
            tuple(each for each in relations if {each.subject_id, each.object_id} <= large),
        )

    # Requests

    def newest(self) -> Frame:
        """Return the newest frame, unless it is older than max_image_age; raises as ``FrameStore.newest``."""
        return self.frames.newest(self._parameters['max_image_age'])

    def ask(self, question: Question, on_event: Callable[[Event], None], stop: Stop) -> Answer:
        """Answer a question, waiting for its turn.

        :param on_event: takes each event, in the worker's thread
        :param stop: asked regularly; once it is true the work ends within one model step
        :raises BadQuestion: the model does not take the question
        :raises Cancelled: ``stop`` became true
        :raises Busy, Closed: the worker does not take the question
        :raises QueryTimeout: no answer within query_timeout
        """
        mode = question.mode or self._parameters['default_mode']
        if mode not in MODES:
            raise BadQuestion(f'mode {mode!r} is unknown; expected {", ".join(MODES)}, or nothing for the default')

        def work(reasoner: Reasoner, cancelled: Stop) -> Answer:
            began = time.monotonic()
            answer = self._answer(reasoner, replace(question, mode=mode), on_event, cancelled)
            seconds = time.monotonic() - began
            self.counts = replace(self.counts, answered=self.counts.answered + 1, answer_seconds=seconds)
            if question.live:
                self._publish_answer(question.frame, answer)
            return answer

        return self._finish(self._submit(work), stop)

    def _answer(
        self, reasoner: Reasoner, question: Question, on_event: Callable[[Event], None], stop: Stop
    ) -> Answer:
        self._apply_settings(reasoner)
        settings = {'mode': question.mode, 'choices': question.choices, 'seed': self._parameters['seed']}
        try:
            events = reasoner.ask(question.frame, question.text, **settings, cancelled=stop)
        except ValueError as error:
            raise BadQuestion(str(error)) from error
        answer = None
        for event in events:
            on_event(event)
            if isinstance(event, AnswerReady):
                answer = event.answer
        if answer is None:
            raise RuntimeError('the reasoner ended without an answer')
        objects, relations = self._large(answer.objects, answer.relations)
        return replace(answer, objects=objects, relations=relations)

    def _publish_answer(self, frame: Frame, answer: Answer) -> None:
        """Publish what was perceived for an answer, unless something newer was published already."""
        newer = self._last is not None and self._last.perceived.frame.stamp_ns > frame.stamp_ns
        if not newer and (answer.depth or answer.segmentation):
            self._publish(Perceived(frame, answer.depth, answer.segmentation, answer.objects, answer.relations))

    def perceived(self, stop: Stop) -> Perceived:
        """Return depth, segmentation and relations of the newest frame, made now unless there are fresh ones.

        :raises NoFrame, ConversionError: there is no frame to perceive
        :raises Cancelled, Busy, Closed, QueryTimeout: as in :meth:`ask`
        """
        last = self._last
        if last is not None and self._fresh(last):
            return last.perceived

        def work(reasoner: Reasoner, cancelled: Stop) -> Perceived:
            perceived = self._perceive(reasoner, self.newest(), MODALITIES, cancelled)
            self._publish(perceived)
            return perceived

        return self._finish(self._submit(work), stop)

    def _fresh(self, last: _Last) -> bool:
        """Whether no newer frame has come, or continuous perception takes it only later anyway."""
        age, oldest = self.frames.age(), self._parameters['max_image_age']
        if last.perceived.segmentation is None or last.perceived.depth is None:
            return False
        if age is None or 0 < oldest < age:
            return False
        rate = self._parameters['perception_rate']
        recent = self.enabled and rate > 0 and time.monotonic() - last.finished < 2 / rate
        return recent or last.received == self.frames.counts.received

    def _submit(self, work: Callable[[Reasoner, Stop], Any]) -> Job[Reasoner, Any]:
        if self._worker is None:
            raise Closed('no model is loaded; configure and activate the node')
        return self._worker.submit(work)

    def _finish(self, job: Job[Reasoner, Any], stop: Stop) -> Any:
        timeout = self._parameters['query_timeout']
        deadline = time.monotonic() + timeout
        while not concurrent.futures.wait([job.future], _POLL_SECONDS).done:
            if stop():
                job.cancel()
            elif time.monotonic() > deadline:
                job.cancel()
                raise QueryTimeout(
                    f'no answer within query_timeout {timeout:g} s; raise query_timeout, or make the model '
                    'faster (fewer sampler.num_timesteps, mode direct)'
                )
        try:
            return job.future.result()
        except concurrent.futures.CancelledError as error:
            raise Cancelled('cancelled before its turn') from error
        except Exception as error:
            self._count_failure(error)
            raise
