"""From a checkpoint folder to a reasoner, on the best backend that is there."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cooper_model.backends.engines import tensorrt_version
from cooper_model.backends.failures import BackendUnavailable
from cooper_model.backends.graphs import PRECISIONS, Manifest, Precision, cache_folder, fingerprint_checkpoint
from cooper_model.prompts import Prompts
from cooper_model.quantise import FULL, Quantisation
from cooper_model.reasoner import Reasoner
from cooper_model.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from cooper_model.answerer import Answerer
    from cooper_model.backends.base import Backend
    from cooper_model.backends.connection import Server
    from cooper_model.context import Kernel

log = logging.getLogger(__name__)

REMOTE, AUTO = 'remote', 'auto'
TENSORRT_DTYPE: Precision = 'bfloat16'


@dataclass(frozen=True)
class Source:
    """What to load; each is the parameter of that name of :func:`load`."""

    checkpoint: str | Path | None = None
    backend: str = AUTO
    device: str | None = None
    graphs: str | Path | None = None
    quantise: str | None = None
    dtype: torch.dtype | str | None = None


def default_checkpoint() -> Path:
    """Return the folder of cooper-nano, which is shipped with the package."""
    return Path(__file__).parent / 'checkpoints' / 'nano'


def next_best(backend: str) -> str | None:
    """Return the backend to use where this one fails, None after the last and where there is no order."""
    return dict(zip(BACKENDS, BACKENDS[1:], strict=False)).get(backend)


def load(
    checkpoint: str | Path | None = None,
    backend: str = AUTO,
    device: str | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    graphs: str | Path | None = None,
    kernel: Kernel | None = None,
    quantise: str | None = None,
) -> Reasoner[Any]:
    """Load a checkpoint for asking and perceiving.

    :param checkpoint: folder; default cooper-nano
    :param backend: ``torch``, ``onnx``, ``tensorrt``, or ``auto``: TensorRT where its engines were built, else torch
    :param device: torch device, default the first CUDA device where there is one, otherwise the CPU
    :param dtype: of weights and arithmetic, also by name; default (or ``auto``) bfloat16 on CUDA, float32 on a CPU.
        ONNX Runtime knows float32 alone on a CPU
    :param graphs: folder of exported graphs, for backends that run them; default the user's cache, filled on first use
    :param kernel: how torch computes attention; default what suits the device
    :param quantise: formats of weights for the torch backend, as :meth:`~cooper_model.quantise.Quantisation.parse`
        reads them
    :raises FileNotFoundError: the folder or one of its files is missing
    :raises ValueError: the backend is not there, or a file does not fit the others
    """
    folder = Path(checkpoint) if checkpoint else default_checkpoint()
    model = load_backend(folder, backend, device, dtype=dtype, graphs=graphs, kernel=kernel, quantise=quantise)
    return _reasoner(folder, model)


def load_several(source: Source, count: int) -> list[Reasoner[Any]]:
    """Load a checkpoint once for several questions at a time, like steps of which are computed together.

    :returns: ``count`` reasoners, each for a thread of its own
    :raises FileNotFoundError, ValueError: as :func:`load`; more than one, and the backend computes one at a time
    """
    first = load(**asdict(source))
    return [Reasoner(seat, first.tokenizer, first.prompts) for seat in first.backend.seats(count)]


def load_backend(
    checkpoint: str | Path | None = None,
    backend: str = AUTO,
    device: str | None = None,
    *,
    dtype: torch.dtype | str | None = None,
    graphs: str | Path | None = None,
    kernel: Kernel | None = None,
    quantise: str | None = None,
) -> Backend[Any]:
    """Load the model of a checkpoint without its tokenizer and prompts; parameters as :func:`load`."""
    wish = _wish(Source(checkpoint, backend, device, graphs, quantise, dtype), kernel)
    return _LOADERS[_choose(wish, backend)](wish)


def load_working(source: Source, server: Server | None = None, broken: str | None = None) -> Answerer:
    """Load a checkpoint on the next best backend, with a warning, where the wanted one cannot be loaded.

    :param source: with the backend ``remote``: the server where it is well, else the best backend of this machine
    :param broken: a backend that broke down, instead of which the next best after it is to be loaded
    :raises FileNotFoundError, ValueError: as :func:`load`, where the last backend cannot be loaded either
    """
    if source.backend == REMOTE:
        if server is None:
            raise ValueError('the remote backend needs a server; name one, for example http://192.168.1.20:8000')
        from cooper_model.backends.remote import RemoteReasoner
        from cooper_model.fallback import Fallback

        return Fallback(RemoteReasoner(server), load_working(replace(source, backend=AUTO), broken=broken))
    wish = _wish(source)
    following = None if broken is None else next_best(broken)
    chosen = _choose(wish, source.backend) if following is None else following
    while True:
        try:
            fitting = wish if chosen == source.backend else wish.fitting(chosen)
            return _reasoner(wish.checkpoint, _LOADERS[chosen](fitting))
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            following = next_best(chosen)
            if following is None:
                raise
            log.warning('the %s backend cannot be used, %s is: %s', chosen, following, error)
            chosen = following


def _reasoner(folder: Path, model: Backend[Any]) -> Reasoner[Any]:
    return Reasoner(model, Tokenizer.load(folder, model.config.tokens), Prompts.load(folder))


@dataclass(frozen=True)
class _Wish:
    """What is to be loaded; parameters as :func:`load`."""

    checkpoint: Path
    device: str | None
    dtype: Precision | None
    graphs: Path | None
    kernel: Kernel | None
    quantise: Quantisation | None

    def fitting(self, backend: str) -> _Wish:
        """Return the wish less what is meant for graphs, where a backend that nobody named has none."""
        if backend != 'torch':
            return self
        named = (self.device or '').partition(':')[0]
        return replace(self, graphs=None, device=None if named == 'tensorrt' else self.device)


def _wish(source: Source, kernel: Kernel | None = None) -> _Wish:
    folder = Path(source.checkpoint) if source.checkpoint else default_checkpoint()
    graphs = None if source.graphs is None else Path(source.graphs)
    quantise = Quantisation.parse(source.quantise) if source.quantise and source.quantise != FULL else None
    return _Wish(folder, source.device, _number_type(source.dtype), graphs, kernel, quantise)


def _choose(wish: _Wish, backend: str) -> str:
    """Return the backend that a name means.

    What takes minutes to prepare is ``auto`` only where it was prepared.

    :raises ValueError: there is no such backend
    """
    if backend != AUTO:
        if backend not in BACKENDS:
            raise ValueError(f'backend {backend!r} is not available; available: {AUTO}, {", ".join(BACKENDS)}')
        return backend
    if wish.quantise is not None:
        return 'torch'
    if wish.graphs is not None:
        return 'onnx'
    if wish.device == 'cpu':
        return 'torch'
    try:
        tensorrt_version()
    except BackendUnavailable:
        return 'torch'
    from cooper_model.export.tensorrt import has_engines

    return 'tensorrt' if has_engines(wish.checkpoint, wish.dtype or TENSORRT_DTYPE) else 'torch'


def _load_torch(wish: _Wish) -> Backend[Any]:
    if wish.graphs is not None:
        raise ValueError(
            f'graphs {str(wish.graphs)!r} cannot be used: the torch backend computes from the weights'
        )
    import torch

    from cooper_model.backends.torch import TorchBackend

    dtype = None if wish.dtype is None else getattr(torch, wish.dtype)
    return TorchBackend.load(
        wish.checkpoint, device=wish.device, dtype=dtype, kernel=wish.kernel, quantise=wish.quantise
    )


def _load_onnx(wish: _Wish) -> Backend[Any]:
    _refuse_what_torch_does(wish)
    try:
        from cooper_model.backends.onnx import OnnxBackend, OnnxSettings
    except ImportError as error:
        raise BackendUnavailable(f'the onnx backend needs ONNX Runtime ({error}); install cooper_ros[onnx]') from error

    settings = OnnxSettings(wish.device, cache_folder() / 'engines' / 'onnxruntime')
    on_cpu = settings.providers(tell=False)[0][0].kind == 'cpu'
    if on_cpu and wish.dtype not in (None, 'float32'):
        raise BackendUnavailable(f'dtype {wish.dtype!r}: ONNX Runtime computes in float32 on a CPU; use backend torch')
    model = fingerprint_checkpoint(wish.checkpoint)
    graphs = wish.graphs
    if graphs is None:
        from cooper_model.export.cache import cached_graphs

        graphs = cached_graphs(wish.checkpoint, model, wish.dtype or ('float32' if on_cpu else 'bfloat16'))
    return OnnxBackend.load(wish.checkpoint, graphs, model, settings)


def _load_tensorrt(wish: _Wish) -> Backend[Any]:
    _refuse_what_torch_does(wish)
    tensorrt_version()
    from cooper_model.export.tensorrt import find_engines

    return find_engines(wish.checkpoint, wish.device, wish.dtype or TENSORRT_DTYPE, wish.graphs).load()


def _refuse_what_torch_does(wish: _Wish) -> None:
    if wish.kernel is not None:
        raise ValueError(f'attention kernel {wish.kernel!r} is for the torch backend; graphs have their own')
    if wish.quantise is not None:
        raise ValueError(f'quantise {str(wish.quantise)!r} is for the torch backend; graphs have a --precision')
    if wish.graphs is not None and wish.dtype is not None:
        found = Manifest.load(wish.graphs).precision
        if found != wish.dtype:
            raise ValueError(
                f'dtype {wish.dtype!r}: the graphs in {wish.graphs} compute in {found}; leave it out, or '
                f'run: cooper export onnx --precision {wish.dtype} --out DIR'
            )


def _number_type(dtype: torch.dtype | str | None) -> Precision | None:
    """Return the name of a number type, None for what suits the device.

    :raises ValueError: weights cannot have it
    """
    if dtype is None or dtype == AUTO:
        return None
    name = str(dtype).removeprefix('torch.')
    if name not in PRECISIONS:
        raise ValueError(f'dtype {name!r} is not available; available: {AUTO}, {", ".join(PRECISIONS)}')
    return cast(Precision, name)


# From the fastest to the one that runs everywhere: each is the next best of those before it.
_LOADERS: dict[str, Callable[[_Wish], Backend[Any]]] = {
    'tensorrt': _load_tensorrt,
    'onnx': _load_onnx,
    'torch': _load_torch,
}
BACKENDS = tuple(_LOADERS)
