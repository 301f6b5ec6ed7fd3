"""Graphs whose weights are inputs, so that two engines can read one copy of them."""

from __future__ import annotations

from pathlib import Path

import onnx_ir
import torch
from torch import Tensor

from cooper_model.backends.graphs import Manifest

SHARING = ('understand', 'velocity')
"""The two graphs that hold the understanding expert."""

_DTYPES = {
    onnx_ir.DataType.FLOAT: torch.float32,
    onnx_ir.DataType.FLOAT16: torch.float16,
    onnx_ir.DataType.BFLOAT16: torch.bfloat16,
}


def shared_names(folder: Path, manifest: Manifest) -> list[str]:
    """Return the stored weights that both graphs read."""
    held = [_stored(onnx_ir.load(folder / manifest.graphs[graph].file)) for graph in SHARING]
    return sorted(set(held[0]) & set(held[1]))


def _stored(model: onnx_ir.Model) -> dict[str, onnx_ir.ExternalTensor]:
    return {
        name: value.const_value
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, onnx_ir.ExternalTensor)
    }


def shared_bytes(folder: Path, manifest: Manifest) -> int:
    """Return how much of the weights both graphs read."""
    stored = _stored(onnx_ir.load(folder / manifest.graphs[SHARING[0]].file))
    return sum(stored[name].length for name in shared_names(folder, manifest))


def write_sharing(folder: Path, manifest: Manifest, graph: str, names: list[str]) -> Path:
    """Write a graph beside itself with some of its weights as inputs; returns the new file."""
    path = folder / manifest.graphs[graph].file
    model = onnx_ir.load(path)
    for name in names:
        value = model.graph.initializers.pop(name)
        value.const_value = None
        model.graph.inputs.append(value)
    target = path.with_suffix('.shared.onnx')
    onnx_ir.save(model, target)
    return target


def read_weights(folder: Path, manifest: Manifest, names: list[str], device: torch.device) -> dict[str, Tensor]:
    """Return stored weights on a device, one copy each."""
    stored = _stored(onnx_ir.load(folder / manifest.graphs[SHARING[0]].file))
    result = {}
    for name in names:
        place = stored[name]
        with (folder / place.location).open('rb') as file:
            file.seek(place.offset)
            content = bytearray(file.read(place.length))
        flat = torch.frombuffer(content, dtype=_DTYPES[place.dtype])
        result[name] = flat.view([int(size) for size in place.shape]).to(device)
    return result
