"""Train the patch autoencoder on camera images, depth pictures and segmentation pictures in equal parts.

``python -m training.autoencoder --config training/configs/nano/autoencoder.yaml``. The linear path starts as principal
components of 8x8 patches, so that the convolutions only learn what those miss; crops keep steps small and many.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cooper_model.config import AutoencoderConfig, CooperConfig
from cooper_model.network.autoencoder import PatchAutoencoder
from training.datasets.simulation import SimulatedScenes
from training.loop import LoopConfig, Run
from training.settings import config_argument, program, read_settings

CROP = 64
PATCH = 8
HELD_OUT = 64
KINDS = ('image', 'depth', 'segmentation')


@dataclass(frozen=True)
class Settings:
    """A run of the autoencoder.

    :param architecture: folder with configuration
    :param scenes: folder of simulated scenes, of which the first ``limit`` are used
    :param batch: crops a step
    :param weights: of the error of each kind of picture
    """

    architecture: Path
    scenes: Path
    out: Path
    limit: int
    batch: int
    weights: Mapping[str, float]
    loop: LoopConfig


def read_pictures(scenes: SimulatedScenes, limit: int) -> np.ndarray:
    """Return ``(3, scenes, height, width, 3)`` uint8: images, depths, segmentations of the first scenes."""
    found = [scenes.pictures(n) for n in range(min(limit, len(scenes)))]
    return np.stack([np.stack([getattr(p, kind) for p in found]) for kind in KINDS])


def as_tensor(pictures: np.ndarray) -> Tensor:
    """Return ``(pictures, 3, height, width)`` float32 in -1..1 of uint8 ``(..., height, width, 3)``."""
    flat = torch.from_numpy(pictures.reshape(-1, *pictures.shape[-3:]))
    return flat.permute(0, 3, 1, 2).float() / 127.5 - 1


def initialise(model: PatchAutoencoder, pictures: Tensor) -> None:
    """Set the linear path to the principal components of the pictures' patches.

    Components are scaled by the root of their deviation: halfway between raw ones, where noise would bury all but
    the first, and whitened ones, where the loss of a latent says nothing about the pixels it costs.
    """
    z = model.config.z_channels
    rows = torch.nn.functional.unfold(pictures, PATCH, stride=PATCH).transpose(1, 2).reshape(-1, 3 * PATCH**2)
    mean = rows.mean(0)
    _, deviations, directions = torch.linalg.svd((rows - mean)[:: max(1, len(rows) // 20000)], full_matrices=False)
    deviations = deviations[:z] / deviations[:z].mean()
    scale = deviations.rsqrt()[:, None]
    weights = directions[:z] * scale
    with torch.no_grad():
        model.linear_in.weight.copy_(weights.view(z, 3, PATCH, PATCH))
        model.linear_in.bias.copy_(-(weights @ mean))
        model.linear_out.weight.copy_((directions[:z] / scale).view(z, 3, PATCH, PATCH))
        # The mean patch differs from pixel to pixel only a little; one value a channel is what a bias can hold.
        model.linear_out.bias.copy_(mean.view(3, -1).mean(1))


def crops(pictures: np.ndarray, count: int, rng: np.random.Generator) -> Tensor:
    """Return random crops of random scenes, ``(3 * count, 3, CROP, CROP)``, in equal parts of each kind."""
    height, width = pictures.shape[2:4]
    found = []
    for kind in pictures:
        for scene in kind[rng.integers(0, len(kind) - HELD_OUT, count)]:
            row, column = rng.integers(0, height - CROP + 1), rng.integers(0, width - CROP + 1)
            found.append(scene[row : row + CROP, column : column + CROP])
    return as_tensor(np.stack(found))


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    settings = read_settings(config_argument(__doc__), Settings)
    config = CooperConfig.load(settings.architecture)
    scenes = SimulatedScenes(settings.scenes, config)
    model = PatchAutoencoder(config.autoencoder)
    torch.manual_seed(settings.loop.seed)
    pictures = read_pictures(scenes, settings.limit)
    initialise(model, as_tensor(pictures[:, :200]))
    run = Run(model, settings.loop, settings.out)
    device = run.accelerator.device
    weights = torch.tensor([settings.weights[kind] for kind in KINDS], device=device)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor]:
        target = crops(pictures, settings.batch // 3, rng).to(device)
        error = (model.decode(model.encode(target)).float() - target).unflatten(0, (3, -1))
        parts = (error.abs() + error.square()).flatten(1).mean(1)
        named = {f'pixels/{kind}': part for kind, part in zip(KINDS, parts, strict=True)}
        return {'total': (parts * weights).sum(), **named}

    held_out = as_tensor(pictures[:, -HELD_OUT:]).to(device)

    @torch.inference_mode()
    def evaluate(step: int) -> dict[str, float]:
        error = (model.decode(model.encode(held_out)) - held_out).unflatten(0, (3, -1))
        mse = error.square().flatten(1).mean(1) / 4
        psnr = {f'psnr/{kind}': float(-10 * m.log10()) for kind, m in zip(KINDS, mse, strict=True)}
        relative = error[1].mean(1).abs() / (held_out.unflatten(0, (3, -1))[1].mean(1) + 1).clamp_min(0.05)
        return {**psnr, 'depth/abs_rel': float(relative.mean())}

    run.train(loss, evaluate)
    with run.averaged():
        logging.info('latents: %s', normalisation(model, held_out))


@torch.inference_mode()
def normalisation(model: PatchAutoencoder, pictures: Tensor) -> AutoencoderConfig:
    """Return the configuration whose shift and scale give latents of zero mean and unit deviation."""
    plain = replace(model.config, shift=0.0, scale=1.0)
    kept, model.config = model.config, plain
    latents = model.encode(pictures)
    model.config = kept
    return replace(plain, shift=float(latents.mean()), scale=float(1 / latents.std()))


if __name__ == '__main__':
    main()


