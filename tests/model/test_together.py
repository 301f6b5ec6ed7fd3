"""Several questions at once, whose steps are computed as one: the same answers as one after the other."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from cooper_model.backends.base import Backend
from cooper_model.backends.remote import RemoteReasoner
from cooper_model.backends.together import Table
from cooper_model.backends.torch import TorchBackend
from cooper_model.checkpoint import load_model
from cooper_model.prompts import Prompts
from cooper_model.reasoner import Reasoner
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import MODES, AnswerReady, Cancelled, Frame, ImageReady, TextDelta
from tests.random_checkpoint import write_random_checkpoint
from tests.serving import Served

RANDOM = np.random.default_rng(3)
FRAMES = [Frame(RANDOM.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(3)]
QUESTIONS = ('Which is closer, the ball or the box?', 'How many balls are there?', 'Is there a box, or is it a ball?')
ASKED = [(mode, n) for mode in MODES for n in range(2)]
SAMPLER = {'num_timesteps': 4, 'text_scale': 2.0, 'image_scale': 1.5}


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='module')
def backend(checkpoint):
    # In double precision no choice between two tokens hangs on what else is in the batch.
    return TorchBackend(*load_model(checkpoint, 'cpu', torch.float64))


def reasoners(backend, checkpoint, count):
    tokenizer, prompts = Tokenizer.load(checkpoint, backend.config.tokens), Prompts.load(checkpoint)
    found = [Reasoner(seat, tokenizer, prompts) for seat in backend.seats(count)]
    for each in found:
        each.adjust(SAMPLER)
    return found


def ask(reasoner, mode, n):
    with reasoner.backend.at_work():
        events = list(reasoner.ask(FRAMES[n], QUESTIONS[n], mode=mode, seed=n))
    text = ''.join(event.text for event in events if isinstance(event, TextDelta))
    return text, [event.picture for event in events if isinstance(event, ImageReady)], events[-1].answer


def test_questions_at_once_get_the_answers_of_one_after_the_other(backend, checkpoint):
    (alone,) = reasoners(backend, checkpoint, 1)
    assert alone.backend is backend
    seats = reasoners(backend, checkpoint, len(ASKED))
    with ThreadPoolExecutor(len(ASKED)) as threads:
        found = list(threads.map(lambda seat, asked: ask(seat, *asked), seats, ASKED))
    for asked, (text, pictures, answer) in zip(ASKED, found, strict=True):
        expected, drawn, reply = ask(alone, *asked)
        assert text == expected, asked
        assert (answer.text, answer.thoughts, len(answer.objects)) == (reply.text, reply.thoughts, len(reply.objects))
        assert answer.confidence == pytest.approx(reply.confidence, rel=1e-6)
        for picture, other in zip(pictures, drawn, strict=True):
            np.testing.assert_allclose(picture, other, atol=1e-6)
    sizes = seats[0].backend._steps.table.sizes
    assert max(sizes) > len(ASKED) // 2, sizes


def test_one_alone_at_the_table_does_not_wait(backend, checkpoint):
    table = Table(patience=60.0)
    with table.at_work():
        assert table.compute('double', lambda _, x: (2 * x,), (), (torch.ones(2, 1),))[0].tolist() == [[2], [2]]
    assert table.sizes == {1: 1}


def test_rows_of_one_kind_and_shape_are_joined_and_given_back():
    table, calls = Table(patience=60.0), []

    def work(contexts, x):
        calls.append((list(contexts), tuple(x.shape)))
        return x + 1, x * 2

    def wish(n):
        rows = torch.full((n + 1, 3 if n < 2 else 4), float(n))
        with table.at_work():
            ready.wait()
            return table.compute('kind', work, [f'context {n}'] * (n + 1), (rows,))

    ready = threading.Barrier(3)
    with ThreadPoolExecutor(3) as threads:
        found = list(threads.map(wish, range(3)))
    for n, (more, twice) in enumerate(found):
        assert more.shape == twice.shape == (n + 1, 3 if n < 2 else 4)
        assert (more == n + 1).all() and (twice == 2 * n).all()
    assert sorted(shape for _, shape in calls) == [(3, 3), (3, 4)]
    assert sorted(len(contexts) for contexts, _ in calls) == [3, 3]


def test_an_error_reaches_everyone_whose_rows_it_had_and_the_table_goes_on():
    table = Table(patience=60.0)

    def work(_, x):
        raise RuntimeError('out of memory')

    def wish(_):
        with table.at_work():
            ready.wait()
            with pytest.raises(RuntimeError, match='out of memory'):
                table.compute('kind', work, (), (torch.ones(1),))

    ready = threading.Barrier(2)
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(wish, range(2)))
    assert table.sizes == {2: 1}
    assert table.compute('kind', lambda _, x: (x,), (), (torch.ones(1),))[0].item() == 1


def test_a_cancelled_question_leaves_the_others_alone(backend, checkpoint):
    seats = reasoners(backend, checkpoint, 2)
    heard = threading.Event()

    def cancelled():
        with pytest.raises(Cancelled), seats[0].backend.at_work():
            for _ in seats[0].perceive(FRAMES[0], cancelled=heard.is_set):
                heard.set()

    with ThreadPoolExecutor(2) as threads:
        stopped = threads.submit(cancelled)
        assert isinstance(ask(seats[1], 'perception', 1)[2].text, str)
        stopped.result()


def test_an_engine_carries_out_as_many_tasks_at_once_as_it_has_reasoners(backend, checkpoint):
    seats = reasoners(backend, checkpoint, 2)
    with Served(*seats) as server, ThreadPoolExecutor(3) as threads:
        said = list(threads.map(lambda n: _over_http(server, n), range(3)))
    (alone,) = reasoners(backend, checkpoint, 1)
    assert said == [ask(alone, 'perception', n)[2].text for n in range(3)]
    assert seats[0].backend._steps.table.sizes[2] > 0


def _over_http(server, n):
    remote = RemoteReasoner(server.address())
    remote.adjust(SAMPLER)
    events = list(remote.ask(FRAMES[n], QUESTIONS[n], mode='perception', seed=n))
    assert isinstance(events[-1], AnswerReady)
    return events[-1].answer.text


def test_other_backends_say_that_they_compute_one_at_a_time():
    class Other(Backend):
        name = 'onnx'

    Other.__abstractmethods__ = frozenset()
    assert len(Other().seats(1)) == 1
    with pytest.raises(ValueError, match='onnx backend computes one question at a time, not 2; use backend torch'):
        Other().seats(2)
