"""Stage 2a, supervised interleaved reasoning: questions with thoughts, maps and answers, in all four modes.

``python -m training.sft --config training/configs/nano/sft.yaml``. Starts from stage 1. Several conversations about one
image are trained at once, as branches that share its tokens. The text loss falls on the model's own texts alone;
``map_weights`` keep the flow loss of stage 1 going, also in the contexts in which a reasoning model draws.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cooper_model.grammar import format_turn
from cooper_model.network.model import Cooper
from cooper_model.packing import PackedImages, Segment, pack, packed_forward
from cooper_model.perception import colour_relative
from cooper_model.prompts import Prompts, question_text
from cooper_model.reasoner import MODALITIES
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import Modality
from cooper_sim.questions import Question, ask_questions
from cooper_sim.records import Record
from training.compiled import compile_layers, eager
from training.conversations import SHARED, Conversations, Exchange
from training.curves import Parts
from training.data import Mixture, open_mixture
from training.datasets.base import DataEntry
from training.datasets.simulation import SimulatedScenes
from training.describe import LIST_REQUEST, REQUEST, describe, listing
from training.evaluation import evaluate_answers, evaluate_maps, request_ids
from training.initialise import initialise
from training.latents import LatentCache
from training.loop import LoopConfig, Run
from training.losses import draw_times, flow_loss, mix, text_loss
from training.settings import config_argument, program, read_settings
from training.stage1 import Stage1, Stage1Config, vision_pixels
from training.start import SceneSettings, model_input, prepare
from training.traces import PLANS, answering_turn, think


@dataclass(frozen=True)
class SftConfig:
    """What is trained on.

    :param batch: scenes a step
    :param modes: what is said about a scene, each with its probability; one is drawn for each entry. A mode of the
        reasoner is a conversation; 'describe' tells all of all objects, 'list' names them from left to right,
        'conclude' answers from facts that are given, 'none' leaves the entry out
    :param concluded: how often 'conclude' takes a question of each category; by default as the evaluation asks
    :param drawn: maps drawn of every scene, with a loss
    :param maps: how often each modality is requested
    :param shift: time shift of the maps
    :param map_weights: weight of the flow loss of each modality, 0 for none
    :param listed_choices: probability that the choices of a question are listed below it
    :param drawn_in_thought: probability that a map asked for in a conversation is drawn there with a loss
    :param seen_only: probability that a scene is described or listed from ViT tokens alone, which is what 'direct' and
        'text' have
    :param otherwise: probability that a thought looks where its kind of question does not, or does not where it does;
        what is never tried cannot be found to help in stage 2b
    :param beside: images of the run's ``data`` that are drawn beside the scenes, with the loss of stage 1, in every
        ``beside_every``-th step
    """

    batch: int
    modes: tuple[Mapping[str, float], ...]
    shift: float
    concluded: Mapping[str, float] | None = None
    drawn: int = 2
    maps: Mapping[Modality, float] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 1.0))
    map_weights: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(MODALITIES, 1.0))
    listed_choices: float = 0.5
    drawn_in_thought: float = 0.6
    seen_only: float = 0.0
    otherwise: float = 0.0
    beside: int = 0
    beside_every: int = 1


@dataclass(frozen=True, kw_only=True)
class Settings(SceneSettings):
    """A run of stage 2a.

    :param data: what is drawn ``beside`` the scenes
    """

    out: Path
    stage: SftConfig
    loop: LoopConfig
    compile: bool = False
    data: tuple[DataEntry, ...] = ()

    def __post_init__(self) -> None:
        if bool(self.data) != bool(self.stage.beside):
            raise ValueError(f'stage: beside is {self.stage.beside} and data lists {len(self.data)} sets; give both')


class Sample:
    """One scene's segments, and the pictures that they name; see :class:`training.conversations.Scene`.

    :param latents: number of the camera image among the latent images of the batch
    :ivar drawn: what is generated, in order of its number
    :ivar shown: what stands beside the first latents, in order of its number: a modality, or None for the image again
    """

    def __init__(self, stage: Sft, record: Record, vision: int, latents: int) -> None:
        self._stage, self.record = stage, record
        self._pictures = stage.scenes.pictures_of(record)
        self._first_vision, self._first_latent = vision, latents
        self.segments: list[Segment] = []
        self.vision: list[np.ndarray] = []
        self.shown: list[Modality | None] = []
        self.add(Segment('latents', (), image=latents, grid=stage.grid))
        self.show_image((0,))

    @property
    def drawn(self) -> list[Modality]:
        return [kind for kind in self.shown if kind is not None]

    def add(self, segment: Segment) -> int:
        """Append a segment; returns its index."""
        self.segments.append(segment)
        return len(self.segments) - 1

    def show_latents(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as latents."""
        return self._latents('latents', None, sees)

    def draw(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a map being generated."""
        return self._latents('noise', modality, sees)

    def show_image(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as the ViT sees it."""
        return self._show(self.record.image, sees)

    def show_map(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a true map as the ViT sees it."""
        if modality == 'depth':
            return self._show(colour_relative(self._pictures.depth[..., 0].astype(np.float32) / 255), sees)
        return self._show(self._pictures.segmentation, sees)

    def _show(self, picture: np.ndarray, sees: tuple[int, ...]) -> int:
        self.vision.append(picture)
        number = self._first_vision + len(self.vision) - 1
        return self.add(Segment('vision', sees, image=number, grid=self._stage.vision_grid))

    def _latents(self, kind: Literal['latents', 'noise'], shown: Modality | None, sees: tuple[int, ...]) -> int:
        self.shown.append(shown)
        return self.add(Segment(kind, sees, image=self._first_latent + len(self.shown), grid=self._stage.grid))


class Sft:
    """Builds batches and their loss."""

    def __init__(self, model: Cooper, scenes: SimulatedScenes, latents: LatentCache, folder: Path) -> None:
        self.model, self.scenes, self.latents = model, scenes, latents
        self.config = model.config
        self.prompts, self.tokenizer = Prompts.load(folder), Tokenizer.load(folder)
        self.talk = Conversations(self.prompts, self.tokenizer, self.config.tokens)
        height, width = scenes.records[0].ids.shape
        self.grid = (height // self.config.latent_stride, width // self.config.latent_stride)
        patch = self.config.vision.patch_size
        self.vision_grid = (height // patch, width // patch)

    def loss(self, numbers: np.ndarray, settings: SftConfig, rng: np.random.Generator) -> Parts:
        """Return the loss on scenes ``numbers``; ``tokens`` and ``scenes`` beside it count the work."""
        samples: list[Sample] = []
        vision = latents = 0
        for number in numbers:
            sample = self.sample(self.scenes.records[int(number)], settings, rng, vision, latents)
            vision += len(sample.vision)
            latents += 1 + len(sample.shown)
            samples.append(sample)
        device = self.model.device
        owner = torch.tensor([n for n, sample in enumerate(samples) for _ in sample.drawn])
        kind = [modality for sample in samples for modality in sample.drawn]
        targets = {name: self.latents.get(numbers, name) for name in ('image', *MODALITIES)}
        drawn = [targets[name][n] for n, name in zip(owner, kind, strict=True)]
        clean = torch.stack(drawn) if drawn else targets['image'][:0]
        clean = clean.to(device)
        noise = torch.randn_like(clean)
        times = draw_times(len(clean), settings.shift).to(device)
        noisy = mix(clean, noise, times)
        images: list[Tensor] = []
        all_times: list[float] = []
        maps = zip(noisy, times.tolist(), strict=True)
        for sample, image in zip(samples, targets['image'].to(device), strict=True):
            beside = ((image, 0.0) if kind is None else next(maps) for kind in sample.shown)
            for rows, time in ((image, 0.0), *beside):
                images.append(rows)
                all_times.append(time)
        batch = pack([sample.segments for sample in samples], self.config, 96)
        shown = vision_pixels([picture for sample in samples for picture in sample.vision], device)
        output = packed_forward(
            self.model, batch, PackedImages(shown, images, all_times, [self.grid] * len(images))
        )
        parts = {'text': text_loss(self.model, output.understanding, batch.labels.to(device))}
        total = parts['text']
        for modality in MODALITIES:
            own = [n for n, name in enumerate(kind) if name == modality]
            if own:
                velocities = [output.velocities[n] for n in own]
                parts[modality] = flow_loss(velocities, clean[own], noise[own])
                total = total + settings.map_weights[modality] * parts[modality]
        tokens = sum(segment.tokens for sample in samples for segment in sample.segments)
        return {'total': total, **parts, 'tokens': tokens, 'scenes': len(samples)}

    def sample(
        self, record: Record, settings: SftConfig, rng: np.random.Generator, vision: int, latents: int
    ) -> Sample:
        """Return one scene with a conversation for every entry of ``settings.modes``."""
        sample = Sample(self, record, vision, latents)
        questions = iter(ask_questions(record, rng, len(settings.modes)))
        for choices in settings.modes:
            mode = _draw_name(choices, rng)
            if mode == 'describe':
                self._tell(sample, REQUEST, describe(record, rng), _happens(settings.seen_only, rng))
            elif mode == 'list':
                self._tell(sample, LIST_REQUEST, f'{listing(record)}.', _happens(settings.seen_only, rng))
            elif mode == 'conclude':
                self._conclude(sample, settings, rng)
            elif mode != 'none' and (question := next(questions, None)) is not None:
                in_thought = len(sample.drawn) < settings.drawn and rng.random() < settings.drawn_in_thought
                turn, look = answering_turn(question, record), _look(question, settings, rng)
                exchange = Exchange(_posed(question, settings, rng), turn, look)
                self.talk.converse(sample, mode, exchange, in_thought)
        while len(sample.drawn) < settings.drawn:
            modality = _draw_name(settings.maps, rng)
            asked = self.talk.user(sample, self.prompts.request(modality), SHARED)
            sample.draw(modality, (*SHARED, asked))
        return sample

    def _tell(self, sample: Sample, request: str, told: str, seen_only: bool) -> None:
        seen = (sample.show_image(()),) if seen_only else SHARED
        asked = self.talk.user(sample, request, seen)
        self.talk.model(sample, told, (*seen, asked))

    def _conclude(self, sample: Sample, settings: SftConfig, rng: np.random.Generator) -> None:
        """Add a question whose facts are given, so that all that is learned of it is what follows from them."""
        for question in ask_questions(sample.record, rng, 1, settings.concluded):
            seen = (*SHARED, self.talk.user(sample, _posed(question, settings, rng), SHARED))
            written = format_turn(answering_turn(question, sample.record))
            facts = think(question, sample.record).seen
            given = len(self.tokenizer.encode(written[: written.index(facts) + len(facts)]))
            self.talk.model(sample, written, seen, given)


class Beside:
    """Maps of other images than simulated ones, learned as in stage 1 beside the conversations."""

    def __init__(self, stage1: Stage1, mixture: Mixture, settings: SftConfig) -> None:
        self.stage1, self.mixture = stage1, mixture
        self.settings = Stage1Config(settings.beside, settings.shift, map_weights=settings.map_weights)
        self.share = settings.beside / settings.batch

    def add(self, parts: Parts, rng: np.random.Generator) -> Parts:
        """Return a loss with that of ``beside`` images added, an image weighing as much as a scene."""
        # Their sizes vary, and each would have to be compiled.
        with eager(self.stage1.model):
            more = self.stage1.loss(self.mixture.draw(self.settings.batch, rng), self.settings, rng)
        named = {f'{name} beside': value for name, value in more.items() if name in MODALITIES}
        work = {name: parts[name] + more[name] for name in ('tokens', 'scenes')}
        return {**parts, **named, **work, 'total': parts['total'] + self.share * more['total']}


def _posed(question: Question, settings: SftConfig, rng: np.random.Generator) -> str:
    listed = rng.random() < settings.listed_choices
    return question_text(question.text, question.choices if listed else ())


def _look(question: Question, settings: SftConfig, rng: np.random.Generator) -> Modality | None:
    planned = PLANS[question.category].look
    if not _happens(settings.otherwise, rng):
        return planned
    return _draw_name(settings.maps, rng) if planned is None else None


def _happens(chance: float, rng: np.random.Generator) -> bool:
    # No number is drawn where it cannot matter: settings that were there before give the batches that they gave.
    return chance > 0 and rng.random() < chance


def _draw_name(chances: Mapping[Any, float], rng: np.random.Generator) -> Any:
    """Return a key, with the relative frequency that is its value."""
    names = list(chances)
    weights = np.array([chances[name] for name in names])
    return names[int(rng.choice(len(names), p=weights / weights.sum()))]


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    settings = read_settings(config_argument(__doc__), Settings)
    data, loop = settings.stage, settings.loop
    start = prepare(settings, loop.loaded)
    model, scenes = start.model, start.scenes
    stage = Sft(model, scenes, start.latents, start.folder)
    if settings.start is None:
        initialise(model, stage.grid, loop.seed)
    run = Run(model, loop, settings.out, settings.start)
    start.autoencoder.to(run.accelerator.device)

    beside = None
    if settings.data:
        words = model_input(start.folder, model.config)
        mixture = open_mixture(settings.data, words, start.autoencoder)
        beside = Beside(Stage1(model, words), mixture, data)

    def loss(step: int, rng: np.random.Generator) -> Parts:
        parts = stage.loss(rng.integers(0, len(start.latents), data.batch), data, rng)
        return beside.add(parts, rng) if beside and (step + 1) % data.beside_every == 0 else parts

    def evaluate(step: int) -> Mapping[str, float]:
        with eager(model):
            maps = evaluate_maps(model, start.autoencoder, scenes, request_ids(stage.prompts, stage.tokenizer))
            return maps | evaluate_answers(model, start.autoencoder, scenes, start.folder)

    if settings.compile:
        compile_layers(model)
    run.train(loss, evaluate)


if __name__ == '__main__':
    main()
