"""A reasoner on a server: the same events as in this process, clear errors, and a local model while it is away."""

from __future__ import annotations

import base64
import http.client
import io
import json
import socket
import threading
from dataclasses import fields, is_dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip('starlette', reason='needs the extra fleet')

from cooper_model import loading
from cooper_model.backends.connection import BadReply, Server, ServerFailed, ServerRefused
from cooper_model.backends.remote import RemoteReasoner
from cooper_model.fallback import Fallback
from cooper_model.gateway import Limits
from cooper_model.types import MODES, AnswerReady, CameraIntrinsics, Cancelled, Frame, ImageProgress, ImageReady
from cooper_model.wire import image_url, plain, read_image_url, read_values_url, values_url
from tests.random_checkpoint import write_random_checkpoint
from tests.serving import Served

RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.integers(0, 256, (90, 121, 3), dtype=np.uint8)
MEASURED = np.where(RANDOM.random((90, 121)) < 0.2, np.nan, RANDOM.uniform(1, 4, (90, 121))).astype(np.float32)
FRAME = Frame(PHOTO, CameraIntrinsics(100.5, 101.25, 60, 45, 121, 90), MEASURED)
QUESTION = 'Which is closer, the ball or the box?'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    # The number of threads changes the order of sums, and with it the last bits.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope='module')
def local(checkpoint):
    return loading.load(checkpoint, 'torch', 'cpu')


@pytest.fixture(scope='module')
def served(checkpoint):
    with Served(loading.load(checkpoint, 'torch', 'cpu'), limits=Limits(body=2**20)) as server:
        yield server


@pytest.fixture
def remote(served):
    return RemoteReasoner(served.address())


def known(value):
    """Return a value without what differs from run to run, arrays as their bytes."""
    if is_dataclass(value):
        left = {'seconds', 'timings', 'picture'}
        return {each.name: known(getattr(value, each.name)) for each in fields(value) if each.name not in left}
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, (list, tuple)):
        return [known(item) for item in value]
    return repr(value)  # NaN equals itself so


# The same as here


@pytest.mark.parametrize('mode', MODES)
def test_events_of_a_question_equal_those_of_this_process(local, remote, mode):
    options = {'mode': mode, 'choices': ('ball', 'box'), 'seed': 4}
    here, there = (list(each.ask(FRAME, QUESTION, **options)) for each in (local, remote))
    assert len(here) > 2
    assert known(there) == known(here)
    assert there[-1].answer.timings['total'] > 0


def test_maps_equal_those_of_this_process(local, remote):
    here, there = (list(each.perceive(FRAME, seed=7)) for each in (local, remote))
    maps = {event.modality: event.image for event in there if isinstance(event, ImageReady)}
    assert maps['depth'].alignment is not None or maps['depth'].metres is not None
    assert known(there) == known(here)


def test_settings_act_on_the_server_and_are_taken_back(local, remote):
    for sampler, turns in (({'num_timesteps': 5, 'text_scale': 2.0}, 1), ({}, None)):
        for each in (local, remote):
            each.adjust(sampler, turns)
        here, there = (list(each.ask(FRAME, QUESTION, mode='auto', seed=1)) for each in (local, remote))
        assert known(there) == known(here)
        steps = {event.steps for event in remote.perceive(FRAME, ('depth',)) if isinstance(event, ImageProgress)}
        assert steps == {4 if sampler else 2}
    assert remote.image_size(480, 640) == local.image_size(480, 640)


def test_pictures_survive_their_urls():
    values = RANDOM.random((31, 17)).astype(np.float32)
    np.testing.assert_array_equal(read_values_url(values_url(values)), values)
    np.testing.assert_array_equal(read_image_url(image_url(PHOTO)), PHOTO)


def test_a_cancelled_question_leaves_the_server_free(local, remote, served):
    heard = []
    with pytest.raises(Cancelled):
        for event in remote.perceive(FRAME, cancelled=lambda: len(heard) > 1):
            heard.append(event)
    again = list(remote.ask(FRAME, QUESTION, mode='direct'))
    assert known(again) == known(list(local.ask(FRAME, QUESTION, mode='direct')))
    assert served.engine.step_seconds == 0


# The form of OpenAI's chat completions


def chat(**changes):
    parts = [{'type': 'image_url', 'image_url': {'url': image_url(PHOTO)}}, {'type': 'text', 'text': QUESTION}]
    return {'model': 'tiny', 'messages': [{'role': 'user', 'content': parts}], **changes}


def call(served, method, path, body=None):
    connection = http.client.HTTPConnection('127.0.0.1', served.port, timeout=60)
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    connection.request(method, path, data)
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response.status, text


