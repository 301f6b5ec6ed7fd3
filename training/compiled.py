"""Compiled decoder layers while training, plain ones while evaluating: inference meets too many shapes to compile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cooper_model.network.model import Cooper

SHAPES = 64


def compile_layers(model: Cooper) -> None:
    """Let each decoder layer run through torch.compile, one program a shape."""
    torch._dynamo.config.cache_size_limit = SHAPES
    for layer in model.language_model.model.layers:
        layer.forward = torch.compile(layer.forward, dynamic=False)


@contextmanager
def eager(model: Cooper) -> Iterator[None]:
    """Run with plain layers inside the block."""
    layers = list(model.language_model.model.layers)
    kept = [layer.__dict__.pop('forward', None) for layer in layers]
    try:
        yield
    finally:
        for layer, forward in zip(layers, kept, strict=True):
            if forward is not None:
                layer.forward = forward
