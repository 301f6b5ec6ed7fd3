"""A model with random weights at a named size, for measuring speed without a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cooper_model.config import (
    AutoencoderConfig,
    CooperConfig,
    DecoderConfig,
    ResizeConfig,
    SpecialTokens,
    VisionConfig,
)

if TYPE_CHECKING:
    from cooper_model.backends.torch import TorchBackend

MID = CooperConfig(
    decoder=DecoderConfig(
        hidden_size=512, num_layers=8, num_heads=8, num_kv_heads=2, intermediate_size=2048, vocab_size=16384
    ),
    vision=VisionConfig(hidden_size=256, num_layers=6, num_heads=4, intermediate_size=1024),
    autoencoder=AutoencoderConfig(base_channels=64),
    tokens=SpecialTokens(start=16380, end=16381, image_start=16382, image_end=16383),
    vae_transform=ResizeConfig(256, 256, 16),
    vit_transform=ResizeConfig(252, 252, 14),
    usable_vocab=None,
)
# So small that whole programs can be tried on a CPU in seconds.
TINY = CooperConfig(
    decoder=DecoderConfig(64, 2, 4, 2, 128, 400),
    vision=VisionConfig(64, 2, 4, 128),
    autoencoder=AutoencoderConfig(form='patch', base_channels=16, z_channels=4),
    tokens=SpecialTokens(396, 397, 398, 399),
    vae_transform=ResizeConfig(64, 64, 16),
    vit_transform=ResizeConfig(56, 56, 14),
    usable_vocab=None,
)
SIZES = {'mid': MID, 'tiny': TINY}


def random_backend(size: str, seed: int, device: str | None = None, dtype: str = 'auto') -> TorchBackend:
    """Return a torch back end of a named size with weights that ``seed`` determines.

    :raises ValueError: there is no such size
    """
    if size not in SIZES:
        raise ValueError(f'{size!r} is no size of a random model; choose from {", ".join(SIZES)}')
    import torch

    from cooper_model.backends.torch import TorchBackend
    from cooper_model.network.autoencoder import build_autoencoder
    from cooper_model.network.model import Cooper

    device = device or ('cuda' if torch.cuda.is_available() else 'cpu')
    if dtype == 'auto':
        dtype = 'bfloat16' if device.startswith('cuda') else 'float32'
    torch.manual_seed(seed)
    config = SIZES[size]
    model, autoencoder = Cooper(config), build_autoencoder(config.autoencoder)
    return TorchBackend(*(part.to(device, getattr(torch, dtype)) for part in (model, autoencoder)))
