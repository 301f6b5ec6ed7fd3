"""Stages 1 and 2a at once, on a robot's folder and on scenes of old beside it: the training of ``cooper retrain``.

``python -m training.retrain_stage --config FILE``, a file that ``cooper retrain`` writes. A frame is trained on what is
known of it: depth and masks as in stage 1, questions and corrections as in stage 2a. Of a correction nobody knows the
thought, so its answer stands alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from cooper_model.grammar import boxed_answer
from cooper_model.network.model import Cooper
from cooper_model.packing import Segment
from cooper_model.prompts import question_text
from cooper_model.reasoner import MODALITIES
from cooper_model.transforms import resize
from cooper_model.types import Modality, Mode, Turn
from cooper_sim.records import Record
from cooper_sim.robot_format import RobotQuestion
from training.config import LoopConfig
from training.conversations import SHARED, Conversations, Exchange
from training.curves import Parts
from training.data import Sample
from training.datasets.base import ModelInput
from training.latents import Encoder, as_pixels
from training.loop import Run
from training.processes import start_processes
from training.retrain_data import FrameSample, FrameSamples, RobotFolder
from training.settings import config_argument, program, read_settings
from training.stage1 import Batch, Stage1, Stage1Config
from training.start import model_input, prepare_model
from training.traces import PLANS, answering_turn


@dataclass(frozen=True)
class RetrainConfig(Stage1Config):
    """What is trained on; ``batch`` frames a step and process.

    :param robot: share of the robot's frames in a batch; the others are of old
    :param questions: most questions of a frame in a step
    :param modes: how often a question is trained in each mode of the reasoner
    :param listed_choices: probability that the choices of a question are listed below it
    :param drawn_in_thought: probability that a map asked for in a conversation is drawn there with a loss
    """

    robot: float = 0.5
    questions: int = 3
    modes: Mapping[Mode, float] = field(default_factory=lambda: {'auto': 1.0})
    listed_choices: float = 0.5
    drawn_in_thought: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.robot <= 1:
            raise ValueError(f'stage: robot is {self.robot}, expected a share above 0')


@dataclass(frozen=True)
class Recipe:
    """How checkpoints of a size are retrained: a file of ``training/configs``."""

    stage: RetrainConfig
    loop: LoopConfig


@dataclass(frozen=True)
class FrameList:
    """Frames of a folder.

    :param names: ids of those that are trained on
    """

    folder: Path
    names: tuple[str, ...]


@dataclass(frozen=True)
class Settings:
    """One retraining.

    :param checkpoint: folder that it starts from, with architecture, tokenizer, prompts and autoencoder
    :param rehearsal: frames of old; None for none
    """

    checkpoint: Path
    out: Path
    robot: FrameList
    rehearsal: FrameList | None
    stage: RetrainConfig
    loop: LoopConfig


class FrameScene:
    """One frame's sequence in a batch; see :class:`training.conversations.Scene`."""

    def __init__(self, made: Batch, sample: FrameSample, stage: RetrainStage) -> None:
        self._made, self._sample, self._stage = made, sample, stage
        self._segments = made.sequences[-1]
        self._grid = self._segments[SHARED[0]].grid

    def add(self, segment: Segment) -> int:
        """Append a segment."""
        self._segments.append(segment)
        return len(self._segments) - 1

    def show_latents(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as latents."""
        number = self._made.add_latents(self._sample.image, self._grid)
        return self.add(Segment('latents', sees, image=number, grid=self._grid))

    def show_image(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as the ViT sees it."""
        return self._show(self._sample.example.image, sees)

    def show_map(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a true map as the ViT sees it."""
        return self._show(self._sample.maps[modality], sees)

    def draw(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a map being generated."""
        rows, counted = self._sample.targets[modality], self._sample.counted.get(modality)
        number = self._made.add_target(modality, rows, self._grid, counted)
        return self.add(Segment('noise', sees, image=number, grid=self._grid))

    def _show(self, picture: np.ndarray, sees: tuple[int, ...]) -> int:
        config = self._stage.config
        shown, patch = resize(picture, config.vit_transform), config.vision.patch_size
        self._made.vision.append(as_pixels(shown))
        grid = (shown.shape[0] // patch, shown.shape[1] // patch)
        return self.add(Segment('vision', sees, image=len(self._made.vision) - 1, grid=grid))


class RetrainStage(Stage1):
    """Builds batches of stage 1 with conversations in them, and their loss."""

    def __init__(self, model: Cooper, words: ModelInput) -> None:
        super().__init__(model, words)
        self.talk = Conversations(words.prompts, words.tokenizer, words.config.tokens)

    def append(self, made: Batch, sample: Sample, settings: Stage1Config, rng: np.random.Generator) -> None:
        """Append one frame with its maps, its description where all is known of it, and some of its questions."""
        super().append(made, sample, settings, rng)
        if not (isinstance(sample, FrameSample) and isinstance(settings, RetrainConfig)):
            return
        scene = FrameScene(made, sample, self)
        for number in rng.permutation(len(sample.questions))[: settings.questions]:
            question = sample.questions[int(number)]
            listed = question.choices if rng.random() < settings.listed_choices else ()
            exchange = exchange_of(question, sample.example.record, question_text(question.question, listed))
            mode = self._mode(exchange, sample, settings, rng)
            drawn = bool(rng.random() < settings.drawn_in_thought)
            self.talk.converse(scene, mode, exchange, drawn)

    def _mode(
        self, exchange: Exchange, sample: FrameSample, settings: RetrainConfig, rng: np.random.Generator
    ) -> Mode:
        """Return a mode whose maps are known; ``direct`` needs none."""
        needed: dict[Mode, tuple[Modality, ...]] = {'auto': exchange.maps, 'perception': MODALITIES}
        fitting = [mode for mode in settings.modes if set(needed.get(mode, ())) <= set(sample.maps)]
        weights = np.array([settings.modes[mode] for mode in fitting])
        if not weights.sum():
            return 'direct'
        return fitting[int(rng.choice(len(fitting), p=weights / weights.sum()))]


def exchange_of(question: RobotQuestion, record: Record | None, text: str) -> Exchange:
    """Return a question with the turns that answer it: with facts where those of its objects are known."""
    known = record is not None and question.category in PLANS and question.source == 'rule'
    if not known:
        return Exchange(text, Turn('', 'answer', boxed_answer(question.answer)))
    turn = answering_turn(question, record)
    return Exchange(text, turn, PLANS[question.category].look)


class Draws:
    """Draws batches from the robot's frames and those of old."""

    def __init__(self, robot: FrameSamples, rehearsal: FrameSamples | None, settings: RetrainConfig) -> None:
        self._robot, self._rehearsal, self._settings = robot, rehearsal, settings

    def batch(self, rng: np.random.Generator) -> Sequence[FrameSample]:
        """Return the frames of a step: the share that settings say, rounded at random."""
        count, share = self._settings.batch, self._settings.robot if self._rehearsal else 1.0
        own = int(count * share + rng.random())
        sets = [self._robot if number < own else self._rehearsal for number in range(count)]
        return [frames.draw(rng) for frames in sets]


def train(settings: Settings) -> None:
    """Train to the last step, from where an earlier run was stopped.

    :raises FileNotFoundError, ValueError: a folder is missing, or of another model
    """
    folder = settings.checkpoint
    start = prepare_model(folder, folder, folder, settings.loop.loaded)
    words = model_input(folder, start.model.config, settings.stage.max_tokens)
    encoder = Encoder(start.autoencoder.to(start_processes().device), start.model.config)
    lists = [each for each in (settings.robot, settings.rehearsal) if each is not None]
    opened = [FrameSamples(RobotFolder(each.folder, words), each.names, encoder) for each in lists]
    draws = Draws(opened[0], opened[1] if len(opened) > 1 else None, settings.stage)
    stage = RetrainStage(start.model, words)
    run = Run(start.model, settings.loop, settings.out, folder)

    def loss(step: int, rng: np.random.Generator) -> Parts:
        return stage.loss(draws.batch(rng), settings.stage, rng)

    run.train(loss)


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    train(read_settings(config_argument(__doc__), Settings))


if __name__ == '__main__':
    main()
