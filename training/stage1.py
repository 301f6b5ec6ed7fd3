"""Stage 1, auxiliary modality generation: camera image and request in, depth or segmentation picture out.

``python -m training.stage1 --config training/configs/nano/stage1.yaml``. Rectified flow on the latents of the target
picture, on any mixture of data sets. A model that starts from nothing, as cooper-nano does, learns at the same time to
describe simulated scenes in words (``describe_weight``), which published checkpoints could do before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cooper_model.network.model import Cooper
from cooper_model.packing import PackedImages, Segment, pack, packed_forward
from cooper_model.reasoner import MODALITIES
from cooper_model.transforms import resize
from cooper_model.types import Modality
from training.compiled import compile_layers, eager
from training.curves import Parts
from training.data import Mixture, Sample, grid_of, open_mixture
from training.datasets.base import DataEntry, ModelInput
from training.describe import REQUEST, describe
from training.evaluation import evaluate_parts, request_ids
from training.initialise import initialise
from training.latents import as_pixels
from training.loop import LoopConfig, Run
from training.losses import draw_times, flow_loss, mix, text_loss
from training.processes import start_processes
from training.segments import model_text, user_text
from training.settings import config_argument, program, read_settings
from training.start import model_input, prepare_model

PADDING = 32  # understanding tokens come in multiples of this, so that few shapes are compiled


@dataclass(frozen=True)
class Stage1Config:
    """What is trained on.

    :param batch: images a step
    :param shift: time shift of training; large for dense prediction, where only high noise needs the camera image
    :param describe_weight: weight of the cross-entropy of descriptions of simulated scenes, 0 for none
    :param map_weights: weight of the flow loss of a modality, 1 where not named
    :param drop_text, drop_image: probability that a picture is generated without its request, or without the camera
        image, which teaches what guidance compares with; 0 as published
    :param max_tokens: examples of longer sequences are left out; None for no limit
    """

    batch: int
    shift: float
    describe_weight: float = 0.0
    map_weights: Mapping[Modality, float] = field(default_factory=dict)
    drop_text: float = 0.0
    drop_image: float = 0.0
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ('drop_text', 'drop_image'):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f'stage: {name} is {getattr(self, name)}, expected a probability')


@dataclass(frozen=True)
class Settings:
    """A run of stage 1.

    :param architecture: folder with configuration, tokenizer and prompts
    :param autoencoder: folder of a run or a checkpoint; frozen
    :param start: the same for the model's weights, None for random ones
    :param data: what is drawn from; each entry has a weight
    """

    architecture: Path
    autoencoder: Path
    out: Path
    data: tuple[DataEntry, ...]
    stage: Stage1Config
    loop: LoopConfig
    start: Path | None = None
    compile: bool = False


@dataclass
class Batch:
    """Sequences of a step while they are put together, and the pictures that they name.

    :ivar vision: ViT images; :ivar latents: rows of latent images, in order of their number, with ``grids``
    :ivar drawn: for each target, its modality and its number among the latent images
    """

    sequences: list[list[Segment]] = field(default_factory=list)
    vision: list[Tensor] = field(default_factory=list)
    latents: list[Tensor] = field(default_factory=list)
    grids: list[tuple[int, int]] = field(default_factory=list)
    drawn: list[tuple[Modality, int]] = field(default_factory=list)
    counted: list[Tensor] = field(default_factory=list)

    def add_latents(self, rows: Tensor, grid: tuple[int, int]) -> int:
        """Append a latent image; returns its number."""
        self.latents.append(rows)
        self.grids.append(grid)
        return len(self.latents) - 1

    def add_target(
        self, modality: Modality, rows: Tensor, grid: tuple[int, int], counted: Tensor | None = None
    ) -> int:
        """Append a picture to generate; returns its number among the latent images.

        :param counted: ``(tokens,)`` bool, which tokens have a loss; None for all
        """
        number = self.add_latents(rows, grid)
        self.drawn.append((modality, number))
        self.counted.append(torch.ones(len(rows), dtype=torch.bool) if counted is None else counted)
        return number


class Stage1:
    """Builds batches and their loss."""

    def __init__(self, model: Cooper, words: ModelInput) -> None:
        self.model, self.config = model, model.config
        self.tokenizer = words.tokenizer
        self.requests = request_ids(words.prompts, words.tokenizer)

    def loss(self, samples: Sequence[Sample], settings: Stage1Config, rng: np.random.Generator) -> Parts:
        """Return the loss of a batch: the flow loss of each modality that occurs, and of descriptions.

        ``tokens`` and ``scenes`` beside it count the work.
        """
        made = Batch()
        for sample in samples:
            self.append(made, sample, settings, rng)
        device = self.model.device
        targets = [made.latents[n].to(device) for _, n in made.drawn]
        sizes = [len(rows) for rows in targets]
        clean = torch.cat(targets or [made.latents[0][:0].to(device)])
        noise = torch.randn_like(clean)
        times = draw_times(len(sizes), settings.shift).to(device)
        repeats = torch.tensor(sizes, dtype=torch.long, device=device)
        noisy = mix(clean, noise, times.repeat_interleave(repeats)).split(sizes)
        images = [rows.to(device) for rows in made.latents]
        all_times = torch.zeros(len(images), device=device)
        for (_, n), rows, time in zip(made.drawn, noisy, times, strict=True):
            images[n], all_times[n] = rows, time
        batch = pack(made.sequences, self.config, PADDING)
        pictures = PackedImages([pixels.to(device) for pixels in made.vision], images, all_times, made.grids)
        output = packed_forward(self.model, batch, pictures)
        parts: dict[str, Tensor] = {}
        columns = (output.velocities, clean.split(sizes), noise.split(sizes), made.counted)
        for kind in MODALITIES:
            own = [n for n, (modality, _) in enumerate(made.drawn) if modality == kind]
            if own:
                parts[kind] = flow_loss(*([column[n] for n in own] for column in columns))
        weighted = (settings.map_weights.get(kind, 1.0) * part for kind, part in parts.items())
        total = sum(weighted, torch.zeros((), device=device))
        if settings.describe_weight > 0:
            parts['text'] = text_loss(self.model, output.understanding, batch.labels.to(device))
            total = total + settings.describe_weight * parts['text']
        tokens = sum(segment.tokens for sequence in made.sequences for segment in sequence)
        return {'total': total, **parts, 'tokens': tokens, 'scenes': len(samples)}

    def append(self, made: Batch, sample: Sample, settings: Stage1Config, rng: np.random.Generator) -> None:
        """Append one image: once as latents and once for the ViT, and every continuation as a branch of its own."""
        image = sample.example.image
        grid = grid_of(sample.image, image, self.config.latent_stride)
        shown = resize(image, self.config.vit_transform)
        patch = self.config.vision.patch_size
        found = [
            Segment('latents', (), image=made.add_latents(sample.image, grid), grid=grid),
            Segment('vision', (0,), image=len(made.vision), grid=(shown.shape[0] // patch, shown.shape[1] // patch)),
        ]
        made.vision.append(as_pixels(shown))
        tokens = self.config.tokens
        for kind, rows in sample.targets.items():
            seen: tuple[int, ...] = () if _happens(settings.drop_image, rng) else (0, 1)
            if not _happens(settings.drop_text, rng):
                found.append(user_text(self.requests[kind], seen, tokens))
                seen = (*seen, len(found) - 1)
            number = made.add_target(kind, rows, grid, sample.counted.get(kind))
            found.append(Segment('noise', seen, image=number, grid=grid))
        record = sample.example.record
        if settings.describe_weight > 0 and record is not None:
            found.append(user_text(self.tokenizer.encode(REQUEST), (0, 1), tokens))
            written = self.tokenizer.encode(describe(record, rng))
            found.append(model_text(written, (0, 1, len(found) - 1), tokens))
        made.sequences.append(found)


def _happens(probability: float, rng: np.random.Generator) -> bool:
    """Return whether something of a probability happens; draws no number where it never does."""
    return probability > 0 and bool(rng.random() < probability)


def vision_pixels(pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    """Return uint8 pictures ``(height, width, 3)`` of one size as ``(batch, 3, height, width)`` in -1..1."""
    return torch.stack([as_pixels(picture) for picture in pictures]).to(device)


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    settings = read_settings(config_argument(__doc__), Settings)
    start = prepare_model(settings.architecture, settings.autoencoder, settings.start, settings.loop.loaded)
    model = start.model
    start.autoencoder.to(start_processes().device)
    words = model_input(start.folder, model.config, settings.stage.max_tokens)
    mixture = open_mixture(settings.data, words, start.autoencoder)
    stage = Stage1(model, words)
    if settings.start is None:
        initialise(model, first_grid(mixture), settings.loop.seed)
    run = Run(model, settings.loop, settings.out, settings.start)

    def loss(step: int, rng: np.random.Generator) -> Parts:
        return stage.loss(mixture.draw(settings.stage.batch, rng), settings.stage, rng)

    def evaluate(step: int) -> Mapping[str, float]:
        with eager(model):
            return evaluate_parts(model, start.autoencoder, mixture.parts, stage.requests, settings.out, step)

    if settings.compile:
        compile_layers(model)
    run.train(loss, evaluate)


def first_grid(mixture: Mixture) -> tuple[int, int]:
    """Return rows and columns of latent tokens of the first image of the first data set."""
    image = mixture.drawn[0].data.example(0, maps=False).image
    return image.shape[0] // mixture.encoder.stride, image.shape[1] // mixture.encoder.stride


if __name__ == '__main__':
    main()
