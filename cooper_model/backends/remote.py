"""A model on a server, with the public side of a reasoner: whole questions leave, events come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cooper_model import transforms
from cooper_model.answerer import Answerer, Events, Wish
from cooper_model.backends.connection import BadReply, Server, ServerFailed, get, post
from cooper_model.config import ResizeConfig
from cooper_model.stopwatch import Cancel, never
from cooper_model.types import AnswerReady, ImageReady
from cooper_model.wire import ASK, HEALTH, MODELS, PERCEIVE, EventReader, image_url, plain

NAME = 'remote'


class RemoteReasoner(Answerer):
    """A model on a server.

    Its events also raise ``ServerFailed`` where the server is away, breaks down or is silent for too long, and
    ``ServerRefused`` (a ``ValueError``) where the server does not take the question.
    """

    serving = NAME

    def __init__(self, server: Server) -> None:
        self.server = server
        self._settings: dict[str, Any] = {}
        self._resize: ResizeConfig | None = None

    def check(self) -> None:
        """Ask the server whether it can work.

        :raises ServerFailed: it cannot, or is away
        """
        status, body = get(self.server, HEALTH)
        if status != 200:
            told = body.get('status') if isinstance(body, dict) else None
            raise ServerFailed(f'server {self.server.url} cannot work: {told or status}')
        if not isinstance(body, dict) or body.get('status') != 'ok':
            raise BadReply(f'server {self.server.url} says nonsense about its health; is it a COOPER server?')

    def adjust(self, sampler: Mapping[str, Any] | None = None, max_turns: int | None = None) -> None:
        """See :meth:`cooper_model.answerer.Answerer.adjust`; here the server checks values, with the next request."""
        self._settings = {}
        if sampler:
            self._settings['sampler'] = plain(sampler)
        if max_turns:
            self._settings['max_turns'] = max_turns

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`cooper_model.answerer.Answerer.image_size`; the first call asks the server.

        :raises ServerFailed: the server is away or says nonsense
        """
        if self._resize is None:
            _, body = get(self.server, MODELS)
            try:
                self._resize = ResizeConfig(**body['data'][0]['cooper']['image'])
            except (KeyError, IndexError, TypeError) as error:
                raise BadReply(f'server {self.server.url} does not describe its model: {error!r}') from error
        return transforms.resized_size(height, width, self._resize)

    def fulfil(self, wish: Wish, cancelled: Cancel = never) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.fulfil`; the server finds out what is too long."""
        asks = bool(wish.question)
        parts: list[dict[str, Any]] = [{'type': 'image_url', 'image_url': {'url': image_url(wish.frame.image)}}]
        if asks:
            parts.append({'type': 'text', 'text': wish.question})
            extras: dict[str, Any] = {'mode': wish.mode, 'choices': list(wish.choices)}
        else:
            extras = {'modalities': list(wish.modalities)}
        if wish.frame.intrinsics is not None:
            extras['intrinsics'] = plain(wish.frame.intrinsics)
        messages = [{'role': 'user', 'content': parts}]
        cooper = {**extras, **self._settings}
        body = {'model': NAME, 'stream': True, 'seed': wish.seed, 'messages': messages, 'cooper': cooper}
        reader, event = EventReader(wish.frame), None
        for chunk in post(self.server, ASK if asks else PERCEIVE, body, cancelled):
            try:
                event = reader.read(chunk['cooper'])
            except (KeyError, ValueError) as error:
                raise BadReply(f'server {self.server.url} says nonsense: {error}') from error
            yield event
        if not isinstance(event, AnswerReady if asks else ImageReady):
            raise BadReply(f'server {self.server.url} ended without an answer')
