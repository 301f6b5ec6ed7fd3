"""Folders of exported graphs: their names, the manifest beside them, and whether they belong to a checkpoint.

A folder holds ``manifest.json``, one ``.onnx`` file a graph and one file of weights that all graphs share.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from cooper_model.config import CooperConfig

MANIFEST, WEIGHTS = 'manifest.json', 'weights.bin'
FORMAT = 1
GRAPHS = ('embed', 'vision', 'encode', 'decode', 'understand', 'velocity')
Precision = Literal['float32', 'float16', 'bfloat16']
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
OPSETS = (23, 20)

_WHOLE = 64 * 2**20
_CHUNK = 64 * 2**10


@dataclass(frozen=True)
class GraphFile:
    """One graph.

    :param inputs: shape of each; a name is a free size, ``16*rows`` a multiple of one
    :param weight_bytes: of what it refers to in the file of weights
    """

    file: str
    sha256: str
    inputs: dict[str, list[int | str]]
    outputs: list[str]
    weight_bytes: int


@dataclass(frozen=True)
class Manifest:
    """What a folder of graphs is.

    :param model: :func:`fingerprint_checkpoint` of the checkpoint that was exported
    :param opset: version of ONNX's operators
    :param precision: of weights, caches and arithmetic
    :param weights: :func:`fingerprint` of the file of weights
    """

    model: str
    opset: int
    precision: Precision
    weights: str
    graphs: dict[str, GraphFile]
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """Return a fingerprint of all graphs and their weights."""
        parts = [self.weights, *(f'{name} {self.graphs[name].sha256}' for name in sorted(self.graphs))]
        return hashlib.sha256('\n'.join(parts).encode()).hexdigest()

    def save(self, folder: Path) -> None:
        """Write the manifest; the last thing to be written, so that a folder with one is complete."""
        beside = folder / f'.{MANIFEST}.part'
        beside.write_text(json.dumps(asdict(self), indent=1) + '\n', encoding='utf-8')
        os.replace(beside, folder / MANIFEST)

    @classmethod
    def load(cls, folder: str | Path) -> Manifest:
        """Read the manifest of a folder.

        :raises FileNotFoundError: there is none
        :raises ValueError: it cannot be read, or is of another version of this program
        """
        path = Path(folder) / MANIFEST
        if not path.is_file():
            raise FileNotFoundError(f'{folder} holds no exported graphs ({MANIFEST} is missing); {_remedy(folder)}')
        try:
            content = json.loads(path.read_text(encoding='utf-8'))
            if content['format'] != FORMAT:
                raise ValueError(f'{path} has format {content["format"]}, expected {FORMAT}; {_remedy(folder)}')
            graphs = {name: GraphFile(**graph) for name, graph in content.pop('graphs').items()}
            return cls(graphs=graphs, **content)
        except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f'{path} is damaged ({error!r}); {_remedy(folder)}') from error

    def check(self, folder: str | Path, model: str) -> None:
        """Check every file, and that they were exported from the checkpoint whose fingerprint is ``model``.

        :raises FileNotFoundError: a file is missing
        :raises ValueError: a file is damaged, or the graphs are those of another checkpoint
        """
        folder = Path(folder)
        if self.model != model:
            raise ValueError(
                f'the graphs in {folder} are of another checkpoint (model {self.model[:12]}, expected {model[:12]}); '
                f'{_remedy(folder)}'
            )
        missing = [name for name in GRAPHS if name not in self.graphs]
        if missing:
            raise ValueError(f'{folder / MANIFEST} lacks the graphs {", ".join(missing)}; {_remedy(folder)}')
        for name in GRAPHS:
            path = folder / self.graphs[name].file
            self._check_file(path, self.graphs[name].sha256, hashlib.sha256(_content(path)).hexdigest())
        weights = folder / WEIGHTS
        self._check_file(weights, self.weights, fingerprint([weights]))

    @staticmethod
    def _check_file(path: Path, expected: str, found: str) -> None:
        if expected != found:
            raise ValueError(f'{path} is damaged ({path.stat().st_size} bytes); {_remedy(path.parent)}')


def _content(path: Path) -> bytes:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; {_remedy(path.parent)}')
    return path.read_bytes()


def _remedy(folder: str | Path) -> str:
    return f'run: cooper export onnx --checkpoint DIR --out {folder}'


def cache_folder() -> Path:
    """Return where this program keeps what it can make again: ``COOPER_CACHE``, or ``cooper`` in the user's cache."""
    given = os.environ.get('COOPER_CACHE')
    if given:
        return Path(given)
    return Path(os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache') / 'cooper'


def fingerprint_checkpoint(folder: str | Path) -> str:
    """Return what tells one checkpoint from another: a SHA-256 of its configuration and weights.

    :raises FileNotFoundError, ValueError: as ``CooperConfig.load``
    """
    folder = Path(folder)
    config = repr(CooperConfig.load(folder))
    return fingerprint(sorted(folder.glob('*.safetensors')), hashlib.sha256(config.encode()))


def fingerprint(paths: Iterable[Path], digest: hashlib._Hash | None = None) -> str:
    """Return a SHA-256 of the sizes and contents of files.

    Of a file above 64 MiB, 1024 pieces of 64 KiB count, evenly spread from its first to its last byte: reading all of
    a checkpoint of 29 GB would take longer than loading it. A change that no piece touches goes unnoticed.

    :raises FileNotFoundError: a file is missing
    """
    digest = digest or hashlib.sha256()
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f'{path} is missing; {_remedy(path.parent)}')
        size = path.stat().st_size
        digest.update(f'{path.name} {size} '.encode())
        with path.open('rb') as file:
            if size <= _WHOLE:
                digest.update(file.read())
                continue
            pieces = _WHOLE // _CHUNK
            for number in range(pieces):
                file.seek((size - _CHUNK) * number // (pieces - 1))
                digest.update(file.read(_CHUNK))
    return digest.hexdigest()
