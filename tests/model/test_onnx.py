"""The onnx backend: the same words and maps as torch, contexts that forks share, providers, bad input."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cooper_model import loading
from cooper_model.backends.base import Backend, Guidance
from cooper_model.backends.failures import BackendFailed, BackendUnavailable, is_out_of_memory
from cooper_model.backends.graphs import GRAPHS, MANIFEST, Manifest, fingerprint_checkpoint
from cooper_model.backends.profiles import Limits, prefill_limit
from cooper_model.config import CooperConfig, SamplerConfig
from cooper_model.export.cache import cached_graphs, graphs_folder
from cooper_model.types import MODES, CameraIntrinsics, Frame, ImageReady, TextDelta
from tests.random_checkpoint import tiny_config, write_random_checkpoint

onnxruntime = pytest.importorskip('onnxruntime')
# After the check above: these import it.
from cooper_model.backends import onnx as backend_of_onnx  # noqa: E402
from cooper_model.backends.onnx import OnnxBackend, OnnxSettings, engine_options  # noqa: E402

GUIDED = SamplerConfig(num_timesteps=4, text_scale=4.0, image_scale=2.0)
PICTURE = np.random.default_rng(0).integers(0, 255, (90, 121, 3), dtype=np.uint8)
FRAME = Frame(PICTURE, CameraIntrinsics(100.0, 100.0, 60.0, 45.0, 121, 90))


@pytest.fixture(scope='module', autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def pair(tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path]) -> tuple[Backend[Any], OnnxBackend]:
    """Return torch and onnx with the same tiny checkpoint."""
    onnx = loading.load_backend(tiny_checkpoint, 'onnx', 'cpu', graphs=tiny_graphs(20))
    assert isinstance(onnx, OnnxBackend)
    return loading.load_backend(tiny_checkpoint, 'torch', 'cpu'), onnx


# The same answers


@pytest.fixture(scope='module')
def shipped(nano_graphs: Path) -> tuple[Any, Any]:
    return loading.load(None, 'torch', 'cpu'), loading.load(None, 'onnx', 'cpu', graphs=nano_graphs)


@pytest.mark.parametrize('sampler', [None, GUIDED], ids=['shipped', 'guided'])
@pytest.mark.parametrize('mode', MODES)
def test_the_shipped_checkpoint_says_and_draws_the_same(
    shipped: tuple[Any, Any], mode: str, sampler: SamplerConfig | None
) -> None:
    told = []
    for reasoner in shipped:
        reasoner.sampler = sampler or reasoner.backend.config.sampler
        told.append(list(reasoner.ask(FRAME, 'Which is closer, the mug or the ball?', mode=mode, seed=3)))
    words = [''.join(event.text for event in events if isinstance(event, TextDelta)) for events in told]
    assert words[0] and words[0] == words[1]
    maps = [[event.image for event in events if isinstance(event, ImageReady)] for events in told]
    assert len(maps[0]) == len(maps[1]) and (maps[0] or mode in ('direct', 'text', 'auto'))
    for one, other in zip(*maps, strict=True):
        if hasattr(one, 'relative'):
            np.testing.assert_allclose(other.relative, one.relative, atol=1e-3)
        else:
            assert (one.labels == other.labels).mean() > 0.999
    assert told[1][-1].answer.confidence == pytest.approx(told[0][-1].answer.confidence, rel=1e-3)


def spoken(backend: Backend[Any], context: Any, **options: Any) -> list[int]:
    return [token.id for token in backend.decode(context, (7, 8), max_tokens=12, **options)]


def test_contexts_grow_alike(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    said = []
    for backend in pair:
        context = backend.new_context()
        backend.append_text(context, range(4, 300))  # more than the first buffer holds
        backend.append_image(context, PICTURE, latents=True, vision=True)
        first = spoken(backend, context)
        second = spoken(backend, context, temperature=1.0, seed=5)
        said.append((first, second, len(context), context.position))
    assert said[0] == said[1]


def test_forks_share_their_past_and_nothing_else(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    said = []
    for backend in pair:
        base = backend.new_context()
        backend.append_text(base, [5, 6, 7])
        left, right = backend.fork(base), backend.fork(base)
        backend.append_text(left, [8, 9])
        backend.append_text(right, [10, 11, 12, 13])
        later = backend.fork(left)
        said.append([spoken(backend, context) for context in (left, right, base, later)])
    assert said[0] == said[1]
    assert len({tuple(words) for words in said[0]}) > 1


def test_a_replaced_text_agrees(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    said = []
    for backend in pair:
        base = backend.new_context()
        backend.append_text(base, [5, 6, 7, 8])
        other = backend.replace_text(base, [5, 6, 7, 8], [5, 6])
        said.append([(spoken(backend, context), len(context), context.position) for context in (other, base)])
    assert said[0] == said[1] and said[0][0] != said[0][1]


def test_a_fork_costs_nothing_until_it_is_appended_to(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    onnx = pair[1]
    base = onnx.new_context()
    onnx.append_text(base, [5, 6, 7])
    fork = onnx.fork(base)
    assert fork.cache is base.cache
    onnx.append_text(base, [8])
    assert fork.cache is base.cache and len(fork) == 5
    onnx.append_text(fork, [9])
    assert fork.cache is not base.cache


def test_decoding_that_is_given_up_leaves_a_whole_text(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    onnx = pair[1]
    context = onnx.new_context()
    tokens = onnx.decode(context, max_tokens=9)
    next(tokens)
    tokens.close()
    assert len(context) == context.position == 3  # start, one token, end


@pytest.mark.parametrize('sampler', [GUIDED, replace(GUIDED, image_scale=1.0), replace(GUIDED, text_scale=1.0)])
def test_guided_images_agree(pair: tuple[Backend[Any], OnnxBackend], sampler: SamplerConfig) -> None:
    pictures = []
    for backend in pair:
        no_text, no_image = backend.new_context(), backend.new_context()
        backend.append_image(no_text, PICTURE, latents=True, vision=True)
        full = backend.fork(no_text)
        for context in (full, no_image):
            backend.append_text(context, [9, 10, 11])
        size = backend.image_size(90, 121)
        steps = list(backend.generate(Guidance(full, no_text, no_image), *size, sampler, backend.noise(*size, 1)))
        assert steps[:-1] == [None] * 3
        pictures.append(steps[-1])
    np.testing.assert_allclose(pictures[1], pictures[0], atol=1e-4)


def test_guidance_without_its_branch_is_refused(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    onnx = pair[1]
    context = onnx.new_context()
    onnx.append_text(context, [5])
    with pytest.raises(ValueError, match='a branch has no context; give no_text and no_image'):
        next(onnx.generate(Guidance(context), 48, 64, GUIDED, onnx.noise(48, 64, 0)))


def test_a_long_text_may_be_fed_in_pieces(tiny_checkpoint: Path, pair: tuple[Backend[Any], OnnxBackend]) -> None:
    whole = pair[1]
    pieces = OnnxBackend(whole.config, whole._runner, Limits())
    pieces._most_tokens = prefill_limit(whole.config)
    said = []
    for backend in (whole, pieces):
        context = backend.new_context()
        backend.append_text(context, range(4, 60))
        said.append((spoken(backend, context), len(context)))
    assert said[0] == said[1]


# Providers


@pytest.mark.parametrize(('device', 'lost'), [('cuda:0', 1), ('tensorrt:0', 2)])
def test_a_provider_that_is_missing_is_told_with_what_is_lost(
    device: str, lost: int, caplog: pytest.LogCaptureFixture
) -> None:
    if torch.cuda.is_available():
        pytest.skip('there is a GPU here')
    with caplog.at_level(logging.WARNING):
        providers, _ = OnnxSettings(device).providers()
    assert [provider.kind for provider in providers] == ['cpu']
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == lost and all('lost:' in text for text in told)
    assert 'the GPU, and with it most of the speed' in told[-1]


def test_the_default_device_complains_of_nothing(caplog: pytest.LogCaptureFixture) -> None:
    OnnxSettings().providers()
    assert not caplog.records


@pytest.mark.parametrize('device', ['mps', 'cuda:x', ''])
def test_an_unknown_device_is_refused(device: str) -> None:
    with pytest.raises(ValueError, match='expected cpu, cuda:0 or tensorrt:0'):
        OnnxSettings(device or 'cpu0').providers()


def test_graphs_on_a_gpu_and_torch_wait_for_each_other(
    tiny_graphs: Callable[[int], Path], tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = loading.load_backend(tiny_checkpoint, 'onnx', 'cpu', graphs=tiny_graphs(20))
    runner, order = backend._runner, []

    class Stream:
        def __init__(self, name: str, cuda_stream: int) -> None:
            self.name, self.cuda_stream = name, cuda_stream

        def wait_stream(self, other: Stream) -> None:
            order.append(f'{self.name} waits for {other.name}')

    # Torch's usual stream has the address 0, which ONNX Runtime takes for none and computes beside it.
    monkeypatch.setattr(torch.cuda, 'current_stream', lambda *_: Stream('torch', 0))
    runner._stream = Stream('graphs', 7)
    assert runner._options(backend_of_onnx.PROVIDERS[1], {})['user_compute_stream'] == '7'
    embeddings = torch.empty(1, 1, backend.config.decoder.hidden_size)
    runner.bind('embed', {'ids': torch.tensor([[3]])}, {'embeddings': embeddings})()
    assert order == ['graphs waits for torch', 'torch waits for graphs']


def test_the_tensorrt_provider_is_told_sizes_formats_and_folders(
    tiny_graphs: Callable[[int], Path], tiny_checkpoint: Path
) -> None:
    manifest, config = Manifest.load(tiny_graphs(20)), CooperConfig.load(tiny_checkpoint)
    ranges = backend_of_onnx._range(manifest, 'velocity', config, Limits(capacity=512))
    options = engine_options(Path('kept'), torch.float16, ranges)
    assert options['trt_engine_cache_path'] == options['trt_timing_cache_path'] == 'kept'
    assert (options['trt_fp16_enable'], options['trt_bf16_enable']) == ('1', '0')
    for which, capacity in (('min', 256), ('opt', 512), ('max', 512)):
        listed = dict(item.split(':') for item in options[f'trt_profile_{which}_shapes'].split(','))
        assert set(listed) == set(manifest.graphs['velocity'].inputs)
        assert listed['past_key_0'].split('x')[2] == str(capacity)
    assert listed['tokens'] == '3x16x16' and listed['places'] == '16'


# Bad input


def test_graphs_of_another_checkpoint_are_refused(tiny_graphs: Callable[[int], Path]) -> None:
    with pytest.raises(ValueError, match='are of another checkpoint .*run: cooper export onnx'):
        loading.load(None, 'onnx', graphs=tiny_graphs(20))


def test_a_graph_that_is_none_is_refused(
    tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_graphs(20), tmp_path / 'graphs')
    (folder / 'vision.onnx').write_bytes(b'nothing')
    with pytest.raises(ValueError, match='vision.onnx is damaged'):
        loading.load(tiny_checkpoint, 'onnx', graphs=folder)


def test_damaged_graphs_in_the_cache_are_exported_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv('COOPER_CACHE', str(tmp_path / 'cache'))
    config = tiny_config()
    small = replace(
        config, decoder=replace(config.decoder, num_layers=1), vision=replace(config.vision, num_layers=1)
    )
    checkpoint = write_random_checkpoint(tmp_path / 'checkpoint', config=small)
    model = fingerprint_checkpoint(checkpoint)
    damaged = graphs_folder(model, 'float32', 20)
    assert damaged.is_relative_to(tmp_path / 'cache')
    damaged.mkdir(parents=True)
    other = damaged.with_name(damaged.name[:-8] + '01234567')
    other.mkdir()
    (damaged / MANIFEST).write_text('{"format": 1, ')
    steps = []
    with caplog.at_level(logging.WARNING):
        folder = cached_graphs(checkpoint, model, opset=20, progress=lambda *step: steps.append(step))
    assert 'exporting the graphs again' in caplog.text and folder == damaged
    assert f'{other} holds graphs of another version of this program' in caplog.text
    assert [name for name, _, _ in steps] == list(GRAPHS)
    Manifest.load(folder).check(folder, model)
    assert cached_graphs(checkpoint, model, opset=20, progress=lambda *step: steps.append(step)) == folder
    assert len(steps) == len(GRAPHS)  # sound graphs are taken as they are


def test_a_failure_in_the_middle_names_the_graph(pair: tuple[Backend[Any], OnnxBackend]) -> None:
    runner = pair[1]._runner
    ids = torch.tensor([[10**6]])
    run = runner.bind('embed', {'ids': ids}, {'embeddings': torch.empty(1, 1, pair[1].config.decoder.hidden_size)})
    with pytest.raises(BackendFailed, match="ONNX Runtime failed in 'embed' on cpu with {'ids': \\(1, 1\\)}"):
        run()
    context = pair[1].new_context()
    pair[1].append_text(context, [5])  # and it still works


STARVED = """
import resource, sys
import torch
from cooper_model import loading
from cooper_model.backends.failures import OutOfMemory

