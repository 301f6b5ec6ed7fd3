"""Exported graphs as TensorRT engines. Only calls that TensorRT 10.3 and 10.16 have in common are used here.

Engines are strongly typed: numbers have the formats that the graphs give them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import tensorrt
import torch
from torch import Tensor

from cooper_model.backends.failures import BackendFailed, OutOfMemory, is_out_of_memory
from cooper_model.backends.graph_backend import Run, Runner
from cooper_model.backends.profiles import Shapes

log = logging.getLogger(__name__)

class _Log(tensorrt.ILogger):
    """Hands TensorRT's messages to Python's logging, and keeps the errors for whoever asks why it failed."""

    def __init__(self) -> None:
        tensorrt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: tensorrt.ILogger.Severity, msg: str) -> None:
        if severity in (tensorrt.ILogger.Severity.INTERNAL_ERROR, tensorrt.ILogger.Severity.ERROR):
            self.errors.append(msg)
        elif severity == tensorrt.ILogger.Severity.WARNING:
            log.debug(msg)

    def failure(self, what: str) -> BackendFailed:
        """Return an exception that says what failed and why."""
        reason = '; '.join(self.errors[-3:]) or 'it gave no reason'
        self.errors.clear()
        kind = OutOfMemory if is_out_of_memory(reason) else BackendFailed
        return kind(f'TensorRT could not {what}: {reason}')


class _Monitor(tensorrt.IProgressMonitor):
    """Reports how far the outermost phase of a build is."""

    def __init__(self, tell: Callable[[float], None]) -> None:
        tensorrt.IProgressMonitor.__init__(self)
        self._tell = tell
        self._outer: tuple[str, int] | None = None

    def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:
        if self._outer is None:
            self._outer = (phase_name, max(1, num_steps))

    def step_complete(self, phase_name: str, step: int) -> bool:
        if self._outer is not None and phase_name == self._outer[0]:
            self._tell(min(1.0, (step + 1) / self._outer[1]))
        return True

    def phase_finish(self, phase_name: str) -> None:
        if self._outer is not None and phase_name == self._outer[0]:
            self._tell(1.0)
            self._outer = None


def build_engine(
    graph: Path, profiles: Sequence[Mapping[str, Shapes]], timings: Path, tell: Callable[[float], None]
) -> bytes:
    """Build the engine of a graph for the current GPU; takes minutes.

    :param profiles: shapes of the inputs that are free, one engine for all
    :param timings: file of what was measured before, read and written
    :raises BackendFailed: TensorRT does not take the graph, or a build failed
    """
    messages = _Log()
    builder = tensorrt.Builder(messages)
    network = builder.create_network(1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = tensorrt.OnnxParser(network, messages)
    if not parser.parse_from_file(str(graph)):
        messages.errors.extend(parser.get_error(i).desc() for i in range(parser.num_errors))
        raise messages.failure(f'read {graph}')
    config = builder.create_builder_config()
    config.progress_monitor = _Monitor(tell)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, (least, usual, most) in shapes.items():
            profile.set_shape(name, *(tensorrt.Dims(list(shape)) for shape in (least, usual, most)))
        config.add_optimization_profile(profile)
    # A cache of another version or GPU, or a damaged one, is no error: it is refused, and an empty one is filled.
    cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b'')
    if cache is None or not config.set_timing_cache(cache, False):
        config.set_timing_cache(config.create_timing_cache(b''), False)
    built = builder.build_serialized_network(network, config)
    if built is None:
        raise messages.failure(f'build an engine of {graph}')
    timings.write_bytes(bytes(config.get_timing_cache().serialize()))
    return bytes(built)


class _Engine:
    """One engine, with an execution context a profile; all run on torch's stream."""

    def __init__(self, runtime: tensorrt.Runtime, content: bytes, name: str, messages: _Log) -> None:
        self._name, self._messages = name, messages
        engine = runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise messages.failure(f'load the engine {name!r}, which may be of another GPU or version')
        self._engine = engine
        tensors = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [each for each in tensors if engine.get_tensor_mode(each) == tensorrt.TensorIOMode.INPUT]
        self._outputs = [each for each in tensors if each not in self.inputs]
        self._free = [each for each in self.inputs if -1 in _sizes(engine.get_tensor_shape(each))]
        self._contexts: list[tensorrt.IExecutionContext] = []
        for profile in range(engine.num_optimization_profiles):
            context = engine.create_execution_context()
            if context is None:
                raise messages.failure(f'allocate what the engine {name!r} works in')
            if not context.set_optimization_profile_async(profile, _stream()):
                raise messages.failure(f'choose profile {profile} of the engine {name!r}')
            self._contexts.append(context)

    def bind(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Run:
        """Return a call that runs the engine; as ``Runner.bind``, with shared weights among the inputs."""
        context = self._contexts[self._profile_of({name: tuple(inputs[name].shape) for name in self._free})]
        shapes = [context.set_input_shape(name, tuple(x.shape)) for name, x in inputs.items()]
        if not all(shapes):
            raise self._messages.failure(f'take the inputs of the engine {self._name!r}')
        like = next(iter(inputs.values()))
        # An engine writes all its outputs; those that nobody wants need a place, too.
        unwanted = {name: self._output(context, name, like.device) for name in self._outputs if name not in outputs}
        placed = {**inputs, **outputs, **unwanted}

        def run() -> None:
            done = [context.set_input_shape(name, tuple(x.shape)) for name, x in inputs.items()]
            done += [context.set_tensor_address(name, x.data_ptr()) for name, x in placed.items()]
            with torch.cuda.device(like.device):
                if not all(done) or not context.execute_async_v3(_stream()):
                    raise self._messages.failure(f'run the engine {self._name!r}')

        return run

    def _profile_of(self, shapes: Mapping[str, tuple[int, ...]]) -> int:
        """Return the first profile that all shapes lie in."""
        for profile in range(len(self._contexts)):
            if all(self._fits(name, shape, profile) for name, shape in shapes.items()):
                return profile
        given = {name: shape for name, shape in shapes.items() if not name.startswith('past_')}
        raise BackendFailed(
            f'the engine {self._name!r} takes no inputs of the sizes {given}; run: cooper export tensorrt, with larger '
            '--capacity or --latents'
        )

    def _fits(self, name: str, shape: tuple[int, ...], profile: int) -> bool:
        least, _, most = self._engine.get_tensor_profile_shape(name, profile)
        return all(low <= size <= high for low, size, high in zip(_sizes(least), shape, _sizes(most), strict=True))

    def _output(self, context: tensorrt.IExecutionContext, name: str, device: torch.device) -> Tensor:
        dtype = _DTYPES[self._engine.get_tensor_dtype(name)]
        return torch.empty(_sizes(context.get_tensor_shape(name)), dtype=dtype, device=device)


_DTYPES: dict[tensorrt.DataType, torch.dtype] = {
    tensorrt.DataType.FLOAT: torch.float32,
    tensorrt.DataType.HALF: torch.float16,
    tensorrt.DataType.BF16: torch.bfloat16,
    tensorrt.DataType.INT64: torch.int64,
}


def _sizes(dims: tensorrt.Dims) -> tuple[int, ...]:
    return tuple(dims[i] for i in range(len(dims)))


def _stream() -> int:
    return torch.cuda.current_stream().cuda_stream


class TensorRTRunner(Runner):
    """Runs the engines of a model.

    :param engines: serialised, by graph
    :param shared: weights that engines are given as inputs, by name, on ``device``
    :raises BackendFailed: an engine cannot be loaded
    """

    def __init__(
        self, engines: Mapping[str, bytes], shared: Mapping[str, Tensor], dtype: torch.dtype, device: torch.device
    ) -> None:
        self.device, self.dtype = device, dtype
        self._messages = _Log()
        self._runtime = tensorrt.Runtime(self._messages)
        self._shared = shared
        # An engine lies on the device that is current when it is loaded.
        with torch.cuda.device(device):
            self._engines = {
                name: _Engine(self._runtime, content, name, self._messages) for name, content in engines.items()
            }

    def bind(self, graph: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> Run:
        engine = self._engines[graph]
        shared = {name: self._shared[name] for name in engine.inputs if name not in inputs}
        return engine.bind({**shared, **inputs}, outputs)
