"""Export of a checkpoint to ONNX: one graph a part of the model, and one file of weights that they share."""

from __future__ import annotations

import hashlib
import logging
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cooper_model.backends.graphs import (
    GRAPHS,
    MANIFEST,
    OPSETS,
    PRECISIONS,
    WEIGHTS,
    GraphFile,
    Manifest,
    Precision,
    fingerprint,
    fingerprint_checkpoint,
)
from cooper_model.checkpoint import load_model
from cooper_model.export.modules import transpose_linears
from cooper_model.export.operators import check_operators
from cooper_model.export.rewrite import spell_out
from cooper_model.export.specs import FUSED_OPSET, Spec, specs

if TYPE_CHECKING:
    import onnx_ir

# Told before each graph: its name, how many are done, how many there are.
Progress = Callable[[str, int, int], None]

_ALIGNMENT = 4096
_LEAST_BYTES = 4096


def export_onnx(
    checkpoint: str | Path,
    out: str | Path,
    *,
    opset: int = OPSETS[0],
    precision: Precision = 'float32',
    progress: Progress | None = None,
) -> Manifest:
    """Export every graph of a checkpoint into a folder.

    :param opset: 23, or 20 for runtimes that know no ``Attention`` (TensorRT 10.3)
    :raises FileNotFoundError: the checkpoint or one of its files is missing
    :raises ValueError: an option is unknown, or the disk is too small
    :raises OSError: the folder cannot be written
    """
    if opset not in OPSETS or precision not in PRECISIONS:
        raise ValueError(
            f'opset {opset} with precision {precision!r} cannot be exported; expected opset '
            f'{" or ".join(map(str, OPSETS))} and precision {", ".join(PRECISIONS)}'
        )
    out = Path(out)
    identity = fingerprint_checkpoint(checkpoint)
    model, autoencoder = load_model(checkpoint, dtype=getattr(torch, precision))
    for module in (model, autoencoder):
        transpose_linears(module.eval().requires_grad_(False))
    out.mkdir(parents=True, exist_ok=True)
    _require_space(out, sum(value.nbytes for part in (model, autoencoder) for value in part.state_dict().values()))
    (out / MANIFEST).unlink(missing_ok=True)
    files = {}
    with Weights(out / WEIGHTS) as weights:
        for number, spec in enumerate(specs(model, autoencoder, opset)):
            if progress is not None:
                progress(spec.name, number, len(GRAPHS))
            files[spec.name] = _write(spec, trace(spec, opset), weights, out)
    manifest = Manifest(identity, opset, precision, fingerprint([out / WEIGHTS]), files)
    manifest.save(out)
    return manifest


def trace(spec: Spec, opset: int) -> onnx_ir.Model:
    """Return the graph of a module.

    :raises ValueError: it contains an operator that is not allowed
    """
    with warnings.catch_warnings(), torch.no_grad():
        # About names of free sizes and the exporter's own deprecations; nothing that a user could change.
        warnings.simplefilter('ignore')
        for name in ('torch.onnx', 'onnxscript'):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            spec.module.eval(),
            spec.arguments,
            dynamo=True,
            opset_version=opset,
            dynamic_shapes=spec.dynamic_shapes,
            input_names=spec.input_names,
            output_names=spec.outputs,
            verbose=False,
        )
    assert program is not None  # only where a file name is given
    if opset < FUSED_OPSET:
        spell_out(program.model)
    check_operators(program.model, opset)
    return program.model


class Weights:
    """The file of weights while it is written; a tensor that several graphs have is written once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[tuple[str, tuple[int, ...], str], tuple[int, int]] = {}

    def __enter__(self) -> Weights:
        self._file = self._path.open('wb')
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def move_out(self, model: onnx_ir.Model) -> int:
        """Replace the large tensors of a graph by references into the file; returns their bytes."""
        import onnx_ir

        total = 0
        for name, value in model.graph.initializers.items():
            tensor = value.const_value
            if tensor is None or tensor.nbytes < _LEAST_BYTES:
                continue
            # A module's tensors have dotted names, the same in every graph; constants are a graph's own.
            key = (name if '.' in name else hashlib.sha256(tensor.tobytes()).hexdigest(), *_kind(tensor))
            if key not in self._places:
                self._places[key] = self._append(tensor.tobytes())
            offset, length = self._places[key]
            total += length
            value.const_value = onnx_ir.ExternalTensor(
                WEIGHTS, offset, length, tensor.dtype, shape=tensor.shape, name=name, base_dir=self._path.parent
            )
        return total

    def _append(self, content: bytes) -> tuple[int, int]:
        self._file.write(bytes(-self._file.tell() % _ALIGNMENT))
        offset = self._file.tell()
        self._file.write(content)
        return offset, len(content)


def _kind(tensor: onnx_ir.TensorProtocol) -> tuple[tuple[int, ...], str]:
    return tuple(int(size) for size in tensor.shape), tensor.dtype.name


def _write(spec: Spec, model: onnx_ir.Model, weights: Weights, out: Path) -> GraphFile:
    import onnx_ir

    weight_bytes = weights.move_out(model)
    path = out / f'{spec.name}.onnx'
    onnx_ir.save(model, path)
    return GraphFile(
        path.name,
        hashlib.sha256(path.read_bytes()).hexdigest(),
        {value.name: _shape(value) for value in model.graph.inputs},
        [value.name for value in model.graph.outputs],
        weight_bytes,
    )


def _shape(value: onnx_ir.Value) -> list[int | str]:
    return [size if isinstance(size, int) else str(size) for size in value.shape]


def _require_space(out: Path, needed: int) -> None:
    free = shutil.disk_usage(out).free
    if free < needed:
        raise ValueError(
            f'the graphs need {needed / 1e6:,.0f} MB but {out} has {free / 1e6:,.0f} MB left; choose another folder'
        )