torch.set_num_threads(1)
backend = loading.load_backend(sys.argv[1], 'onnx', 'cpu', graphs=sys.argv[2])
context = backend.new_context()
backend.append_text(context, [5] * 1000)
used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()
hard = resource.getrlimit(resource.RLIMIT_AS)[1]
resource.setrlimit(resource.RLIMIT_AS, (used + 60 * 2**20, hard))
try:
    backend.append_text(context, [5] * 6000)
except OutOfMemory as error:
    print('told', error)
resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
backend.append_text(context, [5])
print('works', len(context))
"""


def test_memory_that_runs_out_is_told_and_leaves_the_context_whole(
    tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path]
) -> None:
    command = [sys.executable, '-c', STARVED, str(tiny_checkpoint), str(tiny_graphs(20))]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("told ONNX Runtime failed in 'understand'")
    assert last == 'works 1005'


def test_signs_of_missing_memory_are_known() -> None:
    for text in ('CUDA out of memory', 'Failed to allocate memory for requested buffer', 'std::bad_alloc'):
        assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError('invalid argument'))


def test_the_next_best_backend_serves_where_the_graphs_are_broken(
    tiny_checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps({'format': 1}))
    with caplog.at_level(logging.WARNING):
        reasoner = loading.load_working(loading.Source(tiny_checkpoint, 'onnx', 'cpu', tmp_path))
    assert reasoner.backend.name == 'torch'
    assert 'the onnx backend cannot be used, torch is: ' in caplog.text and 'is damaged' in caplog.text


def test_options_that_graphs_do_not_have_are_refused(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="kernel 'sdpa' is for the torch backend"):
        loading.load_backend(tiny_checkpoint, 'onnx', graphs=tmp_path, kernel='sdpa')
    with pytest.raises(ValueError, match='the torch backend computes from the weights'):
        loading.load_backend(tiny_checkpoint, 'torch', graphs=tmp_path)


def test_a_number_type_that_a_back_end_does_not_have_is_told(
    tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match="dtype 'float8' is not available; available: auto, float32"):
        loading.load_backend(tiny_checkpoint, dtype='float8')
    with pytest.raises(BackendUnavailable, match="dtype 'bfloat16': ONNX Runtime computes in float32 on a CPU"):
        loading.load_backend(tiny_checkpoint, 'onnx', 'cpu', dtype=torch.bfloat16)
    assert loading.load_backend(tiny_checkpoint, 'onnx', 'cpu', graphs=tiny_graphs(20), dtype='float32').name == 'onnx'
    manifest = replace(Manifest.load(tiny_graphs(20)), precision='bfloat16')
    manifest.save(tmp_path)
    with pytest.raises(ValueError, match='compute in bfloat16; leave it out, or run: cooper export onnx --precision'):
        loading.load_backend(tiny_checkpoint, 'onnx', 'cpu', graphs=tmp_path, dtype='float32')
    with caplog.at_level(logging.WARNING):
        source = loading.Source(tiny_checkpoint, 'onnx', 'cpu', dtype='bfloat16')
        reasoner = loading.load_working(source)
    assert reasoner.backend.name == 'torch' and reasoner.backend.model.dtype == torch.bfloat16
    assert 'the onnx backend cannot be used, torch is: dtype' in caplog.text
