"""What the C library does with memory that is given back, which on a CPU is a part of every large product's time."""

from __future__ import annotations

import ctypes
import os

# Numbers of glibc's malloc.h.
TRIM_THRESHOLD, MMAP_THRESHOLD, ARENA_MAX = -1, -3, -8
LARGEST = 32 * 2**20  # bytes; the largest threshold that glibc takes
NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what is freed for the next allocation, in all threads of the process alike.

    By default it hands large blocks back to the system at once and takes them again page by page, each of them zeroed:
    some 15,000 page faults for every image that is shown to a model of 110 M parameters. Blocks over 32 MiB still go
    back. Threads that had allocated before keep a heap of their own. The environment's word holds: where
    ``GLIBC_TUNABLES`` or a ``MALLOC_`` variable speaks of it, nothing is done.

    :returns: whether it is so now; False under other C libraries
    """
    if 'glibc.malloc' in os.environ.get('GLIBC_TUNABLES', '') or any(name.startswith('MALLOC_') for name in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None) if os.name == 'posix' else None
    if mallopt is None:
        return False
    settings = ((MMAP_THRESHOLD, LARGEST), (TRIM_THRESHOLD, NEVER), (ARENA_MAX, 1))
    return min(mallopt(name, value) for name, value in settings) == 1
