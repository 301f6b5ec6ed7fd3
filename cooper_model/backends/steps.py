"""What the torch backend has computed: each method is one pass through one network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cooper_model.context import Context, Kernel, NewTokens, cached_attention
from cooper_model.network.decoder import Streams
from cooper_model.network.model import Cooper


class Steps:
    """Computes on the spot, in the thread of the caller.

    :param kernel: how attention is computed, see :func:`~cooper_model.context.cached_attention`
    """

    def __init__(self, model: Cooper, autoencoder: nn.Module, kernel: Kernel) -> None:
        self.model, self.autoencoder, self.kernel = model, autoencoder, kernel

    def forward(self, contexts: Sequence[Context], streams: Streams, *, causal: bool, store: bool) -> Streams:
        """Return the final hidden states of new tokens, one context a row.

        :param causal: whether a new token sees only the new tokens before it
        :param store: whether their keys and values join the contexts
        """
        present = [x for x in streams if x is not None]
        count = sum(x.shape[1] for x in present)
        like = present[0]
        starts = torch.tensor([context.position for context in contexts], device=like.device)
        positions = starts[:, None].expand(-1, count)
        if causal:
            positions = positions + torch.arange(count, device=like.device)
        new = NewTokens(count, causal, store)
        attend = cached_attention(list(contexts), new, self.model.config.decoder, like, self.kernel)
        return self.model(streams, positions, attend)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``(rows, vocab)`` of final hidden states ``(rows, hidden)``."""
        return self.model.logits(hidden)

    def vision(self, images: Tensor) -> Tensor:
        """Return the ViT's features, connected, of normalised images ``(rows, 3, height, width)``."""
        return self.model.embed_vision(images)

    def encode(self, images: Tensor) -> Tensor:
        """Return latents ``(rows, z, height/8, width/8)`` of normalised images ``(rows, 3, height, width)``."""
        return self.autoencoder.encode(images)

    def decode(self, latents: Tensor) -> Tensor:
        """Return pictures ``(rows, 3, height, width)`` in -1..1 of latents ``(rows, z, height/8, width/8)``."""
        return self.autoencoder.decode(latents)
