"""The tensorrt backend as far as it can be tried without a GPU: its calls, keys, memory, shared weights, absence."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from cooper_model import loading
from cooper_model.backends.engines import (
    KEY,
    WORKING_BYTES,
    EngineKey,
    EngineStore,
    MemoryPlan,
    built_keys,
    built_limits,
    plan_memory,
    tensorrt_version,
)
from cooper_model.backends.failures import BackendUnavailable
from cooper_model.backends.graphs import GRAPHS, Manifest
from cooper_model.backends.profiles import Limits, shapes, sizes
from cooper_model.checkpoint import load_model
from cooper_model.config import CooperConfig
from tests.model.graph_cases import cases

onnxruntime = pytest.importorskip('onnxruntime')
from cooper_model.export import shared  # noqa: E402

ROOT = Path(__file__).parents[2]
KEY_OF_ORIN = EngineKey('f' * 64, 'sm_87', '10.16.2.10', 'bfloat16', 23, 'a' * 64)

without_tensorrt = pytest.mark.skipif(
    importlib.util.find_spec('tensorrt') is not None, reason='TensorRT is installed here'
)


# Calls into the library

# No other library is looked into: they are large, and not what is checked.
MYPY = """
[mypy]
follow_imports = skip
ignore_missing_imports = true
check_untyped_defs = true
[mypy-tensorrt.*,tensorrt_bindings.*,cooper_model.*]
follow_imports = silent
[mypy-cooper_model.backends.graph_backend]
follow_imports = skip
"""


def test_calls_fit_the_published_stubs(tmp_path: Path) -> None:
    pytest.importorskip('mypy')
    stubs = Path(sys.prefix) / 'stubs'
    if not (stubs / 'tensorrt').is_dir():
        pytest.skip(f'no stubs of TensorRT in {stubs}; run: pip install --no-deps --target {stubs} tensorrt-stubs')
    copy = shutil.copytree(stubs, tmp_path / 'stubs')
    broken = copy / 'tensorrt_bindings' / 'tensorrt.pyi'
    # The published file is no valid Python: a keyword as a parameter, and a default before none.
    text = re.sub(r'([(, ])in: ', r'\1in_: ', broken.read_text(encoding='utf-8'))
    broken.write_text(text.replace('channel_axis: int)', 'channel_axis: int = ...)'), encoding='utf-8')
    program = tmp_path / 'program.py'
    ours = 'cooper_model/backends/tensorrt.py'
    program.write_text((ROOT / ours).read_text(encoding='utf-8') + '\ntensorrt.Builder(1).no_such_call()\n')
    settings = tmp_path / 'mypy.ini'
    settings.write_text(MYPY)
    options = [f'--config-file={settings}', '--cache-dir=/dev/null']
    done = subprocess.run(
        [sys.executable, '-m', 'mypy', *options, ours, str(program)],
        cwd=ROOT,
        env={**os.environ, 'MYPYPATH': str(copy)},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert not [line for line in done.stdout.splitlines() if line.startswith(ours)], done.stdout
    # The check is able to fail.
    assert '"Builder" has no attribute "no_such_call"' in done.stdout


# Absence


@without_tensorrt
def test_without_tensorrt_the_remedy_is_named() -> None:
    with pytest.raises(BackendUnavailable, match='TensorRT is not installed .*--backend onnx or torch'):
        tensorrt_version()
    with pytest.raises(BackendUnavailable, match='TensorRT is not installed'):
        loading.load(None, 'tensorrt')


@without_tensorrt
def test_without_tensorrt_auto_is_torch_and_falling_back_goes_on(
    tiny_checkpoint: Path,
    tiny_graphs: Callable[[int], Path],
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert loading.load_backend(tiny_checkpoint).name == 'torch'
    with caplog.at_level(logging.WARNING):
        reasoner = loading.load_working(loading.Source(tiny_checkpoint, 'tensorrt', 'cpu', tiny_graphs(20)))
    assert reasoner.backend.name == 'onnx'
    assert 'the tensorrt backend cannot be used, onnx is: TensorRT is not installed' in caplog.text


def test_each_backend_has_a_next_best() -> None:
    assert [loading.next_best(name) for name in ('tensorrt', 'onnx', 'torch')] == ['onnx', 'torch', None]


@pytest.mark.parametrize(
    ('found', 'message'),
    [
        ({}, 'only type stubs'),
        ({'__version__': '11.4.1'}, 'TensorRT 11.4.1 is'),
        ({'__version__': '8.6.1'}, 'expected 10.3'),
    ],
)
def test_other_versions_are_refused(
    found: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, 'tensorrt', SimpleNamespace(**found))
    with pytest.raises(BackendUnavailable, match=message):
        tensorrt_version()


def test_supported_versions_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ('10.3.0.26', '10.13.0.35', '10.16.2.10'):
        monkeypatch.setitem(sys.modules, 'tensorrt', SimpleNamespace(__version__=version))
        assert tensorrt_version() == version


# What an engine is kept under


@pytest.mark.parametrize(
    'change',
    [
        {'model': '0' * 64},
        {'gpu': 'sm_110'},
        {'tensorrt': '10.3.0.26'},
        {'precision': 'float16'},
        {'opset': 20},
        {'graphs': 'b' * 64},
        {'limits': Limits(capacity=16384)},
        {'shares': True},
    ],
    ids=lambda change: next(iter(change)),
)
def test_an_engine_of_another_key_is_not_used(tmp_path: Path, change: dict[str, object]) -> None:
    store = EngineStore(tmp_path, KEY_OF_ORIN)
    store.write('vision', b'engine')
    assert store.read('vision') == b'engine'
    other = EngineStore(tmp_path, replace(KEY_OF_ORIN, **change))
    assert other.folder != store.folder and other.read('vision') is None
    # Nor where somebody renamed the folder.
    store.folder.rename(other.folder)
    assert other.read('vision') is None


def test_every_field_of_the_key_is_tried() -> None:
    (mark,) = test_an_engine_of_another_key_is_not_used.pytestmark
    assert {next(iter(change)) for change in mark.args[1]} == {field.name for field in fields(EngineKey)}


def test_damaged_engines_are_missing_and_written_anew(tmp_path: Path) -> None:
    store = EngineStore(tmp_path, KEY_OF_ORIN)
    assert store.missing() == list(GRAPHS)
    for graph in GRAPHS:
        store.write(graph, graph.encode())
    assert store.missing() == []
    store.path('decode').write_bytes(b'deco')
    assert store.missing() == ['decode']
    store.write('decode', b'decode')
    assert store.missing() == []
    (store.folder / KEY).write_text('{')
    assert store.missing() == list(GRAPHS)


def test_engines_are_found_whatever_their_limits(tmp_path: Path) -> None:
    assert built_limits(tmp_path, KEY_OF_ORIN) == Limits()
    key = replace(KEY_OF_ORIN, limits=Limits(capacity=1024, latents=300), shares=True)
    EngineStore(tmp_path, key).write('vision', b'engine')
    EngineStore(tmp_path, replace(key, gpu='sm_90')).write('vision', b'engine')
    (tmp_path / 'broken').mkdir()
    (tmp_path / 'broken' / KEY).write_text(json.dumps({'key': {'gpu': 'sm_87'}}))
    assert built_keys(tmp_path, KEY_OF_ORIN) == [key]
    assert built_limits(tmp_path, KEY_OF_ORIN) == Limits(capacity=1024, latents=300)


# Sizes and memory


@pytest.mark.parametrize('graph', GRAPHS)
def test_profiles_cover_every_input(graph: str, tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path]) -> None:
    config, manifest = CooperConfig.load(tiny_checkpoint), Manifest.load(tiny_graphs(20))
    profiles = sizes(graph, config, Limits())
    assert len(profiles) == (2 if graph == 'understand' else 1)
    for profile in profiles:
        ranges = shapes(manifest, graph, profile)
        assert list(ranges) == list(manifest.graphs[graph].inputs)
        for least, usual, most in ranges.values():
            assert all(0 < a <= b <= c for a, b, c in zip(least, usual, most, strict=True))


def test_profiles_of_the_published_model_cover_its_camera_images() -> None:
    profile = sizes('velocity', CooperConfig(), Limits())[0]
    assert profile['tokens'].most >= (1024 // 16) * (576 // 16)
    assert sizes('vision', CooperConfig(), Limits())[0]['patches'].most == 37 * 37


@pytest.mark.parametrize('values', [{'capacity': 100}, {'capacity': 0}, {'latents': 0}, {'branches': 4}])
def test_limits_that_make_no_sense_are_refused(values: dict[str, int]) -> None:
    with pytest.raises(ValueError, match='expected'):
        Limits(**values)


def test_memory_is_counted_from_the_graphs(tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path]) -> None:
    config, manifest = CooperConfig.load(tiny_checkpoint), Manifest.load(tiny_graphs(20))
    both = shared.shared_bytes(tiny_graphs(20), manifest)
    plan = plan_memory(manifest, config, Limits(capacity=512), both)
    assert plan.caches == 2 * 2 * 2 * 16 * 4 * 512 * 5  # sides, layers, heads, width, bytes, tokens, contexts
    names = shared.shared_names(tiny_graphs(20), manifest)
    stored = shared.read_weights(tiny_graphs(20), manifest, names, torch.device('cpu'))
    assert plan.separate - plan.shared == both == sum(value.nbytes for value in stored.values())


def test_too_little_memory_is_refused_with_figures() -> None:
    plan = MemoryPlan(separate=40 * 10**9, shared=29 * 10**9, caches=10**9)
    assert not plan.shares(80 * 10**9)
    assert plan.shares(40 * 10**9)
    plan.require(40 * 10**9, shares=True)
    with pytest.raises(BackendUnavailable) as refused:
        plan.require(32 * 10**9, shares=True)
    needed = (30 * 10**9 + WORKING_BYTES) / 1e9
    assert f'needs {needed:.1f} GB (29.0 GB of weights, 1.0 GB of caches' in str(refused.value)
    assert '32.0 GB are free' in str(refused.value)


def test_graphs_may_be_given_the_weights_that_they_share(
    tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_graphs(20), tmp_path / 'graphs')
    manifest = Manifest.load(folder)
    names = shared.shared_names(folder, manifest)
    # Seven products of the first layer; of the last one, what latents look at: queries, keys and values.
    assert len(names) == 7 + 3 and all(name.startswith('model.language_model.') for name in names)
    weights = shared.read_weights(folder, manifest, names, torch.device('cpu'))
    sessions = {
        graph: onnxruntime.InferenceSession(
            shared.write_sharing(folder, manifest, graph, names), providers=['CPUExecutionProvider']
        )
        for graph in shared.SHARING
    }
    given = {name: value.numpy() for name, value in weights.items()}
    model, autoencoder = load_model(tiny_checkpoint)
    tried = 0
    for case in cases(model.eval(), autoencoder.eval()):
        if case.graph in sessions:
            found = sessions[case.graph].run(list(case.outputs), {**case.inputs, **given})
            for expected, values in zip(case.outputs.values(), found, strict=True):
                np.testing.assert_allclose(values, expected, atol=1e-4)
            tried += 1
    assert tried == 7
