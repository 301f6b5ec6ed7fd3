"""Stage 2b, GRPO with the cooperative perception-reasoning reward: the model answers, and better answers gain weight.

``python -m training.grpo --config training/configs/nano/grpo.yaml``. Starts from stage 2a. Groups of answers to each
question are sampled, rewarded for accuracy, format and well chosen perceiving (:mod:`training.rewards`), and compared
within their group (:mod:`training.advantages`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from accelerate import Accelerator

from cooper_model.network.model import Cooper
from training.curves import COUNTS, Parts
from training.data import Mixture, open_mixture
from training.datasets.base import DataEntry, Flag, ModelInput, QuestionExample
from training.datasets.registry import open_questions
from training.datasets.simulation import SimulatedScenes
from training.evaluation import backend_of, evaluate_answers, evaluate_parts, frozen, request_ids
from training.experience import JudgedGroup, judge, transcript
from training.flags import FlagConfig, FlagStore
from training.grpo_batches import LossConfig, RolloutBatch, make_batch, policy_loss
from training.loop import LoopConfig, Run
from training.policy import token_logprobs
from training.processes import start_processes
from training.question_pool import QuestionPool
from training.rewards import ExplorationConfig, graded_accuracy
from training.rollouts import RolloutConfig, RolloutSampler
from training.settings import config_argument, program, read_settings
from training.stage1 import Stage1, Stage1Config
from training.start import ModelStart, model_input, prepare_model
from training.transcripts import Group

log = logging.getLogger(__name__)
SHOWN = 4  # groups of a step that are written as text


@dataclass(frozen=True)
class GrpoConfig:
    """What is trained on.

    :param questions: of each process and batch of rollouts
    :param minibatches: optimiser steps for going once through a batch of rollouts
    :param passes: how often one goes through it
    :param numbers: whether a length is right within the tolerance of ``cooper eval``, or earns the more the nearer it
        is (mean relative accuracy)
    :param show_every: steps between two files of rollouts as text
    """

    questions: int
    minibatches: int = 1
    passes: int = 1
    numbers: Literal['tolerance', 'graded'] = 'tolerance'
    show_every: int = 20

    def __post_init__(self) -> None:
        for name in ('questions', 'minibatches', 'passes', 'show_every'):
            if getattr(self, name) < 1:
                raise ValueError(f'stage: {name} is {getattr(self, name)}, expected 1 or more')

    @property
    def period(self) -> int:
        """Optimiser steps that one batch of rollouts serves."""
        return self.minibatches * self.passes


@dataclass(frozen=True)
class Rehearsal:
    """Stage 1 going on beside, so that drawing is not forgotten.

    :param weight: of its loss
    """

    weight: float
    data: tuple[DataEntry, ...]
    stage: Stage1Config


@dataclass(frozen=True)
class Settings:
    """A run of stage 2b.

    :param architecture: folder with configuration, tokenizer and prompts
    :param autoencoder, start: folders of a run or a checkpoint
    :param flags: how to measure whether perceiving helps; None to take what the data says
    :param scenes: simulated scenes whose last ones are evaluated on; None for no evaluation of answers
    """

    architecture: Path
    autoencoder: Path
    start: Path
    out: Path
    questions: DataEntry
    stage: GrpoConfig
    loop: LoopConfig
    rollouts: RolloutConfig = field(default_factory=RolloutConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    flags: FlagConfig | None = None
    rehearsal: Rehearsal | None = None
    scenes: Path | None = None

    def __post_init__(self) -> None:
        parts, period = self.stage.minibatches * self.loop.accumulate, self.stage.period
        if self.stage.questions % parts:
            raise ValueError(
                f'stage.questions {self.stage.questions} cannot be cut into minibatches x accumulate = {parts} parts'
            )
        for name in ('steps', 'save_every'):
            if getattr(self.loop, name) % period:
                raise ValueError(
                    f'loop.{name} {getattr(self.loop, name)} is no multiple of the {period} steps that one batch of '
                    'rollouts serves; a run could not go on between them'
                )
        if self.rollouts.group < 2:
            raise ValueError('rollouts.group must be 2 or more, advantages compare rollouts')

    @property
    def explores(self) -> bool:
        """Whether flags can change a reward."""
        return self.exploration.bonus > 0 and self.rollouts.mode == 'auto'


class Grpo:
    """Samples rollouts, keeps them for the steps that they serve, and gives the loss on them.

    :param flags: whether perceiving helps, by question id; a question that is not named has its own flag
    :param reference: the starting model, where the divergence from it counts
    """

    def __init__(
        self,
        start: ModelStart,
        settings: Settings,
        pool: QuestionPool,
        flags: Mapping[str, Flag],
        reference: Cooper | None = None,
    ) -> None:
        self.model, self.autoencoder, self.settings = start.model, start.autoencoder, settings
        self.words = model_input(start.folder, start.model.config)
        self.pool, self.flags, self.reference = pool, flags, reference
        self.batches: list[RolloutBatch] = []
        self._next: Iterator[RolloutBatch] = iter(())

    def sample(
        self, examples: Sequence[QuestionExample], config: RolloutConfig, seeds: Sequence[int] | None = None
    ) -> list[Group]:
        """Let the model as it is answer questions."""
        with frozen(self.model):
            backend = backend_of(self.model, self.autoencoder)
            return RolloutSampler(backend, self.words.tokenizer, self.words.prompts, config).sample(examples, seeds)

    def score(self, answer: str, example: QuestionExample) -> float:
        """Return the accuracy of a short answer, 0..1."""
        if self.settings.stage.numbers == 'graded':
            return graded_accuracy(answer, example.truth)
        return self.pool.data.reward(answer, example)

    def prepare(self, step: int, process: int = 0) -> None:
        """Make ready for a step: sample new rollouts where those at hand have served."""
        stage, accumulate = self.settings.stage, self.settings.loop.accumulate
        if step % stage.period == 0:
            self._collect(step, process)
        first = (step % stage.minibatches) * accumulate
        # Around and around: before it saves, the loop asks for one loss more.
        self._next = cycle(self.batches[first : first + accumulate])

    def _collect(self, step: int, process: int) -> None:
        settings, accumulate = self.settings, self.settings.loop.accumulate
        size = settings.stage.questions // (settings.stage.minibatches * accumulate)
        examples, seeds = [], []
        for minibatch in range(settings.stage.minibatches):
            for slot in range(process * accumulate, (process + 1) * accumulate):
                # By slot, as the loop's batches: processes and accumulation may be traded for each other. Not from 0
                # on, which would give the stream of the loss.
                rng = np.random.default_rng((settings.loop.seed, step, slot, 1 + minibatch))
                examples += self.pool.draw(size, rng)
                seeds += rng.integers(2**31, size=size).tolist()
        judged = [self._judge(group) for group in self.sample(examples, settings.rollouts, seeds)]
        self.batches = [self._batch(judged[first : first + size]) for first in range(0, len(judged), size)]
        if process == 0 and step % settings.stage.show_every < settings.stage.period:
            self._show(judged, step)

    def _judge(self, group: Group) -> JudgedGroup:
        flag = self.flags.get(group.example.id, group.example.flag)
        return judge(group, flag, self.score, self.settings.exploration, self.settings.loss.scale)

    @torch.no_grad()
    def _batch(self, groups: Sequence[JudgedGroup]) -> RolloutBatch:
        settings = self.settings
        batch = make_batch(groups, self.model.config, settings.loss)
        temperature = settings.rollouts.temperature
        old = reference = None
        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=settings.loop.bf16):
            if settings.stage.period > 1:
                old = token_logprobs(self.model, batch.packed, temperature)
            if self.reference is not None:
                reference = token_logprobs(self.reference, batch.packed, temperature)
        return replace(batch, old=old, reference=reference)

    def _show(self, groups: Sequence[JudgedGroup], step: int) -> None:
        path = self.settings.out / 'rollouts' / f'{step:06d}.txt'
        text = '\n\n\n'.join(transcript(group) for group in groups[:SHOWN])
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text + '\n', encoding='utf-8')
        except OSError as error:
            log.warning('rollouts of step %d were not written to %s: %s', step, path, error)

    def loss(self) -> Parts:
        """Return the loss on the next batch of the step."""
        return policy_loss(self.model, next(self._next), self.settings.loss, self.settings.rollouts.temperature)


def measured_flags(stage: Grpo, config: FlagConfig, accelerator: Accelerator) -> Mapping[str, Flag]:
    """Return the flags of all questions under the model as it is; every process measures a share."""

    def answer(examples: Sequence[QuestionExample], how: RolloutConfig) -> list[list[str]]:
        how = replace(how, rows=stage.settings.rollouts.rows)
        return [[rollout.answer for rollout in group.rollouts] for group in stage.sample(examples, how)]

    store, pool = FlagStore(config, stage.model), stage.pool
    share = accelerator.process_index, accelerator.num_processes
    store.measure(pool.ids, pool.load, answer, stage.score, share)
    accelerator.wait_for_everyone()
    return store.flags(pool.ids)


def with_rehearsal(
    loss: Callable[[], Parts], model: Cooper, words: ModelInput, rehearsal: Rehearsal, mixture: Mixture
) -> Callable[[np.random.Generator], Parts]:
    """Return a loss to which stage 1's is added."""
    stage1 = Stage1(model, words)

    def both(rng: np.random.Generator) -> Parts:
        parts = loss()
        drawn = stage1.loss(mixture.draw(rehearsal.stage.batch, rng), rehearsal.stage, rng)
        total = parts['total'] + rehearsal.weight * drawn['total']
        watched = {f'rehearsal/{name}': value for name, value in drawn.items() if name not in COUNTS}
        return {**watched, **parts, 'total': total}

    return both


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    train(read_settings(config_argument(__doc__), Settings))


