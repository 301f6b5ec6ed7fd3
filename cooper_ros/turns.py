"""Whose turn it is, where several want the one model. Knows nothing of ROS."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cooper_model.types import Cancelled

# A camera that is a little early must not lose every other frame.
_EARLY = 0.1


class Turns:
    """Fair turns: of those who wait, whoever had a turn longest ago is next, however often others ask. Thread-safe.

    :param clock: monotonic seconds
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due: dict[str, float] = {}
        self._waiting: dict[str, None] = {}  # a set that keeps its order
        self._served: dict[str, int] = {}
        self._count = 0

    @property
    def waiting(self) -> bool:
        """Whether anybody waits."""
        return bool(self._waiting)

    def ask(self, name: str, rate: float) -> bool:
        """Let ``name`` wait for a turn, unless it asks more than ``rate`` times a second; return whether it waits."""
        now = self._clock()
        with self._lock:
            due = self._due.get(name, 0.0)
            if due > now + 2 / rate:
                due = now  # the rate was lower until now
            if now < due - _EARLY / rate:
                return False
            self._due[name] = max(due + 1 / rate, now)
            self._waiting.setdefault(name)
        return True

    @contextmanager
    def turn(self) -> Iterator[str | None]:
        """Give the turn to the next, None where nobody waits. A turn that ends with ``Cancelled`` is given again."""
        with self._lock:
            name = min(self._waiting, key=lambda each: self._served.get(each, 0), default=None)
            self._waiting.pop(name, None)
        cancelled = False
        try:
            yield name
        except Cancelled:
            cancelled = True
            raise
        finally:
            with self._lock:
                if cancelled and name is not None:
                    self._waiting.setdefault(name)
                elif name is not None:
                    self._count += 1
                    self._served[name] = self._count
