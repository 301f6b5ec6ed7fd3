"""Graphs that are exported when they are first asked for, and kept in the user's cache."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

from filelock import FileLock

from cooper_model.backends.graphs import OPSETS, Manifest, Precision, cache_folder
from cooper_model.export.onnx import Progress, export_onnx

log = logging.getLogger(__name__)


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
    folder = cache_folder() / 'graphs' / f'{model[:16]}-{precision}-opset{opset}'
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f'{folder}.lock'):
        if folder.exists():
            try:
                Manifest.load(folder).check(folder, model)
            except (OSError, ValueError) as error:
                log.warning('exporting the graphs again: %s', error)
                shutil.rmtree(folder)
        if not folder.exists():
            log.warning('exporting the graphs of %s to %s, once; this takes a minute or more', checkpoint, folder)
            part = folder.with_suffix('.part')
            shutil.rmtree(part, ignore_errors=True)
            export_onnx(checkpoint, part, opset=opset, precision=precision, progress=progress)
            part.rename(folder)
    return folder
