"""TensorRT engines in the user's cache: what one was built for, whether it is whole, and whether it fits in memory.

Calls nothing of TensorRT but its version, so it can be asked where that is not installed.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cooper_model.backends.failures import BackendUnavailable
from cooper_model.backends.graphs import GRAPHS, Manifest, Precision, fingerprint
from cooper_model.backends.profiles import Limits
from cooper_model.config import CooperConfig

OLDEST, NEWEST = (10, 3), (10, 16)
KEY = 'key.json'
ITEM_BYTES: dict[Precision, int] = {'float32': 4, 'float16': 2, 'bfloat16': 2}
# Beside weights and caches: activations of the widest profile, CUDA's own, and what else runs on the device.
WORKING_BYTES = 3 * 10**9


def tensorrt_version() -> str:
    """Return the version of TensorRT that is installed.

    :raises BackendUnavailable: it is not there, only its type stubs are, or the version is not one that is supported
    """
    remedy = 'install cooper_ros[tensorrt], or use --backend onnx or torch'
    try:
        import tensorrt
    except ImportError as error:
        raise BackendUnavailable(f'TensorRT is not installed ({error}); {remedy}') from error
    found = getattr(tensorrt, '__version__', None)
    if found is None:
        raise BackendUnavailable(f'of TensorRT only type stubs are installed; {remedy}')
    if not OLDEST <= tuple(int(part) for part in found.split('.')[:2]) <= NEWEST:
        raise BackendUnavailable(f'TensorRT {found} is installed, expected 10.3 to 10.16; {remedy}')
    return found


@dataclass(frozen=True)
class EngineKey:
    """Everything that an engine depends on; it is built again where any of it differs.

    :param model: fingerprint of the checkpoint
    :param gpu: architecture, such as ``sm_87``
    :param tensorrt: version of the library
    :param graphs: digest of the graphs that it is built from
    :param shares: whether the engines of the language model are given its weights instead of holding them
    """

    model: str
    gpu: str
    tensorrt: str
    precision: Precision
    opset: int
    graphs: str
    limits: Limits = Limits()
    shares: bool = False

    @property
    def folder_name(self) -> str:
        """Return a name that no other key has."""
        digest = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
        return f'{self.gpu}-tensorrt{self.tensorrt}-{self.precision}-{digest[:16]}'


class EngineStore:
    """The engines of one key, in a folder of their own.

    :param root: folder of all engines
    """

    def __init__(self, root: Path, key: EngineKey) -> None:
        self.folder = root / key.folder_name
        self.key = key

    def path(self, graph: str) -> Path:
        """Return the file of a graph's engine."""
        return self.folder / f'{graph}.engine'

    def is_sound(self, graph: str) -> bool:
        """Return whether there is an engine of this key, and its file is not damaged."""
        try:
            noted = json.loads((self.folder / KEY).read_text(encoding='utf-8'))
            return noted['key'] == asdict(self.key) and noted['files'][graph] == fingerprint([self.path(graph)])
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def read(self, graph: str) -> bytes | None:
        """Return an engine, None where there is no sound one."""
        return self.path(graph).read_bytes() if self.is_sound(graph) else None

    def write(self, graph: str, content: bytes) -> None:
        """Keep an engine."""
        self.folder.mkdir(parents=True, exist_ok=True)
        _replace(self.path(graph), content)
        noted = {'key': asdict(self.key), 'files': {**self._noted(), graph: fingerprint([self.path(graph)])}}
        _replace(self.folder / KEY, json.dumps(noted, indent=1).encode())

    def missing(self) -> list[str]:
        """Return the graphs that have no sound engine."""
        return [graph for graph in GRAPHS if not self.is_sound(graph)]

    def _noted(self) -> dict[str, str]:
        try:
            return json.loads((self.folder / KEY).read_text(encoding='utf-8'))['files']
        except (OSError, ValueError, KeyError, TypeError):
            return {}


def _replace(path: Path, content: bytes) -> None:
    beside = path.with_name(f'.{path.name}.part')
    beside.write_bytes(content)
    os.replace(beside, path)


def built_keys(root: Path, like: EngineKey) -> list[EngineKey]:
    """Return the keys of engines in a folder that differ from a key in limits and sharing alone, newest first."""
    found = []
    for path in sorted(root.glob(f'*/{KEY}'), key=lambda path: path.stat().st_mtime, reverse=True):
        try:
            noted = json.loads(path.read_text(encoding='utf-8'))['key']
            key = EngineKey(**{**noted, 'limits': Limits(**noted['limits'])})
        except (ValueError, KeyError, TypeError):
            continue  # damaged: as good as not there
        if replace(key, limits=like.limits, shares=like.shares) == like:
            found.append(key)
    return found


def built_limits(root: Path, like: EngineKey) -> Limits:
    """Return the limits of the newest engines that otherwise match a key, or the usual ones."""
    keys = built_keys(root, like)
    return keys[0].limits if keys else like.limits


@dataclass(frozen=True)
class MemoryPlan:
    """Bytes of device memory that a model's engines need.

    :param separate: weights where every engine has its own copy
    :param shared: weights where the language model's are given to both of its engines
    :param caches: keys and values: a conversation, its twin, and the branches of guidance
    """

    separate: int
    shared: int
    caches: int

    def needed(self, shares: bool) -> int:
        """Return the bytes of everything."""
        return (self.shared if shares else self.separate) + self.caches + WORKING_BYTES

    def shares(self, total: int) -> bool:
        """Return whether weights have to be shared on a device of ``total`` bytes."""
        return self.needed(shares=False) > total

    def require(self, free: int, shares: bool) -> None:
        """Check that everything fits into ``free`` bytes.

        :raises BackendUnavailable: it does not; the text has the figures
        """
        needed = self.needed(shares)
        if needed > free:
            raise BackendUnavailable(
                f'TensorRT needs {needed / 1e9:.1f} GB ({(needed - self.caches - WORKING_BYTES) / 1e9:.1f} GB of '
                f'weights, {self.caches / 1e9:.1f} GB of caches, {WORKING_BYTES / 1e9:.1f} GB to work in) but '
                f'{free / 1e9:.1f} GB are free; close other programs, or export with a smaller --capacity'
            )


def plan_memory(manifest: Manifest, config: CooperConfig, limits: Limits, both: int) -> MemoryPlan:
    """Count the bytes of weights in the graphs, and of caches at their largest.

    :param both: bytes of weights that two graphs can share
    """
    decoder, item = config.decoder, ITEM_BYTES[manifest.precision]
    token = 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim * item
    separate = sum(manifest.graphs[name].weight_bytes for name in GRAPHS)
    return MemoryPlan(separate, separate - both, token * limits.capacity * (2 + limits.branches))
