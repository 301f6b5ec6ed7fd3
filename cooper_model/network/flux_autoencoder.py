"""The FLUX autoencoder: diffusers' modules under the tensor names of the published ``ae.safetensors``."""

from __future__ import annotations

import re
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn

from cooper_model.config import AutoencoderConfig

NORM_GROUPS = 32

# diffusers name -> published name; levels of the decoder are counted from the other end and handled apart.
_RENAMES = (
    (r'\.down_blocks\.(\d+)\.', r'.down.\1.'),
    (r'\.up_blocks\.(\d+)\.', r'.up.\1.'),
    (r'\.mid_block\.resnets\.0\.', '.mid.block_1.'),
    (r'\.mid_block\.resnets\.1\.', '.mid.block_2.'),
    (r'\.mid_block\.attentions\.0\.', '.mid.attn_1.'),
    (r'\.resnets\.', '.block.'),
    (r'\.(down|up)samplers\.0\.', r'.\1sample.'),
    (r'\.conv_shortcut\.', '.nin_shortcut.'),
    (r'\.conv_norm_out\.', '.norm_out.'),
    (r'\.group_norm\.', '.norm.'),
    (r'\.to_out\.0\.', '.proj_out.'),
    (r'\.to_([qkv])\.', r'.\1.'),
)


def _published_name(name: str, levels: int) -> str:
    name = re.sub(r'up_blocks\.(\d+)', lambda match: f'up_blocks.{levels - 1 - int(match[1])}', name)
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _is_pointwise(name: str) -> bool:
    """Return whether the published file stores this linear of diffusers as a 1x1 convolution."""
    return re.search(r'\.mid\.attn_1\.(q|k|v|proj_out)\.weight$', name) is not None


class FluxAutoencoder(nn.Module):
    """Eight times smaller (with four levels), 16 channels, without quantisation convolutions.

    ``state_dict`` gives, and ``load_state_dict`` takes, the published names and shapes.

    :raises ValueError: widths that 32 norm groups do not divide, or levels that do not give ``downsample``
    """

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        _check(config)
        self.config = config
        levels = len(config.multipliers)
        built = AutoencoderKL(
            down_block_types=('DownEncoderBlock2D',) * levels,
            up_block_types=('UpDecoderBlock2D',) * levels,
            block_out_channels=tuple(config.base_channels * m for m in config.multipliers),
            # In the decoder diffusers adds one, and so does the published network.
            layers_per_block=config.num_res_blocks,
            latent_channels=config.z_channels,
            norm_num_groups=NORM_GROUPS,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        self.encoder, self.decoder = built.encoder, built.decoder
        self._names = {name: _published_name(name, levels) for name in super().state_dict()}
        self.register_state_dict_post_hook(_to_published)
        self.register_load_state_dict_pre_hook(_from_published)

    def moments(self, images: Tensor) -> Tensor:
        """Return mean and log-variance, stacked along channels, of images in -1..1; unscaled."""
        return self.encoder(images)

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Return scaled latents ``(batch, z, height/8, width/8)`` of ``(batch, 3, height, width)`` in -1..1.

        :param noise: standard normal of the latents' shape, to sample the posterior; by default its mean is
            taken, so that one image always gives one answer
        """
        latents, log_variance = self.moments(images).chunk(2, dim=1)
        if noise is not None:
            latents = latents + (0.5 * log_variance).exp() * noise
        return self.config.scale * (latents - self.config.shift)

    def decode(self, latents: Tensor) -> Tensor:
        """Return images ``(batch, 3, height, width)`` around -1..1 (not clamped) of scaled latents."""
        return self.decoder(latents / self.config.scale + self.config.shift)


def _check(config: AutoencoderConfig) -> None:
    for multiplier in config.multipliers:
        if config.base_channels * multiplier % NORM_GROUPS:
            raise ValueError(
                f'vae.ch {config.base_channels} times ch_mult {multiplier} is no multiple of {NORM_GROUPS}, '
                'which the norms of the flux form need; change vae.ch or vae.ch_mult'
            )
    factor = 2 ** (len(config.multipliers) - 1)
    if config.downsample != factor:
        raise ValueError(
            f'vae.downsample is {config.downsample} but {len(config.multipliers)} levels of vae.ch_mult make '
            f'images {factor} times smaller'
        )


def _to_published(module: FluxAutoencoder, state: dict[str, Tensor], prefix: str, metadata: Any) -> None:
    for name, published in module._names.items():
        value = state.pop(prefix + name)
        state[prefix + published] = value[..., None, None] if _is_pointwise(published) else value


def _from_published(module: FluxAutoencoder, state: dict[str, Tensor], prefix: str, *_: Any) -> None:
    renamed = {}
    for name, published in module._names.items():
        if prefix + published in state:
            value = state.pop(prefix + published)
            renamed[prefix + name] = torch.flatten(value, 1) if _is_pointwise(published) else value
    state.update(renamed)
