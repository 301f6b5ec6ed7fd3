"""The language model: Qwen2 layers that exist twice, one expert for understanding and one for generation.

Tokens of the two experts travel as two streams; each linear runs once over its own stream, and attention runs over
both together, understanding tokens first. How queries meet keys (dense mask, cache, kernel) is the caller's choice:
an ``Attend`` function that is given the layer number and this call's queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cooper_model.config import DecoderConfig

GENERATION = '_moe_gen'
SUFFIXES = ('', GENERATION)

# (layer, queries, keys, values) -> mixed values; all (batch, tokens, heads, head_dim)
Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]


class Streams(NamedTuple):
    """Tokens by expert, each ``(batch, tokens, hidden)``; None where an expert has none."""

    understanding: Tensor | None
    generation: Tensor | None


class Rotary(NamedTuple):
    """Cosines and sines, each ``(batch, tokens, 1, head_dim)`` float32, understanding tokens first."""

    cos: Tensor
    sin: Tensor


def rotary(positions: Tensor, config: DecoderConfig) -> Rotary:
    """Return the rotation of positions ``(batch, tokens)``."""
    half = torch.arange(0, config.head_dim, 2, dtype=torch.float32, device=positions.device) / config.head_dim
    angles = positions.float()[..., None] * (1.0 / config.rope_theta**half)
    angles = torch.cat([angles, angles], dim=-1)[:, :, None]
    return Rotary(angles.cos(), angles.sin())


def rotate(x: Tensor, turn: Rotary) -> Tensor:
    """Rotate halves (not interleaved pairs) of ``(batch, tokens, heads, head_dim)`` in float32."""
    first, second = x.float().chunk(2, dim=-1)
    turned = torch.cat([-second, first], dim=-1)
    return (x * turn.cos + turned * turn.sin).to(x.dtype)


class RMSNorm(nn.Module):
    """Root-mean-square norm, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.float()
        scale = torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * (wide * scale).to(x.dtype)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Attention(nn.Module):
    """Projections of both experts; attention itself is the caller's."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        kv_size = config.num_kv_heads * config.head_dim
        for suffix in SUFFIXES:
            setattr(self, 'q_proj' + suffix, nn.Linear(config.hidden_size, config.hidden_size))
            setattr(self, 'k_proj' + suffix, nn.Linear(config.hidden_size, kv_size))
            setattr(self, 'v_proj' + suffix, nn.Linear(config.hidden_size, kv_size))
            setattr(self, 'o_proj' + suffix, nn.Linear(config.hidden_size, config.hidden_size, bias=False))
            for name in ('q_norm', 'k_norm'):
                norm = RMSNorm(config.head_dim, config.rms_norm_eps) if config.qk_norm else nn.Identity()
                setattr(self, name + suffix, norm)

    def project(self, x: Tensor, suffix: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values of one stream, before rotation."""
        shape = (*x.shape[:2], -1, self.head_dim)
        q = getattr(self, 'q_norm' + suffix)(getattr(self, 'q_proj' + suffix)(x).view(shape))
        k = getattr(self, 'k_norm' + suffix)(getattr(self, 'k_proj' + suffix)(x).view(shape))
        return q, k, getattr(self, 'v_proj' + suffix)(x).view(shape)


class DecoderLayer(nn.Module):
    """One layer of both experts."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.self_attn = Attention(config)
        for suffix in SUFFIXES:
            setattr(self, 'mlp' + suffix, MLP(config))
            for name in ('input_layernorm', 'post_attention_layernorm'):
                setattr(self, name + suffix, RMSNorm(config.hidden_size, config.rms_norm_eps))

    def forward(self, streams: Streams, turn: Rotary, attend: Attend, layer: int) -> Streams:
        attention = self.self_attn
        present = [(x, suffix) for x, suffix in zip(streams, SUFFIXES, strict=True) if x is not None]
        projected = [
            attention.project(getattr(self, 'input_layernorm' + suffix)(x), suffix) for x, suffix in present
        ]
        q, k, v = (_join(parts) for parts in zip(*projected, strict=True))
        mixed = attend(layer, rotate(q, turn), rotate(k, turn), v).flatten(2)
        done: dict[str, Tensor] = {}
        start = 0
        for x, suffix in present:
            part = mixed[:, start : start + x.shape[1]]
            start += x.shape[1]
            x = x + getattr(attention, 'o_proj' + suffix)(part)
            normed = getattr(self, 'post_attention_layernorm' + suffix)(x)
            done[suffix] = x + getattr(self, 'mlp' + suffix)(normed)
        return Streams(done.get(''), done.get(GENERATION))


def _join(parts: tuple[Tensor, ...]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


class Decoder(nn.Module):
    """Embeddings, layers and the two final norms."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_layers))
        for suffix in SUFFIXES:
            setattr(self, 'norm' + suffix, RMSNorm(config.hidden_size, config.rms_norm_eps))
        # What computes the layers in place of them; see cooper_model.network.joined.
        self.joined: Callable[[Streams, Rotary, Attend], Streams] | None = None

    def _apply(self, *args: Any, **kwargs: Any) -> Decoder:
        self.joined = None  # it holds weights as they were before they are moved or converted
        return super()._apply(*args, **kwargs)

    def forward(self, streams: Streams, positions: Tensor, attend: Attend) -> Streams:
        """Return final hidden states by expert.

        :param positions: ``(batch, tokens)`` rotary positions, understanding tokens first
        """
        turn = rotary(positions, self.config)
        if self.joined is not None:
            streams = self.joined(streams, turn, attend)
        else:
            for number, layer in enumerate(self.layers):
                streams = layer(streams, turn, attend, number)
        understanding, generation = streams
        return Streams(
            None if understanding is None else self.norm(understanding),
            None if generation is None else getattr(self, 'norm' + GENERATION)(generation),
        )


def masked_attention(mask: Tensor, fused: bool = False) -> Attend:
    """Return attention under a dense mask, for packed sequences.

    :param mask: ``(batch, tokens, tokens)`` bool, true where a row may look at a column; understanding tokens first
    :param fused: never hold scores of all heads, which at ten thousand tokens would take many GB
    """
    hidden = ~mask[:, None]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        groups = q.shape[2] // k.shape[2]
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        if groups > 1:
            k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
        if fused:
            return F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None]).transpose(1, 2)
        # Plain products: the fused kernel's backward pass is slower than these on a CPU.
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        weights = scores.masked_fill(hidden, float('-inf')).softmax(-1, dtype=torch.float32)
        return (weights.to(v.dtype) @ v).transpose(1, 2)

    return attend
