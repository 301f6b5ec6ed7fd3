"""How good maps and answers are on held-out scenes, by the same scores as ``cooper eval``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from cooper_model.backends.base import Guidance
from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.network.model import Cooper
from cooper_model.prompts import Prompts
from cooper_model.reasoner import MODALITIES, Reasoner
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import Frame
from cooper_sim.grading import Truth, is_right
from cooper_sim.questions import ask_questions
from training.data import Part
from training.datasets.base import DataSet
from training.datasets.report import LeftOut
from training.datasets.simulation import SimulatedScenes
from training.samples import sample_row, write_sheet

HELD_OUT = 256
SCORED = 48
ANSWERED = 80
DRAWN = 4
POINTS = (2, 5)


@contextmanager
def frozen(model: nn.Module) -> Iterator[None]:
    """Lend a model in training to a backend, which freezes it."""
    kept = {name: p.requires_grad for name, p in model.named_parameters()}
    try:
        yield
    finally:
        for name, p in model.named_parameters():
            p.requires_grad_(kept[name])
        model.train()


def backend_of(model: Cooper, autoencoder: nn.Module) -> TorchBackend:
    """Return a backend over a model in training, for use within :func:`frozen`.

    Of an autoencoder that lies elsewhere or is held in another dtype, as beside weights in bfloat16, a copy is taken.
    """
    place, first = (model.device, model.dtype), next(autoencoder.parameters())
    if (first.device, first.dtype) != place:
        autoencoder = deepcopy(autoencoder).to(*place)
    return TorchBackend(model, autoencoder, 'sdpa' if model.device.type == 'cuda' else 'parts')


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
    model: Cooper,
    autoencoder: nn.Module,
    data: DataSet,
    requests: dict[str, list[int]],
    numbers: range | None = None,
    sheet: Path | None = None,
) -> dict[str, float]:
    """Score one-step and four-step maps by the metric of a data set.

    :param numbers: examples, by default the last ones, which no stage trains on
    :param sheet: file for a picture of the first few, four steps each
    """
    numbers = range(max(len(data) - SCORED, 0), len(data)) if numbers is None else numbers
    results: dict[str, list[float]] = {}
    wanted = {kind: requests[kind] for kind in data.modalities}
    rows = []
    with frozen(model):
        backend = backend_of(model, autoencoder)
        sampler = replace(data.config.sampler, text_scale=1.0, image_scale=1.0)
        for number in numbers:
            try:
                example = data.example(number)
            except LeftOut as error:
                data.report.leave_out(data.place(number), error)
                continue
            for points in POINTS:
                maps = generate_maps(backend, example.image, wanted, replace(sampler, num_timesteps=points))
                for name, values in data.score(example, maps).items():
                    results.setdefault(f'{name}/{points - 1} steps', []).extend(values)
            if len(rows) < DRAWN:
                rows.append(sample_row(example, maps))
    if sheet is not None and rows:
        write_sheet(sheet, rows)
    return {name: float(np.mean(values)) for name, values in results.items() if values}


def evaluate_parts(
    model: Cooper,
    autoencoder: nn.Module,
    parts: Sequence[Part],
    requests: dict[str, list[int]],
    folder: Path,
    step: int,
) -> dict[str, float]:
    """Score the held-out examples of each data set of a mixture, and draw some of them into ``folder/samples``.

    A metric is named after its data set where there are several.
    """
    found = {}
    for part in parts:
        if part.held_out:
            sheet = folder / 'samples' / f'{step:06d}_{part.data.name}.png'
            values = evaluate_maps(model, autoencoder, part.data, requests, part.held_out[-SCORED:], sheet)
            found |= {f'{part.data.name}/{key}' if len(parts) > 1 else key: value for key, value in values.items()}
    return found


def request_ids(prompts: Prompts, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Return the token ids that ask for each modality."""
    return {kind: tokenizer.encode(prompts.request(kind)) for kind in MODALITIES}


def evaluate_answers(model: Cooper, autoencoder: nn.Module, scenes: SimulatedScenes, folder: Path) -> dict[str, float]:
    """Score the answers of the reasoner in its own mode, one question a held-out scene."""
    with frozen(model):
        reasoner = Reasoner(backend_of(model, autoencoder), Tokenizer.load(folder), Prompts.load(folder))
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