def test_a_whole_completion(served, local):
    status, text = call(served, 'POST', '/v1/chat/completions', chat(seed=2, cooper={'mode': 'perception'}))
    said = json.loads(text)
    *_, ready = local.ask(Frame(PHOTO), QUESTION, mode='perception', seed=2)
    assert (status, said['object']) == (200, 'chat.completion')
    assert said['choices'][0]['message'] == {'role': 'assistant', 'content': ready.answer.text}
    assert said['choices'][0]['finish_reason'] == 'stop'
    assert [image['modality'] for image in said['cooper']['images']] == ['depth', 'segmentation']
    assert said['cooper']['relations'] == plain(ready.answer.relations)
    for image in said['cooper']['images']:
        assert read_image_url(image['image_url']['url']).ndim == 3


def test_a_stream_of_chunks(served):
    _, text = call(served, 'POST', '/v1/chat/completions', chat(stream=True, cooper={'mode': 'text'}))
    *lines, done = [line for line in text.split('\n') if line]
    assert done == 'data: [DONE]'
    chunks = [json.loads(line.removeprefix('data: ')) for line in lines]
    assert {chunk['object'] for chunk in chunks} == {'chat.completion.chunk'}
    assert [chunk['choices'][0]['finish_reason'] for chunk in chunks][-2:] == [None, 'stop']
    thoughts = [chunk['choices'][0]['delta'].get('reasoning_content', '') for chunk in chunks]
    assert ''.join(thoughts) == ''.join(c['cooper']['text'] for c in chunks if c['cooper']['type'] == 'text')


def test_health_and_models(served):
    assert call(served, 'GET', '/health') == (200, '{"status":"ok","replicas":1}')
    assert json.loads(call(served, 'GET', '/v1/models')[1])['data'][0]['id'] == 'tiny'


def bomb():
    """Return a small PNG file of too many pixels."""
    buffer = io.BytesIO()
    Image.new('L', (8000, 8000)).save(buffer, 'PNG')
    return 'data:image/png;base64,' + base64.b64encode(buffer.getvalue()).decode()


def parts(url, text=QUESTION):
    content = [{'type': 'image_url', 'image_url': {'url': url}}, {'type': 'text', 'text': text}]
    return [{'role': 'user', 'content': content}]


