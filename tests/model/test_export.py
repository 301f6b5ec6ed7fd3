"""Exported graphs: the same numbers as the network, the allowed operators alone, one file of weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir
import pytest
import torch

from cooper_model.backends.graphs import GRAPHS, WEIGHTS, Manifest, fingerprint_checkpoint
from cooper_model.checkpoint import load_model, save_checkpoint
from cooper_model.export.onnx import export_onnx
from cooper_model.export.operators import SINCE, TARGETS, check_operators
from cooper_model.loading import default_checkpoint
from tests.model.graph_cases import cases

onnxruntime = pytest.importorskip('onnxruntime')

FORBIDDEN = {'If', 'Loop', 'NonZero', 'Scan', 'ScatterElements', 'ScatterND', 'Unique'}
TOLERANCE = 1e-4


@pytest.fixture(params=sorted(TARGETS))
def exported(request: pytest.FixtureRequest, tiny_graphs: Callable[[int], Path]) -> Path:
    return tiny_graphs(request.param)


def assert_agrees(checkpoint: Path, folder: Path) -> None:
    model, autoencoder = load_model(checkpoint)
    sizes: dict[str, set[str]] = {name: set() for name in GRAPHS}
    for case in cases(model.eval(), autoencoder.eval()):
        session = onnxruntime.InferenceSession(folder / f'{case.graph}.onnx', providers=['CPUExecutionProvider'])
        assert [node.name for node in session.get_inputs()] == list(case.inputs)
        found = session.run(list(case.outputs), case.inputs)
        for (name, expected), values in zip(case.outputs.items(), found, strict=True):
            error = np.abs(values - expected).max()
            assert error <= TOLERANCE * max(1.0, np.abs(expected).max()), (case.graph, case.size, name)
        sizes[case.graph].add(case.size)
    assert all(len(tried) >= 3 for tried in sizes.values())


def test_every_graph_agrees_with_the_network(tiny_checkpoint: Path, exported: Path) -> None:
    assert_agrees(tiny_checkpoint, exported)


def test_graphs_hold_allowed_operators_alone(exported: Path) -> None:
    manifest = Manifest.load(exported)
    for name in GRAPHS:
        model = onnx_ir.load(exported / manifest.graphs[name].file)
        assert model.opset_imports == {'': manifest.opset}
        used = {node.op_type for node in model.graph.all_nodes()}
        assert not used & FORBIDDEN and not any(operator.startswith('Sequence') for operator in used)
        check_operators(model, manifest.opset)
        assert not model.functions


def test_weights_are_stored_once(tiny_checkpoint: Path, exported: Path) -> None:
    model, autoencoder = load_model(tiny_checkpoint)
    total = sum(value.nbytes for part in (model, autoencoder) for value in part.state_dict().values())
    assert (exported / WEIGHTS).stat().st_size < 1.5 * total
    places: dict[str, set[int]] = {}
    for path in exported.glob('*.onnx'):
        for name, value in onnx_ir.load(path).graph.initializers.items():
            if isinstance(value.const_value, onnx_ir.ExternalTensor):
                assert value.const_value.location == WEIGHTS
                places.setdefault(name, set()).add(value.const_value.offset)
            else:
                assert value.const_value.nbytes < 4096
    shared = [name for name in places if name.startswith('model.language_model.model.layers.0.mlp.')]
    assert len(shared) == 3
    assert all(len(offsets) == 1 for name, offsets in places.items() if '.' in name)


def test_the_shipped_checkpoint_agrees(nano_graphs: Path) -> None:
    assert_agrees(default_checkpoint(), nano_graphs)


@pytest.mark.parametrize(('opset', 'operator'), [(20, 'Gelu'), (23, 'ScatterND'), (20, 'Attention')])
def test_an_operator_that_is_not_in_the_table_is_refused(opset: int, operator: str) -> None:
    x = onnx_ir.val('x', onnx_ir.DataType.FLOAT, [1])
    node = onnx_ir.node(operator, [x])
    graph = onnx_ir.Graph([x], node.outputs, nodes=[node], opset_imports={'': opset}, name='small')
    with pytest.raises(ValueError, match=f'contains {operator}, which TensorRT {TARGETS[opset][0]}'):
        check_operators(onnx_ir.Model(graph, ir_version=10), opset)


def test_the_table_of_operators_holds_nothing_forbidden() -> None:
    assert not set(SINCE) & FORBIDDEN


# Manifests and bad input


def test_a_manifest_belongs_to_one_checkpoint(tiny_checkpoint: Path, exported: Path, tmp_path: Path) -> None:
    manifest = Manifest.load(exported)
    manifest.check(exported, fingerprint_checkpoint(tiny_checkpoint))
    model, autoencoder = load_model(tiny_checkpoint)
    with torch.no_grad():
        model.llm2vae.bias[0] += 1
    save_checkpoint(tmp_path, model, autoencoder, dtype=torch.float32)
    with pytest.raises(ValueError, match='of another checkpoint .*run: cooper export onnx'):
        manifest.check(exported, fingerprint_checkpoint(tmp_path))


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize('name', ['velocity.onnx', WEIGHTS])
def test_a_damaged_or_missing_file_is_named(tiny_checkpoint: Path, exported: Path, tmp_path: Path, name: str) -> None:
    for path in exported.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    identity = fingerprint_checkpoint(tiny_checkpoint)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=f'{name} is damaged .*run: cooper export onnx'):
        Manifest.load(tmp_path).check(tmp_path, identity)
    (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=f'{name} is missing'):
        Manifest.load(tmp_path).check(tmp_path, identity)


@pytest.mark.parametrize('content', ['', '{"format": 99}', '{"format": 1, "graphs": 7}', '[]'])
def test_a_manifest_that_cannot_be_read_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / 'manifest.json').write_text(content)
    with pytest.raises(ValueError, match='run: cooper export onnx'):
        Manifest.load(tmp_path)


def test_a_folder_without_graphs_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match='holds no exported graphs'):
        Manifest.load(tmp_path)


def test_unknown_options_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match='expected opset 23 or 20 and precision float32, float16, bfloat16'):
        export_onnx(tiny_checkpoint, tmp_path, opset=19)
