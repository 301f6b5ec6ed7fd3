"""The processes of a run: how many there are, on which device, and what they tell each other, by accelerate."""

from __future__ import annotations

from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs

from cooper_model.allocator import keep_freed_memory

# While the first process evaluates, the others wait.
PATIENCE = timedelta(hours=3)


def start_processes() -> Accelerator:
    """Return this process among those that ``torchrun`` or ``accelerate launch`` started, or alone.

    May be called again. Precision, accumulation and sharding stand in the run's YAML file, not in one of accelerate.
    """
    if not torch.cuda.is_available():
        keep_freed_memory()
    patience = InitProcessGroupKwargs(timeout=PATIENCE)
    return Accelerator(cpu=not torch.cuda.is_available(), kwargs_handlers=[patience])
