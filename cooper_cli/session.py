"""Opening a model for a command."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cooper_model.answerer import Answerer


def open_reasoner(
    checkpoint: Path | None,
    backend: str,
    device: str | None,
    threads: int | None,
    graphs: Path | None = None,
    quantise: str | None = None,
    server: str | None = None,
) -> Answerer:
    """Load a checkpoint folder, or turn to a server.

    :param threads: of a CPU back end; None leaves the choice to its library
    :param graphs: folder of exported graphs; None for the user's cache
    :param quantise: formats of weights; None leaves them as they are
    :param server: address for the back end ``remote``, which loads nothing here
    :raises FileNotFoundError, ValueError: the folder is no checkpoint, or does not fit its configuration
    :raises ServerFailed: the server is away, or cannot work
    """
    if server is not None or backend == 'remote':
        if server is None or backend != 'remote':
            raise ValueError('--backend remote and --server URL go together')
        local = {'--checkpoint': checkpoint, '--device': device, '--graphs': graphs, '--quantise': quantise}
        named = ', '.join(name for name, value in (*local.items(), ('--threads', threads)) if value is not None)
        if named:
            raise ValueError(f'{named} belong to a model of this machine; a server has its own')
        from cooper_model.backends.connection import Server
        from cooper_model.backends.remote import RemoteReasoner

        reasoner = RemoteReasoner(Server(server))
        reasoner.check()
        return reasoner
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
