"""Exported graphs on ONNX Runtime: on a CPU, on CUDA, or on TensorRT by way of ONNX Runtime."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import onnxruntime
import torch
from onnxruntime.capi import onnxruntime_pybind11_state as state
from torch import Tensor

from cooper_model.allocator import keep_freed_memory
from cooper_model.backends.failures import BackendFailed, BackendUnavailable, OutOfMemory, is_out_of_memory
from cooper_model.backends.graph_backend import GraphBackend, Run, Runner
from cooper_model.backends.graph_cache import CacheForm
from cooper_model.backends.graphs import GRAPHS, Manifest
from cooper_model.backends.profiles import STEP, Limits, Shapes, prefill_limit, shapes, sizes
from cooper_model.config import CooperConfig

log = logging.getLogger(__name__)

ERRORS = (
    state.Fail,
    state.RuntimeException,
    state.EPFail,
    state.InvalidArgument,
    state.InvalidGraph,
    state.InvalidProtobuf,
    state.NotImplemented,
    state.NoSuchFile,
    RuntimeError,
)
_ELEMENTS = {torch.float32: 1, torch.int64: 7, torch.float16: 10, torch.bfloat16: 16}  # of onnx.TensorProto


class Provider(NamedTuple):
    """A way of ONNX Runtime to compute.

    :param kind: what it is called as a device here
    :param loss: what is missing where the next one has to do
    """

    kind: str
    name: str
    loss: str


# In the order of speed, each the fallback of the one before.
PROVIDERS = (
    Provider('tensorrt', 'TensorrtExecutionProvider', 'engines tuned for this GPU'),
    Provider('cuda', 'CUDAExecutionProvider', 'the GPU, and with it most of the speed'),
    Provider('cpu', 'CPUExecutionProvider', ''),
)


@dataclass(frozen=True)
class OnnxSettings:
    """How ONNX Runtime computes.

    :param device: ``cpu``, ``cuda:0`` or ``tensorrt:0``; None for CUDA where it is there and else the CPU. Engines
        take minutes to build, so TensorRT is for those who name it
    :param engines: folder for TensorRT's engines and timings, made when needed
    :param limits: the greatest sizes that TensorRT's engines take
    """

    device: str | None = None
    engines: Path = Path('engines')
    limits: Limits = Limits()

    def providers(self, tell: bool = True) -> tuple[tuple[Provider, ...], int]:
        """Return the providers to try, the best first, and the index of the GPU.

        :param tell: warn of those that were asked for and are not there
        :raises ValueError: the device is unknown
        """
        kinds = [provider.kind for provider in PROVIDERS]
        kind, _, index = (self.device or 'cuda').partition(':')
        if kind not in kinds or not (index or '0').isdigit():
            raise ValueError(f'device {self.device!r} is unknown to ONNX Runtime; expected cpu, cuda:0 or tensorrt:0')
        wanted = PROVIDERS[kinds.index(kind) :]
        there = tuple(provider for provider in wanted if _is_there(provider, tell and self.device is not None))
        if not there:
            raise BackendUnavailable('this onnxruntime has no CPU provider; install onnxruntime or onnxruntime-gpu')
        return there, int(index or 0)


def _is_there(provider: Provider, tell: bool) -> bool:
    installed = provider.name in onnxruntime.get_available_providers()
    if installed and (provider.kind == 'cpu' or torch.cuda.is_available()):
        return True
    if tell and provider.loss:
        reason = 'torch sees no GPU' if installed else 'install onnxruntime-gpu'
        log.warning('ONNX Runtime has no %s here (%s); lost: %s', provider.name, reason, provider.loss)
    return False


class OnnxRunner(Runner):
    """One session a graph. Inputs and outputs are bound where they lie, so caches never leave the device.

    :raises BackendUnavailable: no provider takes the graphs
    :raises ValueError: the device is unknown
    """

    def __init__(self, folder: Path, manifest: Manifest, config: CooperConfig, settings: OnnxSettings) -> None:
        self.dtype = getattr(torch, manifest.precision)
        # Apart for each model: the provider's own key need not know of weights.
        self._engines = settings.engines / f'{manifest.model[:16]}-{manifest.precision}-opset{manifest.opset}'
        providers, self._index = settings.providers()
        # A stream of its own: torch's usual one has the address 0, which ONNX Runtime takes for none.
        self._stream = None if providers[0].kind == 'cpu' else torch.cuda.Stream(self._index)
        ranges = {name: _range(manifest, name, config, settings.limits) for name in GRAPHS}
        for provider, following in zip(providers, (*providers[1:], None), strict=True):
            try:
                self._sessions = {
                    name: self._open(folder / manifest.graphs[name].file, provider, ranges[name]) for name in GRAPHS
                }
            except ERRORS as error:
                if following is None:
                    raise BackendUnavailable(f'ONNX Runtime cannot open the graphs in {folder}: {error}') from error
                log.warning('%s cannot take the graphs (%s); lost: %s', provider.name, error, provider.loss)
            else:
                self.provider = provider
                break
        if self.provider.kind == 'cpu':
            self._stream = None
            keep_freed_memory()
        self.device = torch.device('cpu') if self._stream is None else torch.device('cuda', self._index)

    def _open(self, path: Path, provider: Provider, ranges: Mapping[str, Shapes]) -> Any:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; it warns of every shape operator that stays on the CPU
        if provider.kind == 'cpu':
            options.intra_op_num_threads = torch.get_num_threads()
        chain = [(each.name, self._options(each, ranges)) for each in PROVIDERS[PROVIDERS.index(provider) :]]
        session = onnxruntime.InferenceSession(path, options, providers=chain)
        if provider.name not in session.get_providers():
            raise RuntimeError(f'it was replaced by {", ".join(session.get_providers())}; see its messages above')
        return session

    def _options(self, provider: Provider, ranges: Mapping[str, Shapes]) -> dict[str, str]:
        if provider.kind == 'cpu':
            return {}
        assert self._stream is not None, 'GPUs have one'
        shared = {'device_id': str(self._index), 'user_compute_stream': str(self._stream.cuda_stream)}
        if provider.kind == 'cuda':
            return shared | {'use_tf32': '0'}
        self._engines.mkdir(parents=True, exist_ok=True)
        return shared | engine_options(self._engines, self.dtype, ranges)

    def bind(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Run:
        session = self._sessions[graph]
        binding = session.io_binding()
        with self._telling(graph, inputs):
            for bind, tensors in ((binding.bind_input, inputs), (binding.bind_output, outputs)):
                for name, x in tensors.items():
                    bind(name, x.device.type, x.device.index or 0, _ELEMENTS[x.dtype], tuple(x.shape), x.data_ptr())
        kept = (dict(inputs), dict(outputs))  # the binding knows addresses alone

        def run() -> None:
            with self._telling(graph, kept[0]), self._in_order():
                session.run_with_iobinding(binding)

        return run

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """Let a graph begin once torch has written what it reads, and torch go on once the graph is done."""
        if self._stream is None:
            yield
            return
        others = torch.cuda.current_stream(self._index)
        self._stream.wait_stream(others)
        yield
        others.wait_stream(self._stream)

    @contextmanager
    def _telling(self, graph: str, inputs: Mapping[str, Tensor]) -> Iterator[None]:
        try:
            yield
        except ERRORS as error:
            kind = OutOfMemory if is_out_of_memory(error) else BackendFailed
            given = {name: tuple(x.shape) for name, x in inputs.items() if not name.startswith('past_')}
            raise kind(f'ONNX Runtime failed in {graph!r} on {self.provider.kind} with {given}: {error}') from error


def engine_options(engines: Path, dtype: torch.dtype, ranges: Mapping[str, Shapes]) -> dict[str, str]:
    """Return what ONNX Runtime's TensorRT provider is told: where engines and timings are kept, sizes, formats."""
    kept = {'trt_engine_cache_enable': '1', 'trt_engine_cache_path': str(engines)}
    kept |= {'trt_timing_cache_enable': '1', 'trt_timing_cache_path': str(engines)}
    kept |= {f'trt_profile_{which}_shapes': _listed(ranges, i) for i, which in enumerate(('min', 'opt', 'max'))}
    return kept | {
        'trt_fp16_enable': str(int(dtype == torch.float16)),
        'trt_bf16_enable': str(int(dtype == torch.bfloat16)),
    }