BAD = {
    'no JSON': (b'{', 400, 'Invalid JSON'),
    'no messages': ({}, 400, 'messages: Field required'),
    'no image': ({'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'a'}]}]}, 400, '0 images'),
    'an address to fetch': (chat(messages=parts('http://example.org/a.png')), 400, 'no data URL'),
    'no base64': (chat(messages=parts('data:image/png;base64,???')), 400, 'not base64'),
    'no image file': (chat(messages=parts('data:image/png;base64,AAAA')), 400, 'holds no PNG'),
    'too many pixels': (chat(messages=parts(bomb())), 400, 'too large'),
    'too long a body': (b' ' * (2**20 + 1), 413, 'larger than 1048576 bytes'),
    'an empty question': (chat(messages=parts(image_url(PHOTO), ' ')), 400, 'the question is empty'),
    'too long a question': (chat(messages=parts(image_url(PHOTO), 'box ' * 9000)), 400, 'ask a shorter question'),
    'an unknown mode': (chat(cooper={'mode': 'loud'}), 400, 'cooper.mode'),
    'a misspelt field': (chat(cooper={'chioces': ['a']}), 400, 'cooper.chioces'),
    'too many choices': (chat(cooper={'choices': ['a'] * 27}), 400, 'cooper.choices'),
    'two answers': (chat(n=2), 400, 'n: Input should be 1'),
    'a negative seed': (chat(seed=-1), 400, 'seed'),
    'an unknown setting': (chat(cooper={'sampler': {'steps': 3}}), 400, "no setting 'steps'"),
    'a setting of the wrong kind': (chat(cooper={'sampler': {'shift': 'far'}}), 400, 'shift'),
    'endless steps': (chat(cooper={'sampler': {'num_timesteps': 10**9}}), 400, 'at most 1000'),
    'a camera without focal length': (
        chat(cooper={'intrinsics': {'fx': 0, 'fy': 1, 'cx': 1, 'cy': 1, 'width': 2, 'height': 2}}), 400, 'fx is 0'
    ),
}  # fmt: skip


@pytest.mark.parametrize('case', BAD)
def test_bad_requests_are_told_why(served, case):
    body, expected, words = BAD[case]
    status, text = call(served, 'POST', '/v1/chat/completions', body)
    assert (status, words in json.loads(text)['error']['message']) == (expected, True), text[:500]


def test_other_paths_are_told_which_there_are(served):
    status, text = call(served, 'GET', '/v1/chat/completions')
    assert status == 404 and 'POST /v1/chat/completions' in text


def test_a_refusal_reaches_the_caller_as_its_own_fault(remote):
    remote.adjust({'shift': -1.0})
    with pytest.raises(ServerRefused, match='expected a positive number'):
        list(remote.ask(FRAME, QUESTION))
    with pytest.raises(ValueError, match='the question is empty'):
        remote.ask(FRAME, '')


# Servers that fail


def stream(*lines):
    return 200, 'text/event-stream', ''.join(f'data: {line}\n\n' for line in lines)


NONSENSE = {
    '/page': (200, 'text/html', '<html>hello</html>'),
    '/noise': stream('{'),
    '/list': stream('[1]'),
    '/stranger': stream('{"choices": []}'),
    '/unknown': stream('{"cooper": {"type": "dance", "turn": 0}}'),
    '/picture': stream('{"cooper": {"type": "image", "turn": 0, "modality": "depth", "values": {"url": "data:,"}}}'),
    '/early': stream('{"cooper": {"type": "text", "turn": 0, "text": "a"}}', '[DONE]'),
    '/missing': (404, 'text/plain', 'no'),
}
BROKEN = {
    '/cut': (200, 'text/event-stream', 'data: {"cooper": {"type": "text", "turn": 0, "text": "a"}}\n\n'),
    '/proxy': (502, 'text/html', 'bad gateway'),
    '/failed': (500, 'application/json', '{"error": {"message": "out of luck"}}'),
    '/midway': stream('{"error": {"message": "out of luck"}}'),
}


class Strange(BaseHTTPRequestHandler):
    """Answers whatever the path says."""

    def do_POST(self):
        status, kind, text = {**NONSENSE, **BROKEN}['/' + self.path.split('/')[1]]
        self.rfile.read(int(self.headers['Content-Length']))
        self.send_response(status)
        self.send_header('Content-Type', kind)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass


@pytest.fixture(scope='module')
def strange():
    server = ThreadingHTTPServer(('127.0.0.1', 0), Strange)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f'http://127.0.0.1:{server.server_port}'
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize('path', [*NONSENSE, *BROKEN])
def test_nonsense_and_failures_are_told_apart(strange, path):
    remote = RemoteReasoner(Server(strange + path))
    with pytest.raises(ServerFailed, match='server http') as caught:
        list(remote.ask(FRAME, QUESTION))
    assert isinstance(caught.value, BadReply) == (path in NONSENSE)


def test_a_silent_server_is_given_up():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        remote = RemoteReasoner(Server(f'http://127.0.0.1:{listener.getsockname()[1]}', silence=0.3))
        with pytest.raises(ServerFailed, match=r'was silent for 0\.3 s'):
            list(remote.perceive(FRAME))
        with pytest.raises(Cancelled):
            list(remote.perceive(FRAME, cancelled=lambda: True))


@pytest.mark.parametrize('url', ['', 'robot', 'ftp://host', 'http://', 'http://host:port', 'http://host:99999'])
def test_an_address_that_is_none_is_refused(url):
    with pytest.raises(ValueError, match='is no address; expected for example http://'):
        Server(url)


# A local model in place of the server


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        return listener.getsockname()[1]


def test_the_local_model_serves_while_the_server_is_away(checkpoint, local):
    port = free_port()
    remote = RemoteReasoner(Server(f'http://127.0.0.1:{port}'))
    both = Fallback(remote, local, pause=0.01, longest_pause=0.01)
    expected = known(list(local.ask(FRAME, QUESTION, seed=3)))

    def ask():
        return known(list(both.ask(FRAME, QUESTION, seed=3)))

    assert (both.serving, ask()) == ('torch', expected)
    assert 'is away' in both.trouble
    for _ in range(2):  # it comes, goes, and comes again
        with Served(loading.load(checkpoint, 'torch', 'cpu'), port=port):
            while both.trouble:
                assert ask() == expected
            assert (both.serving, ask()) == ('remote', expected)
        assert ask() == expected
        assert both.serving == 'torch'
    with pytest.raises(ValueError, match='the question is empty'):
        both.ask(FRAME, '')


def test_a_server_that_fails_midway_leaves_the_whole_answer_to_the_local_model(strange, local):
    class Well(RemoteReasoner):
        def check(self):
            pass  # this server knows no health, and fails only when it is asked

    both = Fallback(Well(Server(strange + '/cut')), local, pause=60.0)
    events = list(both.ask(FRAME, QUESTION, mode='direct'))
    assert known(events[1:]) == known(list(local.ask(FRAME, QUESTION, mode='direct')))
    assert 'hung up before the end' in both.trouble


def test_what_only_the_server_refuses_is_answered_here(served, local):
    both = Fallback(RemoteReasoner(served.address()), local)
    large = Frame(RANDOM.integers(0, 256, (600, 900, 3), dtype=np.uint8))  # larger than this server takes
    *_, last = both.ask(large, QUESTION, mode='direct')
    assert isinstance(last, AnswerReady)
    assert both.serving == 'remote'
