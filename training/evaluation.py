"""How good generated maps are on held-out scenes, by the same scores as ``cooper eval``."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from cooper_model.backends.base import Guidance
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.network.model import Cooper
from cooper_model.perception import depth_map, segmentation
from cooper_model.prompts import Prompts
from cooper_model.tokenizer import Tokenizer
from cooper_sim.scoring import depth_score, object_ious
from training.data import SimulatedScenes

HELD_OUT = 256
SCORED = 48


def generate_maps(
    backend: TorchBackend, image: np.ndarray, requests: dict[str, list[int]], sampler: SamplerConfig
) -> dict[str, np.ndarray]:
    """Return the picture of each requested modality, ``(height, width, 3)`` float32 in 0..1."""
    context = backend.new_context()
    backend.append_image(context, image, latents=True, vision=True)
    height, width = image.shape[:2]
    found = {}
    for kind, ids in requests.items():
        asked = backend.fork(context)
        backend.append_text(asked, ids)
        noise = backend.noise(height, width, 0)
        *_, found[kind] = backend.generate(Guidance(asked), height, width, sampler, noise)
    return found


@torch.no_grad()
def evaluate_maps(
    model: Cooper, autoencoder: nn.Module, scenes: SimulatedScenes, requests: dict[str, list[int]]
) -> dict[str, float]:
    """Score one-step and four-step maps of the last scenes of a data set, which no stage trains on."""
    frozen = {name: p.requires_grad for name, p in model.named_parameters()}
    backend = TorchBackend(model, autoencoder)
    results: dict[str, list[float]] = {}
    for number in range(len(scenes) - SCORED, len(scenes)):
        record = scenes.records[number]
        for points in (2, 5):
            sampler = SamplerConfig(num_timesteps=points, shift=1.0, text_scale=1.0, image_scale=1.0)
            maps = generate_maps(backend, record.image, requests, sampler)
            depth = depth_map(maps['depth'], record.ids.shape, scenes.config.depth_range)
            score = depth_score(depth.metres, record.depth)
            found = segmentation(maps['segmentation'], record.ids.shape, scenes.config.colour_code)
            values = {'delta1': score.delta1, 'abs_rel': score.abs_rel}
            ious = object_ious(found.instances, record.ids)
            if len(ious):
                values['miou'] = float(np.mean(ious))
            for name, value in values.items():
                results.setdefault(f'{name}/{points - 1} steps', []).append(value)
    for name, p in model.named_parameters():
        p.requires_grad_(frozen[name])
    model.train()
    return {name: float(np.mean(values)) for name, values in results.items()}


def request_ids(prompts: Prompts, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Return the token ids that ask for each modality."""
    return {kind: tokenizer.encode(prompts.request(kind)) for kind in ('depth', 'segmentation')}