def train(settings: Settings) -> None:
    """Run the stage.

    :raises FileNotFoundError, ValueError: a folder is missing or of another model, or no question can be used
    """
    accelerator = start_processes()
    start = prepare_model(settings.architecture, settings.autoencoder, settings.start, settings.loop.loaded)
    model = start.model
    start.autoencoder.to(accelerator.device)
    words = model_input(start.folder, model.config)
    stage = Grpo(start, settings, QuestionPool(open_questions(settings.questions, words)), {})
    if settings.flags and settings.explores:
        model.to(accelerator.device)  # otherwise the run takes it there, split if it is to be
        stage.flags = measured_flags(stage, settings.flags, accelerator)
    if settings.loss.kl is not None:
        stage.reference = deepcopy(model).requires_grad_(False).to(accelerator.device)
    run = Run(model, settings.loop, settings.out, settings.start)
    mixture = open_mixture(settings.rehearsal.data, words, start.autoencoder) if settings.rehearsal else None
    rehearsed = with_rehearsal(stage.loss, model, words, settings.rehearsal, mixture) if mixture else None

    def loss(step: int, rng: np.random.Generator) -> Parts:
        return rehearsed(rng) if rehearsed else stage.loss()

    def prepare(step: int) -> None:
        if step % settings.stage.period:
            stage.prepare(step, run.process)
            return
        with run.whole():
            stage.prepare(step, run.process)

    def evaluate(step: int) -> Mapping[str, float]:
        found = evaluate_held_out(start, settings.scenes) if settings.scenes else {}
        if mixture:
            requests = request_ids(words.prompts, words.tokenizer)
            found |= evaluate_parts(model, start.autoencoder, mixture.parts, requests, settings.out, step)
        return found

    run.train(loss, evaluate, prepare)


def evaluate_held_out(start: ModelStart, folder: Path) -> dict[str, float]:
    """Score the reasoner's answers on the last scenes of a folder."""
    scenes = SimulatedScenes(folder, start.model.config)
    return evaluate_answers(start.model, start.autoencoder, scenes, start.folder)


if __name__ == '__main__':
    main()
