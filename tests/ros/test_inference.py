"""The model of the node: which backend serves where the wanted one is missing or breaks down."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cooper_model.backends.failures import BackendFailed
from cooper_model.loading import Source
from cooper_model.types import Frame
from cooper_ros.inference import Inference, Question, Settings

pytest.importorskip('onnxruntime')

FRAME = Frame(np.random.default_rng(0).integers(0, 255, (60, 80, 3), dtype=np.uint8))


def never() -> bool:
    return False


@pytest.mark.skipif(importlib.util.find_spec('tensorrt') is not None, reason='TensorRT is installed here')
def test_the_next_best_backend_serves_without_tensorrt_and_after_a_breakdown(
    tiny_checkpoint: Path, tiny_graphs: Callable[[int], Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = Inference(Source(tiny_checkpoint, 'tensorrt', 'cpu', tiny_graphs(20)))
    assert model.backend == 'onnx'
    assert 'the tensorrt backend cannot be used, onnx is: TensorRT is not installed' in caplog.text
    before = model.perceive(FRAME, ('depth',), Settings(seed=2), never)
    runner = model._reasoner.backend._runner
    # A graph that takes other inputs than it is given: a real failure in the middle of a request.
    runner._sessions['velocity'] = runner._sessions['vision']
    with pytest.raises(BackendFailed, match='the torch backend serves from now on instead of onnx'):
        model.perceive(FRAME, ('depth',), Settings(seed=2), never)
    after = model.perceive(FRAME, ('depth',), Settings(seed=2), never)
    assert model.backend == 'torch'
    np.testing.assert_allclose(after.depth.relative, before.depth.relative, atol=1e-4)
    answer = model.ask(Question(FRAME, 'Which is closer?', mode='direct'), Settings(), lambda event: None, never)
    assert answer.mode == 'direct'


def test_torch_has_no_next_best_and_says_why_it_failed(tiny_checkpoint: Path) -> None:
    model = Inference(Source(tiny_checkpoint, 'torch', 'cpu', None))
    with pytest.raises(ValueError, match='modalities are'):
        model.perceive(FRAME, (), Settings(), never)
    assert model.backend == 'torch'


def test_sampler_and_number_type_act_on_what_is_drawn(tiny_checkpoint: Path) -> None:
    def drawn(dtype: str, **sampler: object) -> np.ndarray:
        model = Inference(Source(tiny_checkpoint, 'torch', 'cpu', dtype=dtype))
        return model.perceive(FRAME, ('depth',), Settings(sampler=sampler), never).depth.relative

    plain = drawn('auto')
    np.testing.assert_array_equal(drawn('float32', method='euler'), plain)
    for other in (drawn('bfloat16'), drawn('auto', method='heun'), drawn('auto', num_timesteps=9)):
        assert abs(other - plain).max() > 1e-4
