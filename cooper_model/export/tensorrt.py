"""From graphs to TensorRT engines: which are missing, whether they fit, building and loading them.

The library itself is imported late, so that this can be asked, and says what is missing, where it is not installed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from cooper_model.backends.engines import (
    EngineKey,
    EngineStore,
    built_keys,
    built_limits,
    plan_memory,
    tensorrt_version,
)
from cooper_model.backends.failures import BackendUnavailable
from cooper_model.backends.graph_backend import GraphBackend, Runner
from cooper_model.backends.graph_cache import CacheForm
from cooper_model.backends.graphs import GRAPHS, Manifest, Precision, cache_folder, fingerprint_checkpoint
from cooper_model.backends.profiles import STEP, Limits, prefill_limit, shapes, sizes
from cooper_model.config import CooperConfig
from cooper_model.export import shared
from cooper_model.export.cache import cached_graphs, graphs_folder

log = logging.getLogger(__name__)

# Told which engine is being built and how far it is, 0..1.
Progress = Callable[[str, float], None]
_NEW_OPERATORS = (10, 15)  # from here on TensorRT takes what graphs of opset 23 contain


@dataclass(frozen=True)
class Target:
    """The GPU that engines are for.

    :param gpu: architecture, such as ``sm_87``
    :param total, free: bytes of its memory
    """

    device: torch.device
    gpu: str
    total: int
    free: int
    tensorrt: str

    @property
    def opset(self) -> int:
        """Return the opset whose operators this TensorRT takes."""
        return 23 if tuple(int(part) for part in self.tensorrt.split('.')[:2]) >= _NEW_OPERATORS else 20


def find_target(device: str | None = None) -> Target:
    """Return the GPU to use.

    :raises BackendUnavailable: there is no TensorRT, or no GPU
    :raises ValueError: the device is no GPU
    """
    version = tensorrt_version()
    if not torch.cuda.is_available():
        raise BackendUnavailable('TensorRT needs a GPU and torch sees none; use --backend onnx or torch')
    place = torch.device(device or 'cuda')
    if place.type != 'cuda':
        raise ValueError(f'device {device!r} is no GPU; TensorRT needs one, for example cuda:0')
    place = torch.device('cuda', place.index or 0)
    major, minor = torch.cuda.get_device_capability(place)
    free, total = torch.cuda.mem_get_info(place)
    return Target(place, f'sm_{major}{minor}', total, free, version)


@dataclass(frozen=True)
class EngineSet:
    """All engines of a checkpoint for one GPU, built or to be built."""

    config: CooperConfig
    graphs: Path
    manifest: Manifest
    target: Target
    store: EngineStore

    def build(self, progress: Progress | None = None) -> None:
        """Build the engines that are missing or damaged; takes minutes for each.

        :raises BackendFailed: TensorRT failed
        """
        for graph in self.store.missing():
            log.warning('building the TensorRT engine %r for %s; this takes minutes', graph, self.store.key.gpu)
            with torch.cuda.device(self.target.device):
                self.store.write(graph, self._built(graph, _teller(progress, graph)))

    def _built(self, graph: str, tell: Callable[[float], None]) -> bytes:
        from cooper_model.backends.tensorrt import build_engine

        key = self.store.key
        path = self.graphs / self.manifest.graphs[graph].file
        profiles = [shapes(self.manifest, graph, profile) for profile in sizes(graph, self.config, key.limits)]
        if key.shares and graph in shared.SHARING:
            names = shared.shared_names(self.graphs, self.manifest)
            path = shared.write_sharing(self.graphs, self.manifest, graph, names)
        self.store.folder.mkdir(parents=True, exist_ok=True)
        return build_engine(path, profiles, self.store.folder / 'timings', tell)

    def load(self) -> TensorRTBackend:
        """Load the engines, after building those that are missing."""
        from cooper_model.backends.tensorrt import TensorRTRunner

        self.build()
        engines = {}
        for graph in GRAPHS:
            content = self.store.read(graph)
            if content is None:
                raise BackendUnavailable(f'{self.store.path(graph)} was damaged meanwhile; load again to build it')
            engines[graph] = content
        weights = {}
        if self.store.key.shares:
            names = shared.shared_names(self.graphs, self.manifest)
            weights = shared.read_weights(self.graphs, self.manifest, names, self.target.device)
        dtype = getattr(torch, self.manifest.precision)
        runner = TensorRTRunner(engines, weights, dtype, self.target.device)
        return TensorRTBackend(self.config, runner, self.store.key.limits)


def _teller(progress: Progress | None, graph: str) -> Callable[[float], None]:
    return lambda done: None if progress is None else progress(graph, done)


class TensorRTBackend(GraphBackend):
    """Computes a model by TensorRT engines of its exported graphs."""

    name = 'tensorrt'

    def __init__(self, config: CooperConfig, runner: Runner, limits: Limits) -> None:
        form = CacheForm(config.decoder, runner.dtype, runner.device, STEP, limits.capacity)
        super().__init__(config, runner, form, most_tokens=prefill_limit(config))


def find_engines(
    checkpoint: str | Path,
    device: str | None = None,
    precision: Precision = 'bfloat16',
    folder: str | Path | None = None,
    limits: Limits | None = None,
) -> EngineSet:
    """Return the engines of a checkpoint for the GPU that is there; nothing is built yet.

    :param folder: of graphs, with engines in its folder ``engines``; default the user's cache, where graphs are
        exported on first use
    :param limits: greatest sizes; default those of engines that are there, else the usual ones
    :raises BackendUnavailable: no TensorRT, no GPU, or not enough memory
    :raises FileNotFoundError, ValueError: a folder is not what it should be
    """
    target = find_target(device)
    model = fingerprint_checkpoint(checkpoint)
    if folder is None:
        graphs, root = cached_graphs(checkpoint, model, precision, target.opset), cache_folder() / 'engines'
    else:
        graphs, root = Path(folder), Path(folder) / 'engines'
    manifest, config = Manifest.load(graphs), CooperConfig.load(checkpoint)
    manifest.check(graphs, model)
    if manifest.opset > target.opset:
        raise ValueError(
            f'the graphs in {graphs} are of opset {manifest.opset}, which TensorRT {target.tensorrt} does not take; '
            f'run: cooper export onnx --opset {target.opset} --out DIR'
        )
    key = EngineKey(model, target.gpu, target.tensorrt, manifest.precision, manifest.opset, manifest.digest)
    key = replace(key, limits=limits or built_limits(root, key))
    plan = plan_memory(manifest, config, key.limits, shared.shared_bytes(graphs, manifest))
    key = replace(key, shares=plan.shares(target.total))
    plan.require(target.free, key.shares)
    return EngineSet(config, graphs, manifest, target, EngineStore(root, key))


def has_engines(checkpoint: str | Path, precision: Precision = 'bfloat16') -> bool:
    """Return whether the user's cache has all engines of a checkpoint for this GPU, and they fit."""
    try:
        target = find_target()
        model = fingerprint_checkpoint(checkpoint)
        manifest = Manifest.load(graphs_folder(model, precision, target.opset))
    except (BackendUnavailable, FileNotFoundError, ValueError):
        return False
    root = cache_folder() / 'engines'
    key = EngineKey(model, target.gpu, target.tensorrt, precision, target.opset, manifest.digest)
    return any(not EngineStore(root, each).missing() for each in built_keys(root, key))
