"""Image autoencoders by form: the published FLUX form, and a patch form that trains on a CPU.

Every form offers ``encode`` (images ``(batch, 3, height, width)`` in -1..1 to scaled latents ``(batch, z, height/8,
width/8)``; the posterior's mean, so that one picture always gives one answer) and ``decode`` back, not clamped.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from cooper_model.config import AutoencoderConfig


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip; the second starts at zero, so a new block changes nothing."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(8, channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)
        nn.init.zeros_(self.conv2.bias)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


def _stage(channels: int, blocks: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(blocks)))


class PatchAutoencoder(nn.Module):
    """A linear map of 8x8 patches in parallel with convolutions at a quarter and an eighth of the size.

    The linear path alone is principal component analysis when initialised so; the convolutions, whose last layers
    start at zero, learn what it misses.
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        narrow, wide, z = config.base_channels, 2 * config.base_channels, config.z_channels
        blocks = config.num_res_blocks
        self.linear_in = nn.Conv2d(3, z, 8, stride=8)
        self.linear_out = nn.ConvTranspose2d(z, 3, 8, stride=8)
        self.encoder = nn.Sequential(
            nn.Conv2d(48, narrow, 3, padding=1),
            _stage(narrow, blocks),
            nn.Conv2d(narrow, wide, 2, stride=2),
            _stage(wide, blocks),
            nn.SiLU(),
            nn.Conv2d(wide, z, 3, padding=1),
        )
        self.decoder = nn.Sequential(
            nn.Conv2d(z, wide, 3, padding=1),
            _stage(wide, blocks),
            nn.ConvTranspose2d(wide, narrow, 2, stride=2),
            _stage(narrow, blocks + 1),
            nn.SiLU(),
            nn.Conv2d(narrow, 48, 3, padding=1),
        )
        for last in (self.encoder[-1], self.decoder[-1]):
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)

    def encode(self, images: Tensor) -> Tensor:
        raw = self.linear_in(images) + self.encoder(F.pixel_unshuffle(images, 4))
        return (raw - self.config.shift) * self.config.scale

    def decode(self, latents: Tensor) -> Tensor:
        raw = latents / self.config.scale + self.config.shift
        return self.linear_out(raw) + F.pixel_shuffle(self.decoder(raw), 4)


def build_autoencoder(config: AutoencoderConfig) -> nn.Module:
    """Return the autoencoder of the configured form."""
    if config.form == 'patch':
        return PatchAutoencoder(config)
    from cooper_model.network.flux_autoencoder import FluxAutoencoder  # diffusers is slow to import

    return FluxAutoencoder(config)


__all__ = ['PatchAutoencoder', 'build_autoencoder']
