"""What each exported graph computes, as modules over a loaded model.

They hold parts of the model, so tensors of the same name are the same weights in every graph. Linear layers are
stored transposed, as the products of the graphs read them, so that no runtime makes copies of its own.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cooper_model.network.decoder import Streams
from cooper_model.network.model import Cooper


class Product(nn.Module):
    """A linear layer that holds its weight as ``(inputs, outputs)``."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight = nn.Parameter(linear.weight.detach().t().contiguous(), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        product = x @ self.weight
        return product if self.bias is None else product + self.bias


def transpose_linears(module: nn.Module) -> nn.Module:
    """Replace every linear layer by its :class:`Product`, one at a time, and return the module."""
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, Product(child))
        else:
            transpose_linears(child)
    return module


class Past(NamedTuple):
    """What a graph is given of a cache of fixed capacity.

    :param length: ``(batch,)`` int64, tokens of each row that are there; the rest of the capacity is not looked at
    :param keys, values: one a layer, ``(batch, kv_heads, capacity, head_dim)``
    """

    length: Tensor
    keys: list[Tensor]
    values: list[Tensor]


class CachedAttention:
    """Attention of new tokens over a cache, which is only read, and over each other; collects new keys and values.

    A new token sees the new tokens whose position is not after its own: in a text those before it, in an image, which
    has one position, all.

    :param positions: ``(batch, tokens)`` int64
    :param fused: as one operator (``Attention`` of opset 23), which a GPU computes without writing all scores down;
        else in parts, where scores of old and new tokens are joined but keys and values, which are larger, are not
    """

    def __init__(self, past: Past, positions: Tensor, fused: bool) -> None:
        capacity = past.keys[0].shape[2]
        rows, count = positions.shape
        slots = torch.arange(capacity, device=positions.device)
        old = (slots < past.length[:, None])[:, None].expand(rows, count, capacity)
        new = positions[:, None] <= positions[:, :, None]
        self._seen = torch.cat([old, new], dim=-1)[:, None]
        self._past, self._fused = past, fused
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        self.keys.append(k)
        self.values.append(v)
        attend = self._attend_fused if self._fused else self._attend_parts
        return attend(q, k, v, self._past.keys[layer], self._past.values[layer]).transpose(1, 2)

    def _attend_fused(self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
        keys, values = torch.cat([past_k, k], dim=2), torch.cat([past_v, v], dim=2)
        grouped = q.shape[1] != k.shape[1]
        return F.scaled_dot_product_attention(q, keys, values, attn_mask=self._seen, enable_gqa=grouped)

    def _attend_parts(self, q: Tensor, k: Tensor, v: Tensor, past_k: Tensor, past_v: Tensor) -> Tensor:
        rows, heads, count, head_dim = q.shape
        kv_heads, capacity = past_k.shape[1:3]
        groups = heads // kv_heads
        # Queries that share a key/value head become rows of one product.
        q = (q * head_dim**-0.5).reshape(rows, kv_heads, groups * count, head_dim)
        scores = torch.cat([q @ past_k.transpose(2, 3), q @ k.transpose(2, 3)], dim=-1).float()
        if groups > 1:
            scores = scores.view(rows, heads, count, capacity + count)
        weights = scores.masked_fill(~self._seen, float('-inf')).softmax(-1).to(q.dtype)
        weights = weights.view(rows, kv_heads, groups * count, capacity + count)
        mixed = weights[..., :capacity] @ past_v + weights[..., capacity:] @ v
        return mixed.view(rows, heads, count, head_dim)


class Embed(nn.Module):
    """Token ids ``(1, tokens)`` to their embeddings ``(1, tokens, hidden)``."""

    def __init__(self, model: Cooper) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        return self.model.embed_text(ids)


class Vision(nn.Module):
    """An image to the embeddings of its ViT segment, ``(1, patches + 2, hidden)``, markers included.

    Patches come as rows ``(1, patches, 3 * patch * patch)`` float32 with their places ``row * max_side + column``, so
    that only one size is free, whatever the shape of the image.
    """

    def __init__(self, model: Cooper) -> None:
        super().__init__()
        self.model = model
        self.register_buffer('markers', _markers(model))

    def forward(self, patches: Tensor, places: Tensor) -> Tensor:
        model, tower = self.model, self.model.vit_model.vision_model
        entry = tower.embeddings
        x = entry.patch_embedding(patches.to(model.dtype)) + entry.position_embedding(places)
        for layer in tower.encoder.layers:
            x = layer(x, attention_mask=None)
        features = model.connector(tower.post_layernorm(x)) + model.vit_pos_embed.pos_embed[places]
        first, last = self.markers.split(1, dim=1)
        return torch.cat([first, features, last], dim=1)


class Encode(nn.Module):
    """An image ``(1, 3, height, width)`` float32 in -1..1 to its latents ``(1, z, height/8, width/8)`` float32."""

    def __init__(self, autoencoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.autoencoder, self._dtype = autoencoder, dtype

    def forward(self, image: Tensor) -> Tensor:
        return self.autoencoder.encode(image.to(self._dtype)).float()


class Decode(nn.Module):
    """Latents back to an image around -1..1, not clamped; shapes as :class:`Encode`."""

    def __init__(self, autoencoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.autoencoder, self._dtype = autoencoder, dtype

    def forward(self, latents: Tensor) -> Tensor:
        return self.autoencoder.decode(latents.to(self._dtype)).float()


class Understand(nn.Module):
    """New tokens of the understanding expert over a cache: prefill and, with one token, decoding.

    Gives the logits of the last token, ``(1, 1, vocab)`` float32, and keys and values of all new tokens, which the
    caller writes into its cache.
    """

    def __init__(self, model: Cooper, fused: bool) -> None:
        super().__init__()
        self.model, self._fused = model, fused

    def forward(
        self, embeddings: Tensor, positions: Tensor, length: Tensor, keys: list[Tensor], values: list[Tensor]
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        attend = CachedAttention(Past(length, keys, values), positions, self._fused)
        hidden = self.model(Streams(embeddings, None), positions, attend).understanding
        return self.model.logits(hidden[:, -1:]).float(), attend.keys, attend.values


class Velocity(nn.Module):
    """The velocity of latent tokens over read-only caches, a guidance branch (or request) a batch row.

    With clean tokens at time 0 the new keys and values are the latent segment of an image, start marker and end
    marker first; those of noisy tokens are of no use to anybody.

    :param tokens: ``(batch, tokens, latent_dim)`` float32
    :param places: ``(tokens,)`` int64, ``row * max_latent_side + column``
    :param times: ``(batch,)`` float32 in 0 (clean) .. 1 (noise)
    :param position: ``(batch,)`` int64, the rotary position of the segment
    """

    def __init__(self, model: Cooper, fused: bool) -> None:
        super().__init__()
        self.model, self._fused = model, fused
        self.register_buffer('markers', _markers(model))

    def forward(
        self,
        tokens: Tensor,
        places: Tensor,
        times: Tensor,
        position: Tensor,
        length: Tensor,
        keys: list[Tensor],
        values: list[Tensor],
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        model = self.model
        rows, count = tokens.shape[:2]
        embedded = model.vae2llm(tokens.to(model.dtype)) + model.time_embedder(times)[:, None]
        streams = Streams(
            self.markers.expand(rows, -1, -1), embedded + model.latent_pos_embed.pos_embed[places]
        )
        positions = position[:, None].expand(rows, count + 2)
        attend = CachedAttention(Past(length, keys, values), positions, self._fused)
        hidden = model(streams, positions, attend).generation
        return model.velocity(hidden).float(), attend.keys, attend.values


def _markers(model: Cooper) -> Tensor:
    """Return the embeddings of the two image markers, ``(1, 2, hidden)``."""
    tokens = model.config.tokens
    return model.embed_text(torch.tensor([[tokens.image_start, tokens.image_end]], device=model.device)).detach()
