"""What the naive case is made of: settings, weights, and how images become numbers."""

from __future__ import annotations

import numpy as np
import torch

from cooper_model.config import (
    AutoencoderConfig,
    CooperConfig,
    DecoderConfig,
    ResizeConfig,
    SpecialTokens,
    VisionConfig,
)

CONFIG = CooperConfig(
    decoder=DecoderConfig(72, 2, 6, 2, 80, 260, 1e-5, 5e4),
    vision=VisionConfig(30, 3, 3, 44, 14, 1e-5, 11),
    autoencoder=AutoencoderConfig('flux', 32, (1, 1, 2, 1), 2),
    tokens=SpecialTokens(3, 250, 7, 201),
    max_latent_side=13,
    vae_transform=ResizeConfig(112, 32, 16),
    vit_transform=ResizeConfig(70, 28, 14),
    train_timestep_shift=2.0,
    usable_vocab=None,
)
PROMPTS = {'P': [11, 12, 250, 14, 90], 'SYS': [30, 31, 32], 'Q': [40, 41, 42, 43, 44, 45, 46], 'T2I': [60, 61]}
# The image of the contexts as given and after both resizes, worked out by hand from the size rule: 50 x 132 is over
# 112 px long, so it is scaled by 112 / 132; the ViT then scales 48 x 112 by 70 / 112.
GIVEN, LATENT_SIDES, VIT_SIDES = (50, 132), (48, 112), (28, 70)
GRID = (2, 5)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_weights(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    random, weights = seeded(seed), {}
    for name, value in module.state_dict().items():
        if name.endswith('pos_embed'):
            continue
        shape = tuple(value.shape)
        drawn = torch.randn(shape, generator=random)
        if 'norm' in name and name.endswith('weight'):
            drawn = 1 + 0.1 * drawn
        elif len(shape) == 1:
            drawn = 0.1 * drawn
        elif not name.endswith(('embed_tokens.weight', 'position_embedding.weight')):
            drawn = drawn / np.sqrt(np.prod(shape[1:]))
        weights[name] = drawn
    return weights


def pixels_of(image):
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 * 2 - 1


def cells(latent):
    """Return ``(channels, 2 rows, 2 columns)`` as ``(rows * columns, 64)``: cell row, cell column, channel."""
    _, height, width = latent.shape
    return torch.stack([
        latent[:, r : r + 2, c : c + 2].permute(1, 2, 0).reshape(-1)
        for r in range(0, height, 2) for c in range(0, width, 2)
    ]).double()  # fmt: skip
