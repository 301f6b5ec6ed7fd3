"""What this process takes of the machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

_MB = 1e6
_STATM = Path('/proc/self/statm')


def memory() -> dict[str, str]:
    """Return the memory that this process holds now, by kind, for people."""
    used = {}
    if _STATM.is_file():
        resident = int(_STATM.read_text(encoding='ascii').split()[1]) * os.sysconf('SC_PAGE_SIZE')
        used['memory [MB]'] = f'{resident / _MB:.0f}'
    # It is not to be loaded for this, and may be half loaded by another thread.
    cuda = sys.modules.get('torch.cuda')
    if getattr(cuda, 'is_initialized', bool)():
        used['device memory of torch [MB]'] = f'{cuda.memory_reserved() / _MB:.0f}'
    return used
