"""The SigLIP tower on flattened patches, any image size, and the connector behind it."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F
from transformers import SiglipVisionConfig
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from cooper_model.config import VisionConfig
from cooper_model.network.embeddings import grid_ids


class PatchEmbeddings(nn.Module):
    """A linear on patches plus a learned position table indexed ``row * max_side + column``."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedding = nn.Linear(3 * config.patch_size**2, config.hidden_size)
        self.position_embedding = nn.Embedding(config.max_side**2, config.hidden_size)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, patches, hidden)`` of normalised images ``(batch, 3, height, width)``."""
        patches = patch_rows(images, self.config.patch_size)
        rows, columns = (side // self.config.patch_size for side in images.shape[2:])
        ids = grid_ids(rows, columns, self.config.max_side).to(images.device)
        return self.patch_embedding(patches) + self.position_embedding(ids)


def patch_rows(images: Tensor, patch: int) -> Tensor:
    """Flatten ``(batch, 3, height, width)`` into rows of ``patch * patch * 3`` values: row, column, channel."""
    batch, channels, height, width = images.shape
    cells = images.reshape(batch, channels, height // patch, patch, width // patch, patch)
    return cells.permute(0, 2, 4, 3, 5, 1).reshape(batch, -1, patch * patch * channels)


class Encoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        settings = SiglipVisionConfig(
            hidden_size=config.hidden_size,
            intermediate_size=config.intermediate_size,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            patch_size=config.patch_size,
            layer_norm_eps=config.layer_norm_eps,
            hidden_act='gelu_pytorch_tanh',
            attention_dropout=0.0,
        )
        settings._attn_implementation = 'sdpa'
        self.layers = nn.ModuleList(SiglipEncoderLayer(settings) for _ in range(config.num_layers))


class VisionTransformer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = PatchEmbeddings(config)
        self.encoder = Encoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, images: Tensor) -> Tensor:
        """Return ``(batch, patches, hidden)``; tokens of one image attend to each other only."""
        x = self.embeddings(images)
        for layer in self.encoder.layers:
            x = layer(x, attention_mask=None)
        return self.post_layernorm(x)


class VisionModel(nn.Module):
    """Only a level of names: published tensors are called ``vit_model.vision_model...``."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.vision_model = VisionTransformer(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.vision_model(images)


class Connector(nn.Module):
    """From the tower's width to the language model's."""

    def __init__(self, vision_size: int, hidden_size: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(vision_size, hidden_size)
        self.fc2 = nn.Linear(hidden_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate='tanh'))


def check_image(images: Tensor, patch: int) -> None:
    """Raise ValueError unless height and width are multiples of the patch size."""
    height, width = images.shape[2:]
    if height % patch or width % patch or 0 in (height, width):
        raise ValueError(f'an image of {height} x {width} pixels is not made of {patch} px patches; resize it first')


__all__ = ['Connector', 'VisionModel', 'check_image', 'patch_rows']
