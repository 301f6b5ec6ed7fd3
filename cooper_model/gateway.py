"""HTTP in the form of OpenAI's chat completions in front of whatever carries out tasks. Knows neither model nor Ray."""

from __future__ import annotations

import asyncio
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse

from cooper_model.tasks import Records, Request, Task
from cooper_model.wire import ASK, HEALTH, MODELS, PERCEIVE

log = logging.getLogger(__name__)



class Overloaded(RuntimeError):
    """Too many tasks wait already, or nothing is there that could carry them out."""


@dataclass(frozen=True)
class Limits:
    """What is refused, and when work is given up.

    :param body: largest body of a request [bytes]
    :param silence: longest time without a new event, waiting for a free replica included [s]
    """

    body: int = 32 * 2**20
    silence: float = 120.0


class Gateway:
    """Answers HTTP requests.

    :param work: carries out a task, and yields the records of its events
    :param replicas: tells how many are ready to work
    :param model: what ``/v1/models`` says; ``id`` names the model
    """

    def __init__(
        self,
        work: Callable[[Task], Records],
        replicas: Callable[[], Awaitable[int]],
        model: Mapping[str, Any],
        limits: Limits | None = None,
    ) -> None:
        self._work, self._replicas, self._model = work, replicas, model
        self._limits = limits or Limits()

    async def respond(self, request: HttpRequest) -> Response:
        """Answer one request, whatever it holds."""
        routes: dict[tuple[str, str], Callable[[HttpRequest], Awaitable[Response]]] = {
            ('POST', ASK): self._ask,
            ('POST', PERCEIVE): self._perceive,
            ('GET', MODELS): self._models,
            ('GET', HEALTH): self._health,
        }
        found = routes.get((request.method, request.url.path))
        if found is not None:
            return await found(request)
        paths = ', '.join(f'{method} {path}' for method, path in routes)
        return _problem(404, f'{request.method} {request.url.path} is not served; there are {paths}')

    async def _models(self, request: HttpRequest) -> Response:
        return JSONResponse({'object': 'list', 'data': [self._model]})

    async def _health(self, request: HttpRequest) -> Response:
        count = await self._replicas()
        status = 'ok' if count else 'no replica is ready'
        return JSONResponse({'status': status, 'replicas': count}, 200 if count else 503)

    async def _ask(self, request: HttpRequest) -> Response:
        return await self._run(request, asks=True)

    async def _perceive(self, request: HttpRequest) -> Response:
        return await self._run(request, asks=False)

    async def _run(self, request: HttpRequest, *, asks: bool) -> Response:
        try:
            body = await self._body(request)
            if body is None:
                return _problem(413, f'the body is larger than {self._limits.body} bytes; send a smaller image')
            asked = await asyncio.to_thread(Request.parse, body)
            records = self._work(await asyncio.to_thread(asked.task, asks=asks))
            # What the model refuses, it refuses before its first event.
            first = await self._next(records)
            form = _Form(self._model['id'], asks)
            if asked.stream:
                return StreamingResponse(self._stream(form, first, records), media_type='text/event-stream')
            async with aclosing(records):
                return JSONResponse(form.whole([first, *[each async for each in self._rest(records)]]))
        except Exception as error:  # noqa: BLE001 - told to the client, with a status that says whose fault it is
            return _problem(*_told(error))

    async def _body(self, request: HttpRequest) -> bytes | None:
        """Return the body, None where it is too large."""
        told = request.headers.get('content-length', '')
        if told.isdigit() and int(told) > self._limits.body:
            return None
        parts, size = [], 0
        async for part in request.stream():
            size += len(part)
            if size > self._limits.body:
                return None
            parts.append(part)
        return b''.join(parts)

    async def _next(self, records: Records) -> dict[str, Any]:
        """Return the next record.

        :raises StopAsyncIteration: there is none
        :raises TimeoutError: none came in time
        """
        return await asyncio.wait_for(records.__anext__(), self._limits.silence)

    async def _rest(self, records: Records) -> AsyncIterator[dict[str, Any]]:
        while True:
            try:
                record = await self._next(records)
            except StopAsyncIteration:
                return
            yield record

    async def _stream(self, form: _Form, first: dict[str, Any], records: Records) -> AsyncIterator[str]:
        async with aclosing(records):
            yield _line(form.chunk(first))
            try:
                async for record in self._rest(records):
                    yield _line(form.chunk(record))
            except Exception as error:  # noqa: BLE001 - the status has left; the client is told in the stream
                yield _line(_error_body(*_told(error)))
            yield 'data: [DONE]\n\n'


class _Form:
    """Records as chat completions, whole or in chunks; perceiving has no ``choices``, since nothing is said."""

    def __init__(self, model: str, asks: bool) -> None:
        name = 'chat.completion' if asks else 'cooper.perception'
        self._name, self._asks = name, asks
        self._head = {'id': f'chatcmpl-{uuid.uuid4().hex}', 'created': int(time.time()), 'model': model}

    def chunk(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return one event of a stream."""
        body = {**self._head, 'object': f'{self._name}.chunk', 'cooper': record}
        if self._asks:
            ends = record['type'] == 'answer'
            delta = {'content': record['text']} if ends else {}
            if record['type'] == 'text':
                delta = {'reasoning_content': record['text']}
            body['choices'] = [{'index': 0, 'delta': delta, 'finish_reason': 'stop' if ends else None}]
        return body

    def whole(self, records: list[dict[str, Any]]) -> dict[str, Any]:
        """Return everything at once."""
        images = [record for record in records if record['type'] == 'image']
        body: dict[str, Any] = {**self._head, 'object': self._name, 'cooper': {'images': images}}
        if self._asks:
            answer = next(record for record in records if record['type'] == 'answer')
            body['cooper'] = {**answer, 'images': images}
            said = {'role': 'assistant', 'content': answer['text']}
            body['choices'] = [{'index': 0, 'message': said, 'finish_reason': 'stop'}]
        return body


def _told(error: Exception) -> tuple[int, str]:
    """Return the status and the text of a failure."""
    if isinstance(error, ValueError):
        return 400, str(error)
    if isinstance(error, Overloaded):
        return 503, str(error)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return 504, 'the model was silent for too long; ask again'
    log.error('a request failed', exc_info=error)
    return 500, f'{type(error).__name__}: {error}'


def _error_body(status: int, text: str) -> dict[str, Any]:
    kind = 'invalid_request_error' if status < 500 else 'server_error'
    return {'error': {'message': text, 'type': kind, 'param': None, 'code': status}}


def _problem(status: int, text: str) -> Response:
    return JSONResponse(_error_body(status, text), status)


def _line(body: Mapping[str, Any]) -> str:
    return f'data: {json.dumps(body, allow_nan=False)}\n\n'
