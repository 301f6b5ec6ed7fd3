"""The thread that owns the model: order, priority, cancelling, surviving."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

pytest.importorskip('rclpy', reason='needs ROS 2')

from cooper_model.types import Cancelled  # noqa: E402
from cooper_ros.worker import Busy, Closed, InferenceWorker  # noqa: E402

PATIENCE = 20


class Bench:
    """A worker with a plain object as its model, and a record of what happened."""

    def __init__(self, capacity=8):
        self.events = []
        self.errors = []
        self.background = lambda model, stop: self.events.append('background')
        self.worker = InferenceWorker(
            lambda: 'model', lambda model, stop: self.background(model, stop), self.errors.append, capacity
        )
        self.worker.ready.result(PATIENCE)
        self.gate = threading.Event()
        self.entered = threading.Event()

    def occupy(self):
        """Keep the worker busy until the gate opens or it is asked to stop."""

        def work(model, stop):
            self.entered.set()
            while not self.gate.wait(0.01):
                if stop():
                    raise Cancelled
            return 'occupied'

        job = self.worker.submit(work)
        assert self.entered.wait(PATIENCE)
        return job


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.worker.close()


def test_jobs_run_in_order_on_the_model_in_one_thread(bench):
    jobs = [bench.worker.submit(lambda model, stop, i=i: (i, model, threading.get_ident())) for i in range(5)]
    results = [job.future.result(PATIENCE) for job in jobs]
    assert [(number, model) for number, model, _ in results] == [(i, 'model') for i in range(5)]
    assert len({thread for *_, thread in results}) == 1
    assert results[0][2] != threading.get_ident()


def test_a_full_queue_says_busy_and_has_room_again_later(bench):
    running = bench.occupy()
    waiting = [bench.worker.submit(lambda model, stop: None) for _ in range(7)]
    with pytest.raises(Busy, match='busy: 8 questions'):
        bench.worker.submit(lambda model, stop: None)
    assert bench.worker.waiting == 8
    waiting[3].cancel()
    replacement = bench.worker.submit(lambda model, stop: 'room')
    bench.gate.set()
    assert running.future.result(PATIENCE) == 'occupied'
    assert replacement.future.result(PATIENCE) == 'room'


def test_questions_come_before_waiting_background_work(bench):
    bench.occupy()
    bench.worker.wake()
    bench.worker.submit(lambda model, stop: bench.events.append('first'))
    last = bench.worker.submit(lambda model, stop: bench.events.append('second'))
    done = threading.Event()
    bench.background = lambda model, stop: (bench.events.append('background'), done.set())
    bench.gate.set()
    last.future.result(PATIENCE)
    assert done.wait(PATIENCE)
    assert bench.events == ['first', 'second', 'background']


def test_background_work_gives_way_and_is_taken_up_again(bench):
    started, finished = threading.Event(), threading.Event()
    calls = []

    def background(model, stop):
        calls.append(1)
        started.set()
        if len(calls) == 1:
            while not stop():
                threading.Event().wait(0.005)
            raise Cancelled
        finished.set()

    bench.background = background
    bench.worker.wake()
    assert started.wait(PATIENCE)
    assert bench.worker.submit(lambda model, stop: 'answer').future.result(PATIENCE) == 'answer'
    assert finished.wait(PATIENCE)
    assert bench.worker.preempted == 1
    assert bench.errors == []


def test_cancelling_ends_a_running_job_at_its_next_step(bench):
    job = bench.occupy()
    job.cancel()
    with pytest.raises(Cancelled):
        job.future.result(PATIENCE)


def test_cancelling_a_waiting_job_ends_it_at_once_and_it_never_runs(bench):
    bench.occupy()
    job = bench.worker.submit(lambda model, stop: bench.events.append('ran'))
    job.cancel()
    with pytest.raises(CancelledError):
        job.future.result(0)
    bench.gate.set()
    bench.worker.submit(lambda model, stop: None).future.result(PATIENCE)
    assert bench.events == []


def fail(model, stop):
    raise ZeroDivisionError('on purpose')


def test_the_thread_survives_what_jobs_and_background_raise(bench):
    with pytest.raises(ZeroDivisionError, match='on purpose') as caught:
        bench.worker.submit(fail).future.result(PATIENCE)
    assert any(entry.name == 'fail' for entry in caught.traceback)
    bench.background = fail
    bench.worker.wake()
    assert bench.worker.submit(lambda model, stop: 'alive').future.result(PATIENCE) == 'alive'
    while not bench.errors:
        threading.Event().wait(0.005)
    assert isinstance(bench.errors[0], ZeroDivisionError)
    assert bench.errors[0].__traceback__ is not None
    assert bench.worker.alive


def test_closing_stops_the_running_job_and_fails_the_waiting_ones():
    bench = Bench()
    running = bench.occupy()
    waiting = bench.worker.submit(lambda model, stop: None)
    bench.worker.close()
    for job in (running, waiting):
        with pytest.raises(Closed, match='unloaded'):
            job.future.result(0)
    with pytest.raises(Closed):
        bench.worker.submit(lambda model, stop: None)
    assert not bench.worker.alive


def test_a_model_that_cannot_be_loaded_is_reported():
    def load():
        raise FileNotFoundError('no such checkpoint')

    worker = InferenceWorker(load, lambda model, stop: None, lambda error: None)
    with pytest.raises(FileNotFoundError, match='no such checkpoint'):
        worker.ready.result(PATIENCE)
    with pytest.raises(Closed):
        worker.submit(lambda model, stop: None)
    worker.close()
