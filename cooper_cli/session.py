"""Opening a model for a command, or telling a node which one to open."""

from __future__ import annotations

import os
from dataclasses import asdict, fields
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooper_cli.options import BackendName, ModelChoice

if TYPE_CHECKING:
    from cooper_model.answerer import Answerer


def open_reasoner(model: ModelChoice) -> Answerer:
    """Load a checkpoint folder, or turn to a server, and set its sampler.

    :raises FileNotFoundError, ValueError: the folder is no checkpoint, or does not fit its configuration
    :raises ServerFailed: the server is away, or cannot work
    """
    if model.server is None and model.backend is not BackendName.remote:
        from cooper_model.loading import load

        set_threads(model.threads)
        reasoner: Answerer = load(**asdict(model.source))
    else:
        reasoner = _open_remote(model)
    reasoner.adjust(model.sampling)
    return reasoner


def _open_remote(model: ModelChoice) -> Answerer:
    if model.server is None or model.backend is not BackendName.remote:
        raise ValueError('--backend remote and --server URL go together')
    local = model.given('backend', 'server', 'sampler')
    if local:
        raise ValueError(f'{", ".join(local)} belong to a model of this machine; a server has its own')
    from cooper_model.backends.connection import Server
    from cooper_model.backends.remote import RemoteReasoner

    reasoner = RemoteReasoner(Server(model.server))
    reasoner.check()
    return reasoner


def node_parameters(model: ModelChoice) -> dict[str, Any]:
    """Return what was chosen as parameters of the node, by name. Threads are none of them.

    :raises ValueError: the node has no such setting of the sampler, or the value has another meaning there
    """
    from cooper_ros.parameters import SAMPLER

    found: dict[str, Any] = {}
    for each in fields(model):
        value = getattr(model, each.name)
        if each.name in ('threads', 'sampler') or value == each.default:
            continue
        found[each.name] = _plain(value)
    for name, value in model.sampling.items():
        if name not in SAMPLER:
            raise ValueError(f'--sampler: a node has no sampler.{name}; it has {", ".join(SAMPLER)}')
        if value == SAMPLER[name].default:
            raise ValueError(f'--sampler: to a node {name} {value} means that of the checkpoint; give another value')
        found[f'sampler.{name}'] = value
    return found


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value.resolve())
    return value.value if isinstance(value, Enum) else value


def set_threads(threads: int | None) -> int:
    """Set the number of CPU threads of torch and return the number in force."""
    if threads is not None:
        os.environ['OMP_NUM_THREADS'] = str(threads)  # for libraries that are loaded later
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    return torch.get_num_threads()
