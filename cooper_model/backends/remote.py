"""A model on a server, with the public side of a reasoner: whole questions leave, events come back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cooper_model import transforms
from cooper_model.answerer import MODALITIES, Events, check_modalities
from cooper_model.backends.connection import BadReply, Server, ServerFailed, get, post
from cooper_model.config import ResizeConfig
from cooper_model.prompts import question_text
from cooper_model.stopwatch import Cancel, never
from cooper_model.types import MODES, AnswerReady, Frame, ImageReady, Modality, Mode
from cooper_model.wire import EventReader, image_url, plain

NAME = 'remote'


class RemoteReasoner:
    """An :class:`~cooper_model.answerer.Answerer` whose model is on a server.

    Its events also raise ``ServerFailed`` where the server is away, breaks down or is silent for too long, and
    ``ServerRefused`` (a ``ValueError``) where the server does not take the question.
    """

    serving, trouble = NAME, ''

    def __init__(self, server: Server) -> None:
        self.server = server
        self._settings: dict[str, Any] = {}
        self._resize: ResizeConfig | None = None

    def check(self) -> None:
        """Ask the server whether it can work.

        :raises ServerFailed: it cannot, or is away
        """
        status, body = get(self.server, '/health')
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
            _, body = get(self.server, '/v1/models')
            try:
                self._resize = ResizeConfig(**body['data'][0]['cooper']['image'])
            except (KeyError, IndexError, TypeError) as error:
                raise BadReply(f'server {self.server.url} does not describe its model: {error!r}') from error
        return transforms.resized_size(height, width, self._resize)

    def ask(
        self,
        frame: Frame,
        question: str,
        *,
        mode: Mode = 'auto',
        choices: Sequence[str] = (),
        seed: int = 0,
        cancelled: Cancel = never,
    ) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.ask`."""
        if mode not in MODES:
            raise ValueError(f'mode is {mode!r}, expected one of {", ".join(MODES)}')
        question_text(question, choices)  # raises what the server would
        extras = {'mode': mode, 'choices': list(choices)}
        return self._events('/v1/chat/completions', frame, question, {'seed': seed, 'cooper': extras}, cancelled)

    def perceive(
        self,
        frame: Frame,
        modalities: Sequence[Modality] = MODALITIES,
        *,
        seed: int = 0,
        cancelled: Cancel = never,
    ) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.perceive`."""
        check_modalities(modalities)
        extras = {'modalities': list(modalities)}
        return self._events('/v1/perceive', frame, '', {'seed': seed, 'cooper': extras}, cancelled)

    def _events(self, path: str, frame: Frame, question: str, body: dict[str, Any], cancelled: Cancel) -> Events:
        if frame.intrinsics is not None:
            body['cooper']['intrinsics'] = plain(frame.intrinsics)
        body['cooper'].update(self._settings)
        parts: list[dict[str, Any]] = [{'type': 'image_url', 'image_url': {'url': image_url(frame.image)}}]
        if question:
            parts.append({'type': 'text', 'text': question})
        body.update(model=NAME, stream=True, messages=[{'role': 'user', 'content': parts}])
        reader, event = EventReader(frame), None
        for chunk in post(self.server, path, body, cancelled):
            try:
                event = reader.read(chunk['cooper'])
            except (KeyError, ValueError) as error:
                raise BadReply(f'server {self.server.url} says nonsense: {error}') from error
            yield event
        if not isinstance(event, AnswerReady if question else ImageReady):
            raise BadReply(f'server {self.server.url} ended without an answer')
