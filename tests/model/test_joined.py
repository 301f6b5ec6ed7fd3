"""Joined layers against the layers that they are made of."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cooper_model import context
from cooper_model.backends.torch import TorchBackend
from cooper_model.network import joined
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from tests.random_checkpoint import tiny_config

GRID = (3, 4)


@pytest.fixture
def plain() -> TorchBackend:
    torch.manual_seed(0)
    config = tiny_config()
    model = Cooper(config)
    for value in model.parameters():
        if value.dim() == 1:  # biases and norms that matter
            value.data += 0.3 * torch.randn_like(value)
    return TorchBackend(model, build_autoencoder(config.autoencoder))


def outcome(backend: TorchBackend) -> list[torch.Tensor]:
    """Return hidden states of text, keys of a context with an image, and a velocity of two branches."""
    image = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    context = backend.new_context()
    backend.append_image(context, image, latents=True, vision=True)
    asked = context.fork()
    hidden = backend._feed_text(asked, [3, 20, 21, 22])
    one = backend._feed_text(asked, [23])
    noisy = torch.from_numpy(backend.noise(48, 64, 1)).to(backend.model.dtype)
    velocity = backend.velocity([context, asked], noisy, GRID, 0.5)
    return [hidden, one, context.keys(1), asked.values(1), velocity]


def relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.parametrize('packs', [True, False])
def test_joined_layers_give_the_same(plain: TorchBackend, packs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = outcome(plain)
    if not packs:
        monkeypatch.setattr(joined, 'MOST_PACKED', 0)
    plain.prepare()
    assert plain.model.language_model.model.joined is not None
    for found, known in zip(outcome(plain), expected, strict=True):
        torch.testing.assert_close(found, known, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize('threads', [1, 3])
def test_a_token_whose_products_are_split_gives_the_same(
    plain: TorchBackend, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = outcome(plain)
    logits = plain.model.logits(expected[1])
    monkeypatch.setattr(joined, 'WORTH_SPLITTING', 0)
    monkeypatch.setattr(torch, 'get_num_threads', lambda: threads)
    split = []
    monkeypatch.setattr(torch, 'bmm', lambda a, b, product=torch.bmm: split.append(len(a)) or product(a, b))
    plain.prepare()
    for found, known in zip(outcome(plain), expected, strict=True):
        torch.testing.assert_close(found, known, atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(plain.model.logits(expected[1]), logits, atol=2e-5, rtol=1e-4)
    assert len(split) > 4 * len(plain.model.language_model.model.layers) if threads > 1 else not split


def test_bfloat16_is_no_further_from_float32_than_before(plain: TorchBackend) -> None:
    exact = outcome(plain)
    model, coder = copy.deepcopy(plain.model).bfloat16(), copy.deepcopy(plain.autoencoder).bfloat16()
    rounded = TorchBackend(model, coder)
    before = outcome(rounded)
    rounded.prepare()
    for found, known, truth in zip(outcome(rounded), before, exact, strict=True):
        assert relative(found, truth) < 1.5 * relative(known, truth) + 1e-3


def test_sums_over_many_layers_are_nearer_to_float32(plain: TorchBackend) -> None:
    torch.manual_seed(0)
    config = plain.config
    deep = replace(config, decoder=replace(config.decoder, num_layers=12))
    exact = TorchBackend(Cooper(deep), plain.autoencoder)
    rounded = TorchBackend(copy.deepcopy(exact.model).bfloat16(), copy.deepcopy(plain.autoencoder).bfloat16())
    truth, before = outcome(exact)[0], outcome(rounded)[0]
    rounded.prepare()
    assert relative(outcome(rounded)[0], truth) < 0.8 * relative(before, truth)


def test_many_tokens_attend_in_bfloat16_as_torch_does(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    q, keys, values = (torch.randn(2, count, 32) for count in (40, 60, 60))
    keys += 3 * torch.randn(2, 1, 32)  # what all keys share counts for nothing
    expected = F.scaled_dot_product_attention(q, keys, values)
    for most in (2**25, 2 * 60 * 7):
        monkeypatch.setattr(context, 'MOST_SCORES', most)
        found = context._attend_products(*(x.bfloat16() for x in (q, keys, values)))
        assert relative(found, expected) < 0.01


def test_linears_keep_their_weights_and_no_second_copy(plain: TorchBackend) -> None:
    before = {name: value.clone() for name, value in plain.model.state_dict().items()}
    plain.prepare()
    after = plain.model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    attention = plain.model.language_model.model.layers[0].self_attn
    shared = {getattr(attention, f'{name}_proj').weight.untyped_storage().data_ptr() for name in 'qkv'}
    assert len(shared) == 1


def test_converting_the_model_undoes_it(plain: TorchBackend) -> None:
    plain.prepare()
    plain.model.double()
    assert plain.model.language_model.model.joined is None
