"""The architecture a second time, as plainly as can be: float64, no cache, both experts for every token, one mask.

Written from the description of the architecture and sharing no code with the network, so that agreement means
something.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from cooper_model.config import CooperConfig


@dataclass
class Piece:
    """One segment: rows that enter the decoder, which are generation tokens, and how they are seen."""

    rows: torch.Tensor
    generation: list[bool]
    causal: bool = False
    consumed: int = 1


class Naive:
    def __init__(self, weights: dict[str, torch.Tensor], config: CooperConfig):
        self.w = {name: value.double().requires_grad_(True) for name, value in weights.items()}
        self.c = config
        dim = config.decoder.hidden_size
        self.latent_table = sincos(dim, config.max_latent_side)
        self.vision_table = sincos(dim, config.vision.max_side)

    def linear(self, name, x):
        return x @ self.w[f'{name}.weight'].T + self.w.get(f'{name}.bias', 0)

    def rms(self, name, x):
        return x / (x.pow(2).mean(-1, keepdim=True) + self.c.decoder.rms_norm_eps).sqrt() * self.w[f'{name}.weight']

    def norm(self, name, x):
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + self.c.vision.layer_norm_eps).sqrt()
        return x * self.w[f'{name}.weight'] + self.w[f'{name}.bias']

    # Segments

    def embed(self, ids):
        return self.w['language_model.model.embed_tokens.weight'][torch.tensor(ids)]

    def text(self, ids):
        return Piece(self.embed(ids), [False] * len(ids), causal=True, consumed=len(ids))

    def _between_markers(self, rows, generation):
        marks = self.embed([self.c.tokens.image_start, self.c.tokens.image_end])
        flags = [False, *[generation] * len(rows), False]
        return Piece(torch.cat([marks[:1], rows, marks[1:]]), flags)

    def latents(self, tokens, grid, t, consumed=1):
        rows = self.linear('vae2llm', tokens) + self.time(torch.tensor([t])) + self.entries(self.latent_table, grid)
        piece = self._between_markers(rows, generation=True)
        piece.consumed = consumed
        return piece

    def vision(self, image):
        return self._between_markers(self.vit(image)['features'], generation=False)

    def entries(self, table, grid):
        side = math.isqrt(len(table))
        return torch.stack([table[r * side + c] for r in range(grid[0]) for c in range(grid[1])])

    def time(self, t):
        return self.linear('time_embedder.mlp.2', F.silu(self.linear('time_embedder.mlp.0', sinusoids(t))))

    # Networks

    def vit(self, image):
        v, size = self.c.vision, self.c.vision.patch_size
        grid = (image.shape[1] // size, image.shape[2] // size)
        patches = torch.stack([
            image[:, r * size : (r + 1) * size, c * size : (c + 1) * size].permute(1, 2, 0).reshape(-1)
            for r in range(grid[0]) for c in range(grid[1])
        ]).double()  # fmt: skip
        root = 'vit_model.vision_model.'
        learned = self.w[root + 'embeddings.position_embedding.weight']
        out = {'patches': patches}
        out['embeddings'] = x = self.linear(root + 'embeddings.patch_embedding', patches) + self.entries(learned, grid)
        for i in range(v.num_layers):
            layer = f'{root}encoder.layers.{i}.'
            y = self.norm(layer + 'layer_norm1', x)
            q, k, z = (
                self.linear(f'{layer}self_attn.{n}_proj', y).unflatten(1, (v.num_heads, -1)).transpose(0, 1)
                for n in 'qkv'
            )
            mixed = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ z
            x = x + self.linear(layer + 'self_attn.out_proj', mixed.transpose(0, 1).flatten(1))
            y = F.gelu(self.linear(layer + 'mlp.fc1', self.norm(layer + 'layer_norm2', x)), approximate='tanh')
            out[f'layer{i}'] = x = x + self.linear(layer + 'mlp.fc2', y)
        out['post_layernorm'] = x = self.norm(root + 'post_layernorm', x)
        y = F.gelu(self.linear('connector.fc1', x), approximate='tanh')
        out['connector'] = y = self.linear('connector.fc2', y)
        out['pos_embed'] = self.entries(self.vision_table, grid)
        out['features'] = y + out['pos_embed']
        return out

    def decode(self, rows, generation, positions, allowed):
        """Return final hidden states, every layer's output, and keys and values of every layer."""
        d = self.c.decoder
        gen = torch.tensor(generation)[:, None]
        angles = torch.tensor(positions)[:, None].double() * d.rope_theta ** (
            -torch.arange(0, d.head_dim, 2).double() / d.head_dim
        )
        cos, sin = (torch.cat([f(angles)] * 2, dim=-1)[:, None] for f in (torch.cos, torch.sin))

        def both(function, name, x):
            choice = gen if x.ndim == 2 else gen[..., None]
            return torch.where(choice, function(name(True), x), function(name(False), x))

        def routed(function, base, leaf, x):
            return both(function, lambda g: base + ('_moe_gen' if g else '') + leaf, x)

        def turn(x):
            a, b = x.chunk(2, dim=-1)
            return x * cos + torch.cat([-b, a], dim=-1) * sin

        x, layers, keys, values = rows, [], [], []
        hidden_mask = torch.zeros(allowed.shape).double().masked_fill(~allowed, -math.inf)
        for i in range(d.num_layers):
            root = f'language_model.model.layers.{i}.'
            y = routed(self.rms, root + 'input_layernorm', '', x)
            q, k, v = (
                routed(self.linear, f'{root}self_attn.{n}_proj', '', y).unflatten(1, (-1, d.head_dim)) for n in 'qkv'
            )
            q, k = (turn(routed(self.rms, f'{root}self_attn.{n}_norm', '', z)) for n, z in (('q', q), ('k', k)))
            keys.append(k)
            values.append(v)
            heads = []
            for head in range(d.num_heads):
                shared = head * d.num_kv_heads // d.num_heads
                scores = q[:, head] @ k[:, shared].T / math.sqrt(d.head_dim) + hidden_mask
                heads.append(scores.softmax(-1) @ v[:, shared])
            x = x + routed(self.linear, root + 'self_attn.o_proj', '', torch.cat(heads, dim=-1))
            y = routed(self.rms, root + 'post_attention_layernorm', '', x)
            gate, up = (routed(self.linear, root + 'mlp', f'.{n}_proj', y) for n in ('gate', 'up'))
            x = x + routed(self.linear, root + 'mlp', '.down_proj', F.silu(gate) * up)
            layers.append(x)
        return routed(self.rms, 'language_model.model.norm', '', x), layers, keys, values

    def run(self, pieces):
        """Run one sequence in which every piece sees all before it; returns also each piece's hidden states."""
        rows = torch.cat([piece.rows for piece in pieces])
        generation = [flag for piece in pieces for flag in piece.generation]
        allowed = torch.ones(len(rows), len(rows)).tril().bool()
        positions, start, place = [], 0, 0
        for piece in pieces:
            n = len(piece.rows)
            if not piece.causal:
                allowed[start : start + n, start : start + n] = True
            positions += range(place, place + n) if piece.causal else [place] * n
            start += n
            place += piece.consumed
        hidden, layers, keys, values = self.decode(rows, generation, positions, allowed)
        parts = hidden.split([len(piece.rows) for piece in pieces])
        return {'hidden': parts, 'layers': layers, 'k': keys, 'v': values, 'positions': positions, 'next': place}

    def logits(self, hidden):
        return hidden @ self.w['language_model.lm_head.weight'].T

    def velocity(self, pieces, x, grid, t):
        hidden = self.run([*pieces, self.latents(x, grid, t)])['hidden'][-1]
        return self.linear('llm2vae', hidden[1:-1])

    def greedy(self, pieces, steps):
        """Return the logits of ``steps`` greedy steps after a start token, and the last run."""
        ids, logits, last = [self.c.tokens.start], [], None
        for _ in range(steps):
            last = self.run([*pieces, self.text(ids)])
            logits.append(self.logits(last['hidden'][-1][-1]))
            ids.append(int(logits[-1].argmax()))
        return torch.stack(logits), ids, last


def sinusoids(t):
    freq = 10000.0 ** (-torch.arange(128).double() / 128)
    return torch.cat([torch.cos(t.double()[:, None] * freq), torch.sin(t.double()[:, None] * freq)], dim=-1)


def sincos(dim, side):
    freq = 10000.0 ** (-torch.arange(dim // 4).double() / (dim // 4))
    axis = torch.arange(side).double()[:, None] * freq
    axis = torch.cat([axis.sin(), axis.cos()], dim=-1)
    return torch.stack([torch.cat([axis[c], axis[r]]) for r in range(side) for c in range(side)])


def guided(full, no_text, no_image, text, image, renorm, least):
    """Combine three velocities ``(tokens, channels)``."""
    if text <= 1:
        return full
    axis = None if renorm == 'global' else -1

    def shrink(v):
        size = [x.pow(2).sum(axis, keepdim=True).sqrt() if axis else x.pow(2).sum().sqrt() for x in (full, v)]
        return v * (size[0] / (size[1] + 1e-8)).clamp(least, 1)

    a = no_text + text * (full - no_text)
    if renorm == 'text_channel':
        a = shrink(a)
        return no_image + image * (a - no_image) if image > 1 else a
    return shrink(no_image + image * (a - no_image) if image > 1 else a)
