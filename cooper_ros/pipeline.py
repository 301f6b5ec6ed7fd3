"""Frames in, maps and answers out: the newest frames, the worker and the model put together."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cooper_model.backends.connection import Server
from cooper_model.loading import Source
from cooper_model.types import Answer, Cancelled, Event, Modality
from cooper_ros.cameras import Camera, Cameras, UnknownCamera
from cooper_ros.encodings import ConversionError
from cooper_ros.frames import NoFrame
from cooper_ros.inference import BadQuestion, Inference, Perceived, Question, Settings, check_mode
from cooper_ros.parameters import MODALITIES, Parameters
from cooper_ros.turns import Turns
from cooper_ros.worker import Busy, Closed, InferenceWorker, Job, Stop

CAPACITY = 8
_POLL_SECONDS = 0.05
ResultT = TypeVar('ResultT')


class QueryTimeout(TimeoutError):
    """The parameter query_timeout was too short for a question."""


# What a request may meet in ordinary life. Everything else is a fault of the node, and is logged with its traceback.
EXPECTED = (BadQuestion, ConversionError, NoFrame, UnknownCamera, Busy, Closed, QueryTimeout, Cancelled)


@dataclass(frozen=True)
class WorkCounts:
    """What the model has done since the node was configured.

    :param perceive_parts: what the newest perceived frame took [s]: waiting, each map, publishing
    :param answer_parts: what the newest answer took [s], as in ``Answer.timings``
    """

    perceived: int = 0
    answered: int = 0
    failed: int = 0
    last_error: str = ''
    perceive_seconds: float = 0.0
    answer_seconds: float = 0.0
    perceive_parts: Mapping[str, float] = field(default_factory=dict)
    answer_parts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Last:
    """What was perceived last of a camera: when (monotonic [s]), and how many frames had come before it began."""

    perceived: Perceived
    finished: float
    received: int


class Pipeline:
    """Runs the model for the node: continuously on the newest frame of each camera in turn, and on request.

    :param on_error: told of every failure of the continuous perception
    """

    def __init__(
        self,
        cameras: Cameras,
        parameters: Parameters,
        on_error: Callable[[Exception], None],
    ) -> None:
        self.cameras = cameras
        self.enabled = True
        self.counts = WorkCounts()
        self._parameters = parameters
        self._on_error = on_error
        self._worker: InferenceWorker[Inference] | None = None
        self._turns = Turns()
        self._last: dict[str, _Last] = {}

    @property
    def worker(self) -> InferenceWorker[Inference] | None:
        """The thread that owns the model, None where none is loaded."""
        return self._worker

    @property
    def model(self) -> Inference | None:
        """The model, None where none is loaded. Its work belongs to the worker's thread."""
        return None if self._worker is None else self._worker.ready.result()

    def start(self) -> None:
        """Load the model and wait for it.

        :raises Exception: whatever loading raised
        """
        self.stop()
        self.counts, self._turns = WorkCounts(), Turns()
        parameters = self._parameters
        chosen = {name: parameters[name] or None for name in ('checkpoint', 'device', 'graphs', 'quantise')}
        source = Source(backend=parameters['backend'], dtype=parameters['dtype'], **chosen)
        address = parameters['server']
        server = Server(address, parameters['server_timeout']) if address else None
        worker = InferenceWorker(lambda: Inference(source, server), self._continuous, self._on_failure, CAPACITY)
        worker.ready.result()
        self._worker = worker

    def stop(self) -> None:
        """End the worker after the current model step and let go of the model."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.close()
        self._last = {}

    def _settings(self) -> Settings:
        return Settings(
            seed=self._parameters['seed'],
            sampler=self._parameters.sampler(),
            max_turns=self._parameters['max_turns'],
            min_object_area=self._parameters['min_object_area'],
        )

    # In the worker's thread

    def _continuous(self, model: Inference, stop: Stop) -> None:
        """Perceive the newest frame of the camera whose turn it is."""
        turns = self._turns
        try:
            with turns.turn() as name:
                if name is not None and self.enabled:
                    self._perceive_wanted(model, self.cameras[name], stop)
        finally:
            worker = self._worker
            if turns.waiting and worker is not None:
                worker.wake()

    def _perceive_wanted(self, model: Inference, camera: Camera, stop: Stop) -> None:
        wanted = camera.wanted()
        modalities = tuple(name for name in self._parameters['modalities'] if name in wanted)
        if modalities:
            self._perceive(model, camera, modalities, stop)

    def _perceive(
        self, model: Inference, camera: Camera, modalities: tuple[Modality, ...], stop: Stop
    ) -> Perceived:
        received = camera.frames.counts.received
        frame, waited = camera.newest(), camera.frames.age() or 0.0
        perceived = model.perceive(frame, modalities, self._settings(), stop)
        made = time.monotonic()
        self._last[camera.name] = _Last(perceived, made, received)
        count = self.counts.perceived + 1
        self.counts = replace(self.counts, perceived=count, perceive_seconds=perceived.seconds)
        camera.publish(perceived)
        parts = {'waiting': waited, **perceived.timings, 'publishing': time.monotonic() - made}
        self.counts = replace(self.counts, perceive_parts=parts)
        return perceived

    def _answer(self, model: Inference, question: Question, on_event: Callable[[Event], None], stop: Stop) -> Answer:
        began = time.monotonic()
        answer = model.ask(question, self._settings(), on_event, stop)
        seconds = time.monotonic() - began
        counts = self.counts
        self.counts = replace(
            counts, answered=counts.answered + 1, answer_seconds=seconds, answer_parts=answer.timings
        )
        last = self._last.get(question.camera)
        newer = last is not None and last.perceived.frame.stamp_ns > question.frame.stamp_ns
        if question.live and not newer and (answer.depth or answer.segmentation):
            least = self._parameters['min_object_area']
            perceived = Perceived(question.frame, answer.depth, answer.segmentation, least, seconds)
            try:
                self.cameras[question.camera].publish(perceived)
            except Exception as error:  # noqa: BLE001 - the answer gets out whatever becomes of its maps
                self._on_failure(error)
        return answer

    def _on_failure(self, error: Exception) -> None:
        self._count_failure(error)
        self._on_error(error)

    def _count_failure(self, error: Exception) -> None:
        if not isinstance(error, EXPECTED):
            self.counts = replace(self.counts, failed=self.counts.failed + 1, last_error=repr(error))

    # In other threads

    def image_arrived(self, camera: str) -> None:
        """Perceive the newest frame of a camera when its turn comes, if the rate allows it."""
        rate, worker = self._parameters['perception_rate'], self._worker
        if worker is None or not self.enabled or rate <= 0:
            return
        if self._turns.ask(camera, rate):
            worker.wake()

    def ask(self, question: Question, on_event: Callable[[Event], None], stop: Stop) -> Answer:
        """Answer a question, waiting for its turn. An empty mode stands for the parameter default_mode.

        :param on_event: takes each event, in the worker's thread
        :param stop: asked regularly; once it is true the work ends within one model step
        :raises BadQuestion: the model does not take the question
        :raises Cancelled: ``stop`` became true
        :raises Busy, Closed: the worker does not take the question
        :raises QueryTimeout: no answer within query_timeout
        """
        question = replace(question, mode=question.mode or self._parameters['default_mode'])
        check_mode(question.mode)
        return self._finish(lambda model, cancelled: self._answer(model, question, on_event, cancelled), stop)

    def perceived(self, camera: Camera, stop: Stop) -> Perceived:
        """Return depth, segmentation and relations of a camera's newest frame, made now unless there are fresh ones.

        :raises NoFrame, ConversionError: there is no frame to perceive
        :raises Cancelled, Busy, Closed, QueryTimeout: as in :meth:`ask`
        """
        last = self._last.get(camera.name)
        if last is not None and self._fresh(last, camera):
            return last.perceived
        return self._finish(lambda model, cancelled: self._perceive(model, camera, MODALITIES, cancelled), stop)

    def _fresh(self, last: _Last, camera: Camera) -> bool:
        """Whether no newer frame has come, or continuous perception takes it only later anyway."""
        age, oldest = camera.frames.age(), self._parameters['max_image_age']
        if last.perceived.segmentation is None or last.perceived.depth is None:
            return False
        if age is None or 0 < oldest < age:
            return False
        rate = self._parameters['perception_rate']
        recent = self.enabled and rate > 0 and time.monotonic() - last.finished < 2 / rate
        return recent or last.received == camera.frames.counts.received

    def _finish(self, work: Callable[[Inference, Stop], ResultT], stop: Stop) -> ResultT:
        """Have the worker do ``work`` and wait for it."""
        worker = self._worker
        if worker is None:
            raise Closed('no model is loaded; configure and activate the node')

        def counted(model: Inference, cancelled: Stop) -> ResultT:
            try:
                return work(model, cancelled)
            except Exception as error:
                self._count_failure(error)
                raise

        job = worker.submit(counted)
        timeout = self._parameters['query_timeout']
        _wait(job, stop, timeout)
        try:
            return job.future.result()
        except concurrent.futures.CancelledError as error:
            raise Cancelled('cancelled before its turn') from error


def _wait(job: Job[Any, Any], stop: Stop, timeout: float) -> None:
    """Wait until the job is done, and cancel it once ``stop()`` is true or ``timeout`` seconds are over."""
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
