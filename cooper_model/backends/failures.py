"""What goes wrong in a backend, told apart by what can be done about it."""

from __future__ import annotations


class BackendUnavailable(ValueError):
    """A backend cannot run here; the text says what is missing and what to do. Another backend may serve."""


class BackendFailed(RuntimeError):
    """A backend broke down in the middle of its work, and must be loaded again before it is used."""


class OutOfMemory(BackendFailed):
    """The device has no memory left for what a request needs."""


_SIGNS = ('out of memory', 'out_of_memory', 'failed to allocate', "can't allocate memory", 'bad_alloc')


def is_out_of_memory(error: BaseException | str) -> bool:
    """Return whether an exception of a library, or its text, speaks of memory that was not there."""
    return isinstance(error, (MemoryError, OutOfMemory)) or any(sign in str(error).lower() for sign in _SIGNS)
