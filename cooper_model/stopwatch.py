"""Seconds by part of one request, and the wish to stop it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cooper_model.types import Cancelled

Cancel = Callable[[], bool]


def never() -> bool:
    """Say that nobody wants to stop."""
    return False


class Stopwatch:
    """Adds up the time spent in named parts; what a consumer of events does in between is in none."""

    def __init__(self, cancelled: Cancel) -> None:
        self.seconds: dict[str, float] = {}
        self._cancelled = cancelled
        self._begin = time.perf_counter()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Time a model step.

        :raises Cancelled: before the step, if the caller wants to stop
        """
        if self._cancelled():
            raise Cancelled(f'cancelled before {name}')
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def mark(self, name: str) -> None:
        """Record the time from the beginning until now, the first time only."""
        self.seconds.setdefault(name, time.perf_counter() - self._begin)
