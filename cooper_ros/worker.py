"""The one thread that owns the model. Knows nothing of ROS.

Jobs (questions) run in the order in which they came. When there are none, the background work runs if it was asked for;
it gives way as soon as a job comes. Whatever a job raises goes to whoever waits for it, and the thread lives on.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any, Generic, TypeVar

from cooper_model.types import Cancelled

ModelT = TypeVar('ModelT')
ResultT = TypeVar('ResultT')
Stop = Callable[[], bool]

_CLOSED = 'the model was unloaded before the question was answered; configure and activate the node and ask again'


class Busy(RuntimeError):
    """Too many jobs are waiting already."""


class Closed(RuntimeError):
    """The worker has ended, or ends before the job's turn."""


class Job(Generic[ModelT, ResultT]):
    """One piece of work and its outcome.

    :ivar future: done when the job has finished, failed (with the exception that it raised), or was cancelled
    """

    def __init__(self, work: Callable[[ModelT, Stop], ResultT]) -> None:
        self.work = work
        self.future: Future[ResultT] = Future()
        self._cancel = threading.Event()

    def cancel(self) -> None:
        """Ask for the end: at once while the job waits, at the next model step while it runs."""
        self._cancel.set()
        self.future.cancel()

    @property
    def cancelled(self) -> bool:
        """Whether :meth:`cancel` was called."""
        return self._cancel.is_set()


class InferenceWorker(Generic[ModelT]):
    """A thread that loads a model and then runs jobs on it, one at a time.

    :param load: builds the model, in the thread
    :param background: work for when there are no jobs; called once for each :meth:`wake`. Raises ``Cancelled`` when
        it gave way to a job; it is then called again when the jobs are done
    :param on_error: told of every exception of the background work, with its traceback still attached
    :param capacity: jobs that may wait or run at a time
    """

    def __init__(
        self,
        load: Callable[[], ModelT],
        background: Callable[[ModelT, Stop], None],
        on_error: Callable[[Exception], None],
        capacity: int = 8,
    ) -> None:
        self.ready: Future[ModelT] = Future()
        self.preempted = 0
        self._load = load
        self._background = background
        self._on_error = on_error
        self._capacity = capacity
        self._changed = threading.Condition()
        self._jobs: deque[Job[ModelT, Any]] = deque()
        self._running: Job[ModelT, Any] | None = None
        self._wanted = False
        self._closing = False
        self._thread = threading.Thread(target=self._run, name='inference', daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that wait or run."""
        with self._changed:
            return self._count()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _count(self) -> int:
        return len(self._jobs) + (self._running is not None)

    def submit(self, work: Callable[[ModelT, Stop], ResultT]) -> Job[ModelT, ResultT]:
        """Queue ``work(model, stop)``; it must raise ``Cancelled`` soon after ``stop()`` becomes true.

        :raises Busy: the queue is full
        :raises Closed: the worker has ended
        """
        job: Job[ModelT, ResultT] = Job(work)
        with self._changed:
            if self._closing:
                raise Closed('the model is not loaded; configure and activate the node')
            self._jobs = deque(waiting for waiting in self._jobs if not waiting.cancelled)
            if self._count() >= self._capacity:
                raise Busy(f'busy: {self._count()} questions are waiting already; ask again later')
            self._jobs.append(job)
            self._changed.notify()
        return job

    def wake(self) -> None:
        """Run the background work once, as soon as there are no jobs."""
        with self._changed:
            self._wanted = True
            self._changed.notify()

    def close(self) -> None:
        """End the thread after the current model step; jobs that wait fail with ``Closed``."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _gives_way(self) -> bool:
        return self._closing or bool(self._jobs)

    def _next(self) -> Job[ModelT, Any] | None:
        """Wait for something to do; None stands for the background work."""
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._jobs or self._wanted)
            if self._closing:
                raise Closed(_CLOSED)
            if self._jobs:
                self._running = self._jobs.popleft()
                return self._running
            self._wanted = False
            return None

    def _run(self) -> None:
        try:
            model = self._load()
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the model
            with self._changed:
                self._closing = True
            self._fail_waiting(Closed(f'the model could not be loaded: {error}'))
            self.ready.set_exception(error)
            return
        self.ready.set_result(model)
        try:
            while True:
                job = self._next()
                if job is None:
                    self._run_background(model)
                else:
                    self._run_job(model, job)
        except Closed:
            pass
        finally:
            with self._changed:
                self._closing = True
            self._fail_waiting(Closed(_CLOSED))

    def _run_job(self, model: ModelT, job: Job[ModelT, Any]) -> None:
        try:
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(job.work(model, lambda: job.cancelled or self._closing))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the job
            ended = self._closing and not job.cancelled and isinstance(error, Cancelled)
            job.future.set_exception(Closed(_CLOSED) if ended else error)
        finally:
            with self._changed:
                self._running = None

    def _run_background(self, model: ModelT) -> None:
        try:
            self._background(model, self._gives_way)
        except Cancelled:
            self.preempted += 1
            self._wanted = True
        except Exception as error:  # noqa: BLE001 - reported, and the thread lives on
            self._on_error(error)

    def _fail_waiting(self, reason: Closed) -> None:
        with self._changed:
            for job in self._jobs:
                try:
                    job.future.set_exception(reason)
                except InvalidStateError:
                    continue  # cancelled meanwhile
            self._jobs.clear()
