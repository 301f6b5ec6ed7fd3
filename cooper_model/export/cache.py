"""Graphs that are exported when they are first asked for, and kept in the user's cache."""

from __future__ import annotations

import hashlib
import logging
import shutil
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock

from cooper_model.backends.graphs import OPSETS, Manifest, Precision, cache_folder
from cooper_model.export.onnx import Progress, export_onnx

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def exporter() -> str:
    """Return a fingerprint of what graphs are made by: the sources of the networks and of the export, and torch."""
    package = Path(__file__).parents[1]
    sources = sorted(path for part in ('export', 'network') for path in (package / part).glob('*.py'))
    digest = hashlib.sha256(torch.__version__.encode())
    for path in sources:
        digest.update(path.read_bytes())
    return digest.hexdigest()


def graphs_folder(model: str, precision: Precision, opset: int) -> Path:
    """Return where the user's cache has, or will have, the graphs that this program makes of a checkpoint.

    :param model: fingerprint of the checkpoint
    """
    return cache_folder() / 'graphs' / f'{model[:16]}-{precision}-opset{opset}-{exporter()[:8]}'


def cached_graphs(
    checkpoint: str | Path,
    model: str,
    precision: Precision = 'float32',
    opset: int = OPSETS[0],
    progress: Progress | None = None,
) -> Path:
    """Return a folder with sound graphs of a checkpoint; export them where there are none, or damaged ones.

    Several processes may ask at once: one exports and the others wait for it.

    :param model: fingerprint of the checkpoint
    :raises OSError, ValueError: as :func:`export_onnx`
    """
    folder = graphs_folder(model, precision, opset)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if folder.exists():
            try:
                Manifest.load(folder).check(folder, model)
            except (OSError, ValueError) as error:
                log.warning('exporting the graphs again: %s', error)
                shutil.rmtree(folder)
        if not folder.exists():
            for old in folder.parent.glob(f'{model[:16]}-{precision}-opset{opset}-*/'):
                log.warning('%s holds graphs of another version of this program, and may be deleted', old)
            log.warning('exporting the graphs of %s to %s, once; this takes a minute or more', checkpoint, folder)
            part = folder.with_suffix('.part')
            shutil.rmtree(part, ignore_errors=True)
            export_onnx(checkpoint, part, opset=opset, precision=precision, progress=progress)
            part.rename(folder)
    return folder
