"""Weights to start from, where there is no pretrained model."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from cooper_model.network.decoder import SUFFIXES
from cooper_model.network.model import Cooper

ALIGNED_DIRECTIONS = 20


@torch.no_grad()
def initialise(model: Cooper, grid: tuple[int, int], seed: int) -> None:
    """Draw all weights, and let the first head of every layer look at its own place in other images.

    An image has one rotary position, so the fixed table is all that says where a token lies. Found by gradient alone,
    'the same place in the other image' takes thousands of steps; here queries and keys of head 0 start as the leading
    directions of the table over ``grid`` (rows, columns), in channels that rotate least.
    """
    generator = torch.Generator().manual_seed(seed)
    depth = model.config.decoder.num_layers
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5, generator=generator)
            if name.endswith(('o_proj', 'o_proj_moe_gen', 'down_proj', 'out_proj', 'mlp.fc2')):
                module.weight.mul_(1 / math.sqrt(2 * depth))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=0.5, generator=generator)
    # Velocities start at zero: the mean of what there is to predict.
    nn.init.zeros_(model.llm2vae.weight)
    directions = _place_directions(model.latent_pos_embed(*grid))
    head_dim = model.config.decoder.head_dim
    slow = _slow_channels(head_dim, len(directions))
    for layer in model.language_model.model.layers:
        for suffix in SUFFIXES:
            for kind in ('q_proj', 'k_proj'):
                weight = getattr(layer.self_attn, kind + suffix).weight[:head_dim]
                weight.mul_(0.1)
                weight[slow] += directions


def _place_directions(table: Tensor) -> Tensor:
    """Return the whitened leading directions of a table ``(places, dim)``, ``(directions, dim)``."""
    centred = table - table.mean(0)
    _, deviations, rows = torch.linalg.svd(centred, full_matrices=False)
    count = min(ALIGNED_DIRECTIONS, int((deviations > 1e-3 * deviations[0]).sum()))
    return rows[:count] / deviations[:count, None] * math.sqrt(len(table))


def _slow_channels(head_dim: int, count: int) -> list[int]:
    """Return the channels that rotary positions turn least: the last of either half."""
    half = head_dim // 2
    each = (count + 1) // 2
    return (list(range(half - each, half)) + list(range(head_dim - each, head_dim)))[:count]
