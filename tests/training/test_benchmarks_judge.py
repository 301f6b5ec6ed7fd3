"""The judge over real HTTP: servers that answer, talk nonsense, are slow, fail or refuse."""

from __future__ import annotations

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.benchmarks.judge import Judge, JudgeConfig, JudgeError, JudgeRefused, verdict


class Speaker(BaseHTTPRequestHandler):
    """Answers as the server's ``replies`` say, the last of them again and again."""

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.server.asked.append((self.path, self.headers.get('Authorization'), body))
        status, reply, seconds = self.server.replies[min(len(self.server.asked), len(self.server.replies)) - 1]
        time.sleep(seconds)
        try:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(reply)
        except (BrokenPipeError, ConnectionResetError):
            pass  # whoever asked has gone

    def log_message(self, *_):
        pass


def says(text: object, status: int = 200, seconds: float = 0.0) -> tuple[int, bytes, float]:
    return status, json.dumps({'choices': [{'message': {'role': 'assistant', 'content': text}}]}).encode(), seconds


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv('no_proxy', '*')
    server = ThreadingHTTPServer(('127.0.0.1', 0), Speaker)
    server.asked, server.replies = [], [says('1')]
    server.url = f'http://127.0.0.1:{server.server_port}/v1'
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def judge(server, folder, **settings):
    config = JudgeConfig(server.url, 'referee', **{'timeout': 5.0, 'retries': 2, 'pause': 0.0, **settings})
    return Judge(config, folder / 'verdicts.jsonl')


def test_a_verdict_is_asked_for_once(server, tmp_path, monkeypatch):
    monkeypatch.setenv('OPENAI_API_KEY', 'secret')
    server.replies = [says(' 0.5\n')]
    first = judge(server, tmp_path)
    assert first.score('What is it?', 'a mug', 'a cup') == 0.5
    assert first.score('What is it?', 'a mug', 'a cup') == 0.5
    assert judge(server, tmp_path).score('What is it?', 'a mug', 'a cup') == 0.5
    ((path, key, body),) = server.asked
    assert path == '/v1/chat/completions' and key == 'Bearer secret'
    assert body['model'] == 'referee' and body['temperature'] == 0
    told = body['messages'][-1]['content']
    assert 'What is it?' in told and 'a mug' in told and 'a cup' in told
    assert 'secret' not in (tmp_path / 'verdicts.jsonl').read_text()
    judge(server, tmp_path).score('What is it?', 'a mug', 'a pot')
    assert len(server.asked) == 2


def test_no_key_no_header(server, tmp_path, monkeypatch):
    monkeypatch.delenv('OPENAI_API_KEY', raising=False)
    judge(server, tmp_path).score('q', 't', 'a')
    assert server.asked[0][1] is None


def test_nonsense_is_asked_again_and_never_becomes_a_score(server, tmp_path):
    server.replies = [says('I would say it is right'), says('1')]
    assert judge(server, tmp_path).score('q', 't', 'a') == 1
    server.asked.clear()
    for nonsense in (says('true'), says('1.5'), says(None), (200, b'<html>', 0), (200, b'{"choices": []}', 0)):
        server.replies = [nonsense]
        with pytest.raises(JudgeError, match='no verdict after 3 attempts'):
            judge(server, tmp_path).score('q', 't', f'b {nonsense}')
    assert len(server.asked) == 15
    assert len((tmp_path / 'verdicts.jsonl').read_text().splitlines()) == 1


def test_a_slow_judge_is_not_waited_for(server, tmp_path):
    server.replies = [says('1', seconds=1.0), says('0')]
    assert judge(server, tmp_path, timeout=0.2).score('q', 't', 'a') == 0
    assert len(server.asked) == 2


def test_a_failing_judge_is_asked_again(server, tmp_path):
    server.replies = [says('', 500), says('', 429), says('1')]
    assert judge(server, tmp_path).score('q', 't', 'a') == 1
    server.asked.clear()
    server.replies = [says('', 503)]
    with pytest.raises(JudgeError, match='answered 503'):
        judge(server, tmp_path).score('q', 't', 'b')
    assert len(server.asked) == 3


def test_a_judge_that_refuses_is_not_asked_again(server, tmp_path):
    server.replies = [(401, b'bad key', 0)]
    with pytest.raises(JudgeRefused, match=r'401: bad key.*OPENAI_API_KEY'):
        judge(server, tmp_path).score('q', 't', 'a')
    assert len(server.asked) == 1


def test_nobody_there(server, tmp_path):
    server.url = 'http://127.0.0.1:9/v1'
    with pytest.raises(JudgeError, match='cannot be reached'):
        judge(server, tmp_path).score('q', 't', 'a')


def test_a_torn_cache_is_read_as_far_as_it_goes(server, tmp_path):
    judge(server, tmp_path).score('q', 't', 'a')
    path = tmp_path / 'verdicts.jsonl'
    path.write_text(path.read_text() + '{"key": "x", "sc')
    again = judge(server, tmp_path)
    again.score('q', 't', 'a')
    again.score('q', 't', 'b')
    assert len(server.asked) == 2
    judge(server, tmp_path).score('q', 't', 'b')
    assert len(server.asked) == 2


def test_settings_are_checked():
    for settings, message in (
        ({'url': 'localhost:8000'}, 'not http or https'),
        ({'timeout': 0}, 'timeout is 0'),
        ({'retries': -1}, 'retries are -1'),
    ):
        with pytest.raises(ValueError, match=message):
            JudgeConfig(**{'url': 'http://localhost/v1', 'model': 'm', **settings})


@pytest.mark.parametrize(
    ('text', 'score'),
    [('1', 1), ('0', 0), ('0.25', 0.25), ('.5', 0.5), (' 1.0 ', 1), ('<think>so 2</think>\n1', 1)],
)
def test_verdicts(text, score):
    assert verdict(text) == score


@pytest.mark.parametrize('text', ['', '2', '-1', '1.5', '0.5 or so', 'nan', '1 1', '１'])
def test_what_is_no_verdict(text):
    with pytest.raises(JudgeError, match='instead of a number'):
        verdict(text)
