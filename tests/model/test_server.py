"""``cooper serve`` with two replicas on loopback, two questions at once each: equal answers, a killed replica, replicas
that stop and go on."""

from __future__ import annotations

import concurrent.futures
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

if importlib.util.find_spec('ray') is None:
    pytest.skip('needs Ray: the extra fleet', allow_module_level=True)

from cooper_model import loading
from cooper_model.backends.connection import Server, ServerFailed, get
from cooper_model.backends.remote import RemoteReasoner
from cooper_model.fallback import Fallback
from cooper_model.types import AnswerReady, CameraIntrinsics, Frame, ImageReady
from tests.random_checkpoint import write_random_checkpoint

START_SECONDS = 600.0  # on a machine that does other things too
STARTS = 5
TOO_SLOW = 'The current node timed out during startup'
FRAME = Frame(
    np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8), CameraIntrinsics(70, 70, 40, 30, 80, 60)
)
QUESTION = 'Which is closer, the ball or the box?'


def children(parent):
    """Return the process ids below a process, by command line."""
    found, parents = {}, {}
    for path in Path('/proc').glob('[0-9]*'):
        try:
            stat = (path / 'stat').read_text()
            parents[int(path.name)] = int(stat.rpartition(')')[2].split()[1])
            found[int(path.name)] = (path / 'cmdline').read_bytes().replace(b'\0', b' ').decode().strip()
        except (FileNotFoundError, ProcessLookupError):
            continue

    def below(pid):
        while pid in parents:
            pid = parents[pid]
            if pid == parent:
                return True
        return False

    return {pid: line for pid, line in found.items() if below(pid)}


class ServerProcess:
    """``cooper serve`` as its user starts it."""

    def __init__(self, checkpoint, log):
        with socket.create_server(('127.0.0.1', 0)) as listener:
            self.port = listener.getsockname()[1]
        command = [sys.executable, '-m', 'cooper_cli.main', 'serve', '--port', str(self.port)]
        command += ['--replicas', '2', '--batch', '2']
        command += ['--checkpoint', str(checkpoint), '--backend', 'torch', '--device', 'cpu', '--object-store', '100']
        self._log = log
        for _ in range(STARTS):
            with log.open('wb') as file:
                self._process = subprocess.Popen(command, stdout=file, stderr=file)
            if self._serves():
                return
        pytest.fail(f'Ray gave up {STARTS} times: {log.read_text()}')

    def _serves(self):
        """Wait for the server; False where Ray's agent took longer than 15 s to start, which Ray lets nobody change."""
        try:
            self.wait(lambda: b'serving' in self._log.read_bytes(), 'start of the server', START_SECONDS)
        except AssertionError as error:
            if TOO_SLOW not in str(error):
                raise
            return False
        return True

    def wait(self, ready, what, seconds=120.0):
        deadline = time.monotonic() + seconds
        while not ready():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < deadline, f'no {what} within {seconds} s\n{self._log.read_text()}'
            time.sleep(0.1)

    def address(self, silence=60.0):
        return Server(f'http://127.0.0.1:{self.port}', silence, connect=30.0)

    def replicas(self):
        """Return the process ids of the replicas."""
        below = children(self._process.pid)
        return sorted(pid for pid, line in below.items() if line.startswith('ray::ServeReplica:cooper:Replica'))

    def ready(self):
        """Return how many replicas the server counts."""
        return get(self.address(), '/health')[1]['replicas']

    def stop(self):
        mine = [self._process.pid, *children(self._process.pid)]
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(180)
        deadline = time.monotonic() + 120
        while (left := [pid for pid in mine if Path(f'/proc/{pid}').exists()]) and time.monotonic() < deadline:
            time.sleep(0.1)
        return status, left


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='module')
def local(checkpoint):
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as each replica has, since their number changes the last bits
    yield loading.load(checkpoint, 'torch', 'cpu')
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def server(checkpoint, tmp_path_factory):
    process = ServerProcess(checkpoint, tmp_path_factory.mktemp('serve') / 'serve.log')
    yield process
    process.stop()


def told(answerer, seed):
    """Return what a question gives: its answer, and its maps."""
    events = list(answerer.ask(FRAME, QUESTION, mode='perception', seed=seed))
    maps = [event.image for event in events if isinstance(event, ImageReady)]
    assert isinstance(events[-1], AnswerReady) and len(maps) == 2
    answer = events[-1].answer
    return answer.text, answer.confidence, maps[0].metres, maps[1].labels


def same(one, other):
    """Compare what two models told; what is computed together with other questions differs in its last bits."""
    assert one[0] == other[0]
    assert one[1] == pytest.approx(other[1], rel=1e-3)
    np.testing.assert_allclose(one[2], other[2], rtol=1e-3)
    assert (one[3] == other[3]).mean() > 0.999
    return True


def test_many_at_once_get_what_the_local_model_says(server, local):
    assert server.ready() == 2
    expected = [told(local, seed) for seed in range(6)]
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        robots = [RemoteReasoner(server.address()) for _ in expected]
        assert all(map(same, pool.map(told, robots, range(6)), expected))


def test_requests_continue_while_a_replica_is_killed(server, local):
    first, second = server.replicas()
    many = {'num_timesteps': 100}  # long enough that both replicas are at work when one of them dies
    local.adjust(many)
    expected = told(local, 0)
    local.adjust()

    def asked(sampler):
        remote = RemoteReasoner(server.address())
        remote.adjust(sampler)
        return remote.ask(FRAME, QUESTION, mode='perception', seed=0)

    at_work = [asked(many) for _ in range(3)]  # of which a replica takes two at most
    for events in at_work:
        next(events)
    os.kill(first, signal.SIGKILL)
    for events in at_work:
        *_, last = events
        assert last.answer.text == expected[0]
        assert last.answer.confidence == pytest.approx(expected[1], rel=1e-3)

    def two_again():
        *_, last = asked({})  # until another replica has started, every question is answered
        assert isinstance(last, AnswerReady)
        pids = server.replicas()
        return len(pids) == 2 and first not in pids and server.ready() == 2

    server.wait(two_again, 'new replica', START_SECONDS)
    assert second in server.replicas()


def test_a_stopped_server_is_replaced_by_the_local_model_until_it_goes_on(server, local):
    address = Server(server.address().url, silence=5.0, connect=5.0)
    robot = Fallback(RemoteReasoner(address), local, pause=0.1, longest_pause=0.1)
    expected = told(local, 5)

    def served_by_the_server():
        assert same(told(robot, 5), expected)
        return robot.serving == 'remote'

    server.wait(served_by_the_server, 'answer of the server')
    pids = server.replicas()
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert same(told(robot, 5), expected)
        assert robot.serving == 'torch' and address.url in robot.trouble
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    server.wait(served_by_the_server, 'return to the server')


def test_the_end_leaves_nothing_behind(server):
    status, left = server.stop()
    assert (status, left) == (0, [])
    with pytest.raises(ServerFailed, match='is away'):
        RemoteReasoner(server.address()).check()
