"""Decoding by a captured step against decoding over the context itself; on a CPU the step is called as it is."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from cooper_model.backends import token_step
from cooper_model.backends.torch import TorchBackend
from cooper_model.context import Context
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from tests.random_checkpoint import tiny_config


def as_it_is(step: token_step.Step) -> token_step.Step:
    return step


@pytest.fixture(scope='module')
def pair() -> tuple[TorchBackend, TorchBackend]:
    torch.manual_seed(0)
    config = tiny_config()
    model, coder = Cooper(config), build_autoencoder(config.autoencoder)
    return TorchBackend(model, coder), TorchBackend(model, coder, capture=as_it_is)


def asked(backend: TorchBackend) -> Context:
    """Return a fork, whose past lies in a block that is not its own."""
    context = backend.new_context()
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    backend.append_image(context, image, latents=False, vision=True)
    fork = context.fork()
    backend.append_text(fork, [20, 21])
    return fork.fork()


@pytest.mark.parametrize(
    ('tokens', 'capacity'), [(1, 2048), (2048, 2048), (2049, 3072), (3073, 4096), (4097, 6144), (6145, 8192)]
)
def test_a_capacity_holds_the_tokens_and_hardly_more(tokens: int, capacity: int) -> None:
    assert token_step.capacity_for(tokens) == capacity


@pytest.mark.parametrize('temperature', [0.0, 1.0])
def test_the_same_is_said_and_kept(pair: tuple[TorchBackend, TorchBackend], temperature: float) -> None:
    said, contexts = [], []
    for backend in pair:
        context = asked(backend)
        first = list(backend.decode(context, (7, 8), max_tokens=9, temperature=temperature, seed=3))
        backend.append_text(context, [30])
        second = list(backend.decode(context, max_tokens=5))
        said.append([token.id for token in [*first, *second]])
        contexts.append(context)
    assert said[0] == said[1] and len(said[0]) >= 5
    one, other = contexts
    assert (len(one), one.position) == (len(other), other.position)
    torch.testing.assert_close(one.keys(1), other.keys(1), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(one.values(1), other.values(1), atol=2e-5, rtol=1e-4)


def test_giving_up_leaves_a_whole_text(pair: tuple[TorchBackend, TorchBackend]) -> None:
    lengths = []
    for backend in pair:
        context = asked(backend)
        before = len(context)
        tokens = backend.decode(context, max_tokens=9)
        next(tokens)
        tokens.close()
        lengths.append(len(context) - before)
    assert lengths == [3, 3]  # start, one token, end


def test_two_texts_at_a_time_do_not_mix(pair: tuple[TorchBackend, TorchBackend]) -> None:
    _, backend = pair
    alone = [token.id for token in backend.decode(asked(backend), (9,), max_tokens=6)]
    outer, found = backend.decode(asked(backend), (9,), max_tokens=6), []
    for token in outer:
        found.append(token.id)
        list(backend.decode(asked(backend), (11, 12), max_tokens=2))
    assert found == alone


def test_a_cache_is_kept_until_it_is_too_small(
    pair: tuple[TorchBackend, TorchBackend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_step, 'SMALLEST', 64)
    backend = TorchBackend(pair[0].model, pair[0].autoencoder, capture=as_it_is)
    capacities = []
    for filled in (8, 20, 400, 8):
        context = backend.new_context()
        backend.append_text(context, [20] * filled)
        list(backend.decode(context, max_tokens=4))
        capacities.append(backend._step.capacity)
    assert capacities == [64, 64, 512, 64]


def test_what_cannot_be_captured_is_done_without(
    pair: tuple[TorchBackend, TorchBackend], caplog: pytest.LogCaptureFixture
) -> None:
    def fails(step: token_step.Step) -> token_step.Step:
        raise RuntimeError('operation not permitted when stream is capturing')

    backend = TorchBackend(pair[0].model, pair[0].autoencoder, capture=fails)
    with caplog.at_level(logging.WARNING):
        said = [token.id for token in backend.decode(asked(backend), max_tokens=4)]
    assert said == [token.id for token in pair[0].decode(asked(pair[0]), max_tokens=4)]
    assert 'kernel by kernel' in caplog.text and 'not permitted' in caplog.text


@pytest.mark.parametrize('ids', [(7, 20, 30), (7, 20), (), (40, 41, 42, 43, 44, 45)])
def test_a_text_that_is_replaced_is_as_if_it_had_never_been(
    pair: tuple[TorchBackend, TorchBackend], ids: tuple[int, ...]
) -> None:
    backend = pair[0]
    before = asked(backend)
    expected = before.fork()
    backend.append_text(expected, ids)
    backend.append_text(before, (7, 20, 21, 22))
    found = backend.replace_text(before, (7, 20, 21, 22), ids)
    assert (len(found), found.position) == (len(expected), expected.position)
    torch.testing.assert_close(found.keys(1), expected.keys(1), atol=2e-5, rtol=1e-4)
    # Neither sees the other's text.
    assert len(before) == len(asked(backend)) + 6
    said = [[token.id for token in backend.decode(context, max_tokens=3)] for context in (found, expected)]
    assert said[0] == said[1]
