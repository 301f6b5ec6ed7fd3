"""Freed memory is kept for the next picture, in worker threads too."""

from __future__ import annotations

import os
import subprocess
import sys

FAULTS = """
import ctypes, resource, sys, threading
from cooper_model.allocator import keep_freed_memory

library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
library.malloc.argtypes = [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]

def work():
    size = 24 * 2**20
    blocks = [library.malloc(size) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    for block in blocks:
        library.free(block)

def count():
    for _ in range(4):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        work()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

print(keep_freed_memory() if sys.argv[1] == 'keep' else 'default')
thread = threading.Thread(target=count)
thread.start()
thread.join()
"""


def _run(word: str, **more: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(('MALLOC_', 'GLIBC_'))}
    run = [sys.executable, '-c', FAULTS, word]
    return subprocess.check_output(run, env={**environment, **more}, text=True, timeout=120).split()


def test_what_is_freed_is_there_again_without_page_faults() -> None:
    by_default, kept = _run('leave'), _run('keep')
    assert kept[0] == 'True'
    assert int(by_default[1]) > 1000 > 100 > int(kept[1])


def test_settings_of_the_environment_hold() -> None:
    assert _run('keep', MALLOC_TOP_PAD_='131072')[0] == 'False'
