"""Stage 1, auxiliary modality generation: camera image and request in, depth or segmentation picture out.

``python -m training.stage1 --config training/configs/nano/stage1.yaml``. Rectified flow on the latents of the target
picture. A model that starts from nothing, as cooper-nano does, learns at the same time to describe scenes in words
(``describe_weight``), which published checkpoints could do before.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cooper_model.network.model import Cooper
from cooper_model.packing import PackedImages, Segment, pack, packed_forward
from cooper_model.prompts import Prompts
from cooper_model.reasoner import MODALITIES
from cooper_model.tokenizer import Tokenizer
from training.compiled import compile_layers, eager
from training.data import SimulatedScenes
from training.describe import REQUEST, describe
from training.evaluation import evaluate_maps, request_ids
from training.initialise import initialise
from training.latents import LatentCache
from training.loop import LoopConfig, Run, read_config
from training.losses import draw_times, flow_loss, mix, text_loss
from training.segments import model_text, user_text
from training.start import prepare


@dataclass(frozen=True)
class Stage1Config:
    """What is trained on.

    :param batch: scenes a step
    :param shift: time shift of training; large for dense prediction, where only high noise needs the camera image
    :param describe_weight: weight of the cross-entropy of descriptions, 0 for none
    """

    batch: int
    shift: float
    describe_weight: float = 0.0


class Stage1:
    """Builds batches and their loss."""

    def __init__(self, model: Cooper, scenes: SimulatedScenes, latents: LatentCache, folder: Path) -> None:
        self.model, self.scenes, self.latents = model, scenes, latents
        self.config = model.config
        self.tokenizer = Tokenizer.load(folder)
        self.requests = request_ids(Prompts.load(folder), self.tokenizer)
        height, width = scenes.records[0].ids.shape
        self.grid = (height // self.config.latent_stride, width // self.config.latent_stride)
        patch = self.config.vision.patch_size
        self.vision_grid = (height // patch, width // patch)

    def segments(self, row: int, description: str | None) -> list[Segment]:
        """Return one scene: the camera image once, and every continuation of it as a branch of its own."""
        tokens = self.config.tokens
        found = [
            Segment('latents', (), image=3 * row, grid=self.grid),
            Segment('vision', (0,), image=row, grid=self.vision_grid),
        ]
        for number, kind in enumerate(MODALITIES, start=1):
            found.append(user_text(self.requests[kind], (0, 1), tokens))
            found.append(Segment('noise', (0, 1, len(found) - 1), image=3 * row + number, grid=self.grid))
        if description is not None:
            found.append(user_text(self.tokenizer.encode(REQUEST), (0, 1), tokens))
            found.append(model_text(self.tokenizer.encode(description), (0, 1, len(found) - 1), tokens))
        return found

    def loss(self, numbers: np.ndarray, settings: Stage1Config, rng: np.random.Generator) -> Mapping[str, Tensor]:
        """Return the loss on scenes ``numbers``."""
        records = [self.scenes.records[int(n)] for n in numbers]
        described = settings.describe_weight > 0
        samples = [
            self.segments(row, describe(record, rng) if described else None)
            for row, record in enumerate(records)
        ]
        vision = vision_pixels([record.image for record in records], self.model.device)
        clean = [self.latents.get(numbers, kind) for kind in MODALITIES]
        clean = torch.stack(clean, 1).flatten(0, 1).to(self.model.device)
        noise = torch.randn_like(clean)
        times = draw_times(len(clean), settings.shift).to(clean.device)
        noisy = mix(clean, noise, times).unflatten(0, (-1, 2))
        images = torch.cat([self.latents.get(numbers, 'image').to(clean.device)[:, None], noisy], 1).flatten(0, 1)
        all_times = torch.cat([torch.zeros(len(numbers), 1, device=times.device), times.view(-1, 2)], 1).flatten()
        batch = pack(samples, self.config, 32)
        pictures = PackedImages(vision, images, all_times, [self.grid] * len(images))
        output = packed_forward(self.model, batch, pictures)
        parts = {}
        for number, kind in enumerate(MODALITIES):
            parts[kind] = flow_loss(output.velocities[number::2], clean[number::2], noise[number::2])
        total = parts['depth'] + parts['segmentation']
        if described:
            parts['text'] = text_loss(self.model, output.understanding, batch.labels.to(clean.device))
            total = total + settings.describe_weight * parts['text']
        return {'total': total, **parts}


def vision_pixels(pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return uint8 pictures ``(height, width, 3)`` of one size as ``(batch, 3, height, width)`` in -1..1."""
    stacked = torch.from_numpy(np.stack(pictures)).to(device)
    return stacked.permute(0, 3, 1, 2).float() / 127.5 - 1


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO)
    settings = read_config(arguments.config)
    start = prepare(settings)
    model, loop = start.model, LoopConfig(**settings['loop'])
    stage = Stage1(model, start.scenes, start.latents, start.folder)
    initialise(model, stage.grid, loop.seed)
    run = Run(model, loop, settings['out'])
    data = Stage1Config(**settings['stage'])

    def loss(step: int, rng: np.random.Generator) -> Mapping[str, Tensor]:
        return stage.loss(rng.integers(0, len(start.latents), data.batch), data, rng)

    def evaluate(step: int) -> Mapping[str, float]:
        with eager(model):
            return evaluate_maps(model, start.autoencoder, start.scenes, stage.requests)

    if settings.get('compile'):
        compile_layers(model)
    run.train(loss, evaluate)


if __name__ == '__main__':
    main()
