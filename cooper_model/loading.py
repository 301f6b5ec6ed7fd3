"""From a checkpoint folder to a reasoner, on the best backend that is there."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from cooper_model.prompts import Prompts
from cooper_model.reasoner import Reasoner
from cooper_model.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from cooper_model.backends.base import Backend
    from cooper_model.context import Kernel

BACKENDS = ('torch',)


def default_checkpoint() -> Path:
    """Return the folder of cooper-nano, which is shipped with the package."""
    return Path(__file__).parent / 'checkpoints' / 'nano'


def load(
    checkpoint: str | Path | None = None,
    backend: str = 'auto',
    device: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    graphs: str | Path | None = None,
    kernel: Kernel | None = None,
) -> Reasoner[Any]:
    """Load a checkpoint for asking and perceiving.

    :param checkpoint: folder; default cooper-nano
    :param backend: ``torch``, or ``auto`` for the best that is there
    :param device: torch device, default the first CUDA device where there is one, otherwise the CPU
    :param dtype: of weights and arithmetic; default bfloat16 on CUDA, float32 on a CPU
    :param graphs: folder of exported graphs, for backends that run them
    :param kernel: how attention is computed; default what suits the device
    :raises FileNotFoundError: the folder or one of its files is missing
    :raises ValueError: the backend is not there, or a file does not fit the others
    """
    folder = Path(checkpoint) if checkpoint else default_checkpoint()
    model = load_backend(folder, backend, device, dtype=dtype, graphs=graphs, kernel=kernel)
    return Reasoner(model, Tokenizer.load(folder, model.config.tokens), Prompts.load(folder))


def load_backend(
    checkpoint: str | Path | None = None,
    backend: str = 'auto',
    device: str | None = None,
    *,
    dtype: torch.dtype | None = None,
    graphs: str | Path | None = None,
    kernel: Kernel | None = None,
) -> Backend[Any]:
    """Load the model of a checkpoint without its tokenizer and prompts; parameters as :func:`load`."""
    if backend not in ('auto', *BACKENDS):
        raise ValueError(f'backend {backend!r} is not available; available: auto, {", ".join(BACKENDS)}')
    if graphs is not None:
        raise ValueError(
            f'graphs {str(graphs)!r} cannot be used: the torch backend computes from the weights'
        )
    from cooper_model.backends.torch import TorchBackend

    folder = Path(checkpoint) if checkpoint else default_checkpoint()
    return TorchBackend.load(folder, device=device, dtype=dtype, kernel=kernel)
