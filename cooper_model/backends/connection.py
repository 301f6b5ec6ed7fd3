"""One request to a server and the stream of its events, over HTTP and with the standard library alone.

Reading happens in a thread, so that whoever waits for the next event can stop waiting at any time: because the wait is
cancelled, or because the server has been silent for too long.
"""

from __future__ import annotations

import http.client
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from cooper_model.stopwatch import Cancel
from cooper_model.types import Cancelled

_POLL_SECONDS = 0.05
_MAX_LINE = 256 * 2**20
_MAX_ERROR = 64 * 2**10
_DONE = '[DONE]'


class ServerFailed(RuntimeError):
    """The server is away, broke down, or took too long; another, or a local model, may answer."""


class BadReply(ServerFailed):
    """What the server said makes no sense; it may be another kind of server."""


class ServerRefused(ValueError):
    """The server does not take this request; the text is the server's."""


@dataclass(frozen=True)
class Server:
    """Where a server is and how long to wait for it.

    :param url: such as ``http://host:8000``; with a path where a proxy adds one
    :param silence: longest wait for the next event, waiting for a free replica included [s]
    :param connect: longest wait for a connection [s]
    :raises ValueError: the address is none, or a time is not positive
    """

    url: str
    silence: float = 10.0
    connect: float = 2.0

    def __post_init__(self) -> None:
        try:
            place = urlsplit(self.url)
            usable = place.scheme in ('http', 'https') and bool(place.hostname) and place.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ValueError(f'server {self.url!r} is no address; expected for example http://192.168.1.20:8000')
        if not (self.silence > 0 and self.connect > 0):
            raise ValueError(f'server: waiting {self.silence} s and {self.connect} s; expected positive times')

    @property
    def place(self) -> SplitResult:
        """The address in parts."""
        return urlsplit(self.url)

    def open(self, timeout: float) -> http.client.HTTPConnection:
        """Return a connection that is not connected yet."""
        secure = self.place.scheme == 'https'
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        return kind(self.place.hostname or '', self.place.port, timeout=timeout)

    def path(self, name: str) -> str:
        """Return the path of a request."""
        return self.place.path.rstrip('/') + name


def get(server: Server, path: str) -> tuple[int, Any]:
    """Return status and JSON body of a small resource, within about the time for connecting.

    :raises ServerFailed: there is no server, or (``BadReply``) it says no JSON
    """
    connection = server.open(server.connect)
    try:
        connection.request('GET', server.path(path))
        response = connection.getresponse()
        return response.status, json.loads(response.read(_MAX_ERROR))
    except (OSError, http.client.HTTPException) as error:
        raise ServerFailed(f'server {server.url} is away: {_reason(error)}') from error
    except ValueError as error:
        raise BadReply(f'server {server.url} says nonsense at {path}: {error}') from error
    finally:
        connection.close()


def post(server: Server, path: str, body: Mapping[str, Any], cancelled: Cancel) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects that a server streams in answer to one.

    :raises ServerFailed: the server is away, silent, broken, or (``BadReply``) says nonsense
    :raises ServerRefused: the server does not take the request
    :raises Cancelled: ``cancelled()`` became true
    """
    exchange = _Exchange(server, path, json.dumps(body, allow_nan=False).encode())
    try:
        while (data := exchange.next(cancelled)) != _DONE:
            try:
                chunk = json.loads(data)
            except ValueError as error:
                raise BadReply(f'server {server.url} says nonsense: {data[:80]!r} is no JSON') from error
            if not isinstance(chunk, dict):
                raise BadReply(f'server {server.url} says nonsense: {data[:80]!r} is no object')
            if 'error' in chunk:
                raise _failure(server, 500, chunk)
            yield chunk
    finally:
        exchange.close()


class _Exchange:
    """The thread that reads, and what it has read."""

    def __init__(self, server: Server, path: str, body: bytes) -> None:
        self._server, self._path, self._body = server, path, body
        self._read: queue.Queue[str | Exception] = queue.Queue()
        self._connection = server.open(server.connect)
        self._socket: socket.socket | None = None
        self._closed = False
        threading.Thread(target=self._run, name='server', daemon=True).start()

    def next(self, cancelled: Cancel) -> str:
        """Wait for the next line of data."""
        deadline = time.monotonic() + self._server.silence
        while True:
            if cancelled():
                raise Cancelled('cancelled while the server works')
            try:
                found = self._read.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                if time.monotonic() > deadline:
                    silence = self._server.silence
                    raise ServerFailed(f'server {self._server.url} was silent for {silence:g} s') from None
                continue
            if isinstance(found, Exception):
                raise found
            return found

    def close(self) -> None:
        """Hang up; the server stops its work, and the thread ends."""
        self._closed = True
        if self._socket is not None:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread, which closing alone would not
            except OSError:
                pass  # not connected any more

    def _run(self) -> None:
        try:
            for line in self._lines():
                self._read.put(line)
                if self._closed:
                    break
        except (OSError, http.client.HTTPException) as error:
            self._read.put(ServerFailed(f'server {self._server.url} is away: {_reason(error)}'))
        except (ServerFailed, ServerRefused, ValueError) as error:
            self._read.put(error)
        finally:
            self._connection.close()

    def _lines(self) -> Iterator[str]:
        connection = self._connection
        connection.connect()
        self._socket = connection.sock
        if self._closed:
            return
        self._socket.settimeout(self._server.silence + 1)
        headers = {'Content-Type': 'application/json', 'Accept': 'text/event-stream'}
        connection.request('POST', self._server.path(self._path), self._body, headers)
        response = connection.getresponse()
        if response.status != 200:
            raise _failure(self._server, response.status, _body_of(response))
        if not response.getheader('content-type', '').startswith('text/event-stream'):
            raise BadReply(f'server {self._server.url} streams no events; is it a COOPER server?')
        while line := response.readline(_MAX_LINE):
            if not line.endswith(b'\n'):
                break
            if line.startswith(b'data:'):
                data = line[5:].decode('utf-8', 'replace').strip()
                yield data
                if data == _DONE:
                    return
        raise ServerFailed(f'server {self._server.url} hung up before the end of its answer')


def _body_of(response: http.client.HTTPResponse) -> Any:
    try:
        return json.loads(response.read(_MAX_ERROR))
    except ValueError:
        return None


def _failure(server: Server, status: int, body: Any) -> Exception:
    """Return what a status other than 200 and its body mean."""
    told = body.get('error') if isinstance(body, dict) else None
    if not isinstance(told, dict) or 'message' not in told:
        text = f'server {server.url} answers with status {status} and no explanation'
        return ServerFailed(text) if status in (502, 503, 504) else BadReply(f'{text}; is it a COOPER server?')
    if status in (400, 413, 422):
        return ServerRefused(str(told['message']))
    return ServerFailed(f'server {server.url} failed: {told["message"]}')


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
