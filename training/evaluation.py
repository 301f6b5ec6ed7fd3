"""How good maps and answers are on held-out scenes, by the same scores as ``cooper eval``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import nn

from cooper_model.backends.base import Guidance
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.network.model import Cooper
from cooper_model.perception import depth_map, segmentation
from cooper_model.prompts import Prompts
from cooper_model.reasoner import MODALITIES, Reasoner
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import Frame
from cooper_sim.grading import Truth, is_right
from cooper_sim.questions import ask_questions
from cooper_sim.scoring import depth_score, object_ious
from training.data import SimulatedScenes

HELD_OUT = 256
SCORED = 48
ANSWERED = 80


@contextmanager
def _frozen(model: nn.Module) -> Iterator[None]:
    """Lend a model in training to a backend, which freezes it."""
    kept = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(kept[name])
        model.train()


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


def evaluate_maps(
    model: Cooper, autoencoder: nn.Module, scenes: SimulatedScenes, requests: dict[str, list[int]]
) -> dict[str, float]:
    """Score one-step and four-step maps of the last scenes of a data set, which no stage trains on."""
    results: dict[str, list[float]] = {}
    with _frozen(model):
        backend = TorchBackend(model, autoencoder)
        for number in range(len(scenes) - SCORED, len(scenes)):
            record = scenes.records[number]
            for points in (2, 5):
                sampler = SamplerConfig(num_timesteps=points, shift=1.0, text_scale=1.0, image_scale=1.0)
                maps = generate_maps(backend, record.image, requests, sampler)
                metres = scenes.config.depth_range_of(record.intrinsics)
                depth = depth_map(maps['depth'], record.ids.shape, metres)
                score = depth_score(depth.metres, record.depth)
                found = segmentation(maps['segmentation'], record.ids.shape, scenes.config.colour_code)
                values = {'delta1': [score.delta1], 'abs_rel': [score.abs_rel]}
                values['miou'] = list(object_ious(found.instances, record.ids))
                for name, value in values.items():
                    results.setdefault(f'{name}/{points - 1} steps', []).extend(value)
    return {name: float(np.mean(values)) for name, values in results.items()}


def request_ids(prompts: Prompts, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Return the token ids that ask for each modality."""
    return {kind: tokenizer.encode(prompts.request(kind)) for kind in MODALITIES}


def evaluate_answers(model: Cooper, autoencoder: nn.Module, scenes: SimulatedScenes, folder: Path) -> dict[str, float]:
    """Score the answers of the reasoner in its own mode, one question a held-out scene."""
    with _frozen(model):
        reasoner = Reasoner(TorchBackend(model, autoencoder), Tokenizer.load(folder), Prompts.load(folder))
        right, looked = [], []
        for number in range(len(scenes) - ANSWERED, len(scenes)):
            record = scenes.records[number]
            frame = Frame(record.image, record.intrinsics)
            for question in ask_questions(record, np.random.default_rng(number), 1):
                truth = Truth(question.answer, question.value, question.unit, question.choices)
                *_, last = reasoner.ask(frame, question.text)
                right.append(is_right(last.answer.text, truth))
                looked.append(last.answer.depth is not None or last.answer.segmentation is not None)
    return {'answers': float(np.mean(right)), 'perceives': float(np.mean(looked))}
