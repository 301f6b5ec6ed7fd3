from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cooper_model.config import AutoencoderConfig, CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.flux_autoencoder import FluxAutoencoder

ALPHA = Path(__file__).parents[1] / 'golden' / 'alpha'


@pytest.fixture(scope='module')
def autoencoder() -> FluxAutoencoder:
    built = build_autoencoder(CooperConfig.load(ALPHA).autoencoder).eval()
    built.load_state_dict(load_file(ALPHA / 'ae.safetensors'), strict=True)
    return built


def test_published_names_and_shapes_go_in_and_come_out(autoencoder: FluxAutoencoder) -> None:
    expected = load_file(ALPHA / 'ae.safetensors')
    state = autoencoder.state_dict()
    assert set(state) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=0)


def test_names_hold_inside_another_module(autoencoder: FluxAutoencoder) -> None:
    parent = torch.nn.ModuleDict({'vae': autoencoder})
    state = parent.state_dict()
    assert 'vae.decoder.mid.attn_1.q.weight' in state
    assert state['vae.decoder.mid.attn_1.q.weight'].ndim == 4
    parent.load_state_dict(state, strict=True)


def test_a_missing_or_foreign_tensor_is_named(autoencoder: FluxAutoencoder) -> None:
    state = autoencoder.state_dict()
    state['decoder.extra'] = state.pop('decoder.norm_out.bias')
    with pytest.raises(RuntimeError, match=r'decoder\.extra'):
        FluxAutoencoder(autoencoder.config).load_state_dict(state, strict=True)


@torch.inference_mode()
def test_only_given_noise_leaves_the_mean_of_the_posterior(autoencoder: FluxAutoencoder) -> None:
    image = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1
    mean = autoencoder.encode(image)
    assert mean.shape == (1, 16, 2, 3)
    torch.testing.assert_close(autoencoder.encode(image), mean, rtol=0, atol=0)
    torch.testing.assert_close(autoencoder.encode(image, torch.zeros_like(mean)), mean)
    assert (autoencoder.encode(image, torch.ones_like(mean)) > mean).all()


def test_widths_and_levels_that_cannot_be_built_are_refused() -> None:
    config = AutoencoderConfig(base_channels=32, multipliers=(1, 2), num_res_blocks=1, downsample=2)
    FluxAutoencoder(config)
    with pytest.raises(ValueError, match='multiple of 32'):
        FluxAutoencoder(replace(config, base_channels=20))
    with pytest.raises(ValueError, match='2 times smaller'):
        FluxAutoencoder(replace(config, downsample=8))
