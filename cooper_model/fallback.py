"""A server first, a model of this machine where the server is away, and the server again when it is back."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

from cooper_model.answerer import Answerer, Events, Wish
from cooper_model.backends.connection import ServerFailed, ServerRefused
from cooper_model.backends.remote import RemoteReasoner
from cooper_model.stopwatch import Cancel, never

log = logging.getLogger(__name__)


class Fallback(Answerer):
    """A server, and the local model where that fails.

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

    def fulfil(self, wish: Wish, cancelled: Cancel = never) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.fulfil`."""
        # The local model checks the question too; it has not begun before its first event is asked for.
        return self._first(wish, cancelled, self._local.fulfil(wish, cancelled))

    def _first(self, wish: Wish, cancelled: Cancel, local: Events) -> Events:
        if self._server_is_well():
            try:
                yield from self._remote.fulfil(wish, cancelled)
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