def _range(manifest: Manifest, graph: str, config: CooperConfig, limits: Limits) -> dict[str, Shapes]:
    """Return for each input the least, usual and greatest shape over all profiles of a graph."""
    each = [shapes(manifest, graph, profile) for profile in sizes(graph, config, limits)]
    return {name: (each[0][name][0], each[-1][name][1], each[-1][name][2]) for name in each[0]}


def _listed(ranges: Mapping[str, Shapes], which: int) -> str:
    return ','.join(f'{name}:{"x".join(map(str, shape[which]))}' for name, shape in ranges.items())


class OnnxBackend(GraphBackend):
    """Computes a model by its exported graphs on ONNX Runtime."""

    name = 'onnx'

    def __init__(self, config: CooperConfig, runner: OnnxRunner, limits: Limits) -> None:
        compiled = runner.provider.kind == 'tensorrt'
        limit = limits.capacity if compiled else None
        form = CacheForm(config.decoder, runner.dtype, runner.device, STEP, limit)
        super().__init__(config, runner, form, most_tokens=prefill_limit(config) if compiled else None)

    @classmethod
    def load(
        cls, checkpoint: str | Path, graphs: str | Path, model: str, settings: OnnxSettings | None = None
    ) -> OnnxBackend:
        """Open the graphs in a folder.

        :param model: fingerprint of the checkpoint that they must be of
        :raises FileNotFoundError, ValueError: the folder is not what it should be; see ``Manifest.check``
        :raises BackendUnavailable: ONNX Runtime does not take them
        """
        settings = settings or OnnxSettings()
        manifest = Manifest.load(graphs)
        manifest.check(graphs, model)
        config = CooperConfig.load(checkpoint)
        return cls(config, OnnxRunner(Path(graphs), manifest, config, settings), settings.limits)
