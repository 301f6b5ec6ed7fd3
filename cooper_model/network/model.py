"""The whole model but its autoencoder: what ``ema.safetensors`` holds, under the same names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cooper_model.config import CooperConfig, DecoderConfig
from cooper_model.network.decoder import Attend, Decoder, Streams
from cooper_model.network.embeddings import PositionTable, TimeEmbedder
from cooper_model.network.vision import Connector, VisionModel, check_image


class LanguageModel(nn.Module):
    """The decoder and its untied output layer."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.model = Decoder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)


class Cooper(nn.Module):
    """Embeds text, images and noisy latents, runs the decoder, and reads out logits and velocities."""

    def __init__(self, config: CooperConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.decoder.hidden_size
        self.language_model = LanguageModel(config.decoder)
        self.vit_model = VisionModel(config.vision)
        self.connector = Connector(config.vision.hidden_size, dim)
        self.vit_pos_embed = PositionTable(dim, config.vision.max_side, config.vision_table_spread)
        self.latent_pos_embed = PositionTable(dim, config.max_latent_side, config.latent_table_spread)
        self.time_embedder = TimeEmbedder(dim)
        self.vae2llm = nn.Linear(config.latent_dim, dim)
        self.llm2vae = nn.Linear(dim, config.latent_dim)

    @property
    def device(self) -> torch.device:
        return self.vae2llm.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.vae2llm.weight.dtype

    def embed_text(self, ids: Tensor) -> Tensor:
        """Return ``(..., hidden)`` of token ids ``(...)``."""
        return self.language_model.model.embed_tokens(ids)

    def embed_vision(self, images: Tensor) -> Tensor:
        """Return the ViT tokens ``(batch, patches, hidden)`` of images ``(batch, 3, height, width)`` in -1..1.

        :raises ValueError: the size is not a multiple of the patch, or exceeds the position table
        """
        patch = self.config.vision.patch_size
        check_image(images, patch)
        rows, columns = (side // patch for side in images.shape[2:])
        return self.connector(self.vit_model(images)) + self.vit_pos_embed(rows, columns)

    def embed_latents(self, tokens: Tensor, grid: tuple[int, int], t: Tensor) -> Tensor:
        """Return the latent tokens' entry to the decoder, ``(batch, rows * columns, hidden)``.

        :param tokens: ``(batch, rows * columns, latent_dim)``, clean or noisy
        :param grid: ``(rows, columns)``
        :param t: ``(batch,)`` times in 0 (clean) .. 1 (noise)
        """
        times = self.time_embedder(t)[:, None]
        return self.vae2llm(tokens) + times + self.latent_pos_embed(*grid)

    def forward(self, streams: Streams, positions: Tensor, attend: Attend) -> Streams:
        """Run the decoder; see :class:`Decoder`."""
        return self.language_model.model(streams, positions, attend)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return ``(..., vocab)`` of understanding hidden states."""
        return self.language_model.lm_head(hidden)

    def velocity(self, hidden: Tensor) -> Tensor:
        """Return ``(..., latent_dim)``, the predicted ``noise - clean``, of generation hidden states."""
        return self.llm2vae(hidden)
