"""A server first, a model of this machine where the server is away, and the server again when it is back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cooper_model.answerer import MODALITIES, Answerer, Events
from cooper_model.backends.connection import ServerFailed, ServerRefused
from cooper_model.backends.remote import RemoteReasoner
from cooper_model.stopwatch import Cancel, never
from cooper_model.types import Frame, Modality, Mode

log = logging.getLogger(__name__)


class Fallback:
    """An :class:`~cooper_model.answerer.Answerer` that prefers a server to the local model.

    A request that the server fails is answered by the local model from its beginning: where the server had begun to
    answer, the events of turn 0 come again. Afterwards the server is asked for its health at most every ``pause``
    seconds, twice as long after each failure up to ``longest_pause``, and serves again once it is well.

    :ivar trouble: why the server does not serve, empty where it does
    """

    def __init__(
        self, remote: RemoteReasoner, local: Answerer, *, pause: float = 2.0, longest_pause: float = 60.0
    ) -> None:
        self.trouble = 'the server was not asked yet'
        self._remote, self._local = remote, local
        self._shortest, self._longest = pause, longest_pause
        self._pause, self._next_try = pause, -math.inf
        self._server_is_well()

    @property
    def serving(self) -> str:
        """Name of the back end that serves at the moment."""
        return self._local.serving if self.trouble else self._remote.serving

    def adjust(self, sampler: Mapping[str, Any] | None = None, max_turns: int | None = None) -> None:
        """See :meth:`cooper_model.answerer.Answerer.adjust`."""
        self._local.adjust(sampler, max_turns)
        self._remote.adjust(sampler, max_turns)

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return the size at which the local model sees an image."""
        return self._local.image_size(height, width)

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
        options = {'mode': mode, 'choices': choices, 'seed': seed, 'cancelled': cancelled}
        # The local one checks the question too; it has not begun before its first event is asked for.
        local = self._local.ask(frame, question, **options)
        return self._first(lambda: self._remote.ask(frame, question, **options), local)

    def perceive(
        self,
        frame: Frame,
        modalities: Sequence[Modality] = MODALITIES,
        *,
        seed: int = 0,
        cancelled: Cancel = never,
    ) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.perceive`."""
        options = {'seed': seed, 'cancelled': cancelled}
        local = self._local.perceive(frame, modalities, **options)
        return self._first(lambda: self._remote.perceive(frame, modalities, **options), local)

    def _first(self, remote: Callable[[], Events], local: Events) -> Events:
        if self._server_is_well():
            try:
                yield from remote()
            except ServerFailed as error:
                self._give_up(error)
            except ServerRefused as error:
                log.warning('%s; the %s back end of this machine answers instead', error, self._local.serving)
            else:
                self._pause = self._shortest
                return
        yield from local

    def _server_is_well(self) -> bool:
        if not self.trouble:
            return True
        if time.monotonic() < self._next_try:
            return False
        try:
            self._remote.check()
        except ServerFailed as error:
            self._give_up(error)
            return False
        log.info('server %s serves', self._remote.server.url)
        self.trouble = ''
        return True

    def _give_up(self, error: ServerFailed) -> None:
        log.warning('%s; the %s back end of this machine serves meanwhile', error, self._local.serving)
        self.trouble = str(error)
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, self._longest)
