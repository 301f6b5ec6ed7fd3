"""Opening a model for a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooper_model.reasoner import Reasoner


def open_reasoner(
    checkpoint: Path | None,
    backend: str,
    device: str | None,
    threads: int | None,
    graphs: Path | None = None,
    quantise: str | None = None,
) -> Reasoner:
    """Load a checkpoint folder.

    :param threads: of a CPU back end; None leaves the choice to its library
    :param graphs: folder of exported graphs; None for the user's cache
    :param quantise: formats of weights; None leaves them as they are
    :raises FileNotFoundError, ValueError: the folder is no checkpoint, or does not fit its configuration
    """
    set_threads(threads)
    from cooper_model.loading import load

    return load(checkpoint, backend=backend, device=device, graphs=graphs, quantise=quantise)


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads of torch and return the number in force."""
    if threads is not None:
        os.environ['OMP_NUM_THREADS'] = str(threads)  # for libraries that are loaded later
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
