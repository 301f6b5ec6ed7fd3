"""Rollouts are what the reasoner does, and training sees them in the contexts that they had."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cooper_model.backends.torch import TorchBackend
from cooper_model.config import SamplerConfig
from cooper_model.grammar import parse_turn
from cooper_model.loading import default_checkpoint
from cooper_model.packing import IGNORE
from cooper_model.prompts import Prompts
from cooper_model.reasoner import Reasoner
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import AnswerReady, Frame, ImageReady, TurnDone
from cooper_sim.dataset import write_dataset
from cooper_sim.grading import Truth
from cooper_sim.questions import ask_questions
from cooper_sim.records import SimDataset
from tests.random_checkpoint import write_random_checkpoint
from training import policy
from training.datasets.base import QuestionExample
from training.policy import Piece, pack_rollouts, pieces, token_logprobs
from training.rollouts import RolloutConfig, RolloutSampler
from training.transcripts import Group, Read, Rollout, Shown, Written

GUIDED = SamplerConfig(num_timesteps=3, shift=1.0, text_scale=3.0, image_scale=1.5, interval=(0.0, 1.0))


@pytest.fixture(scope='module')
def examples(tmp_path_factory: pytest.TempPathFactory) -> list[QuestionExample]:
    folder = tmp_path_factory.mktemp('scenes')
    write_dataset(folder, 4, 0, workers=1)
    found = []
    for number, record in enumerate(SimDataset(folder)[n] for n in range(4)):
        # nano looks before it answers about distances and counts, and answers at once what is on the left.
        category = ('metric_distance', 'left_right', 'counting', 'existence')[number]
        for question in ask_questions(record, np.random.default_rng(number), 1, {category: 1.0}):
            truth = Truth(question.answer, question.value, question.unit, question.choices)
            example = QuestionExample(str(len(found)), record.image, question.text, truth, question.choices)
            found.append(example)
    # One of another shape: its maps cannot be drawn in one batch with the others.
    tall = np.ascontiguousarray(found[0].image.transpose(1, 0, 2))
    return [*found, replace(found[0], image=tall, id='tall')]


@pytest.fixture(scope='module')
def backend() -> TorchBackend:
    return TorchBackend.load(default_checkpoint(), 'cpu', torch.float32)


@pytest.fixture(scope='module')
def random_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp('random'))


def sampler(backend: TorchBackend, folder: Path, config: RolloutConfig) -> RolloutSampler:
    return RolloutSampler(backend, Tokenizer.load(folder), Prompts.load(folder), config)


def asked(backend: TorchBackend, folder: Path, group: Group, mode: str) -> list:
    reasoner = Reasoner(backend, Tokenizer.load(folder), Prompts.load(folder))
    example = group.example
    events = reasoner.ask(
        Frame(example.image), example.text, mode=mode, choices=example.choices, seed=group.rollouts[0].seed
    )
    return list(events)


def assert_same(rollout: Rollout, events: list) -> None:
    answer = events[-1]
    assert isinstance(answer, AnswerReady)
    assert (rollout.answer, rollout.forced) == (answer.answer.text, answer.answer.forced)
    written = [part for part in rollout.parts if isinstance(part, Written)]
    assert [parse_turn(part.text) for part in written] == [e.parsed for e in events if isinstance(e, TurnDone)]
    maps = [e for e in events if isinstance(e, ImageReady)]
    shown = [part for part in rollout.parts if isinstance(part, Shown)]
    assert [part.modality for part in shown] == [e.modality for e in maps]
    for part, event in zip(shown, maps, strict=True):
        expected = event.image.color.astype(int)
        if part.picture.shape == expected.shape:
            # What is shown is truncated to 8 bits, as published; what is returned may be rounded.
            assert np.abs(part.picture.astype(int) - expected).mean() < 0.75


@pytest.mark.parametrize('mode', ['auto', 'text', 'direct', 'perception'])
def test_greedy_rollouts_equal_the_reasoner(backend: TorchBackend, examples: list, mode: str) -> None:
    rolled = sampler(backend, default_checkpoint(), RolloutConfig(1, mode, 0.0, rows=5)).sample(examples)
    looked = 0
    for group in rolled:
        (rollout,) = group.rollouts
        assert_same(rollout, asked(backend, default_checkpoint(), group, mode))
        looked += any(isinstance(part, Shown) for part in rollout.parts)
    if mode == 'auto':
        assert 0 < looked < len(examples)
    else:
        assert looked == (len(examples) if mode == 'perception' else 0)


def test_greedy_rollouts_equal_the_reasoner_under_guidance(examples: list) -> None:
    backend = TorchBackend.load(default_checkpoint(), 'cpu', torch.float32)
    backend.config = replace(backend.config, sampler=GUIDED)
    for mode in ('auto', 'perception'):
        rolled = sampler(backend, default_checkpoint(), RolloutConfig(1, mode, 0.0)).sample([examples[0], examples[2]])
        assert any(isinstance(part, Shown) for group in rolled for part in group.rollouts[0].parts)
        for group in rolled:
            assert_same(group.rollouts[0], asked(backend, default_checkpoint(), group, mode))


def test_a_model_that_never_answers_is_forced_just_as_by_the_reasoner(random_folder: Path, examples: list) -> None:
    backend = TorchBackend.load(random_folder, 'cpu', torch.float32)
    for mode in ('auto', 'text'):
        groups = sampler(backend, random_folder, RolloutConfig(1, mode, 0.0)).sample(examples[:2])
        for group in groups:
            (rollout,) = group.rollouts
            assert_same(rollout, asked(backend, random_folder, group, mode))
            assert rollout.forced
            given_up, answer = rollout.parts
            assert (given_up.kept, answer.kept) == (False, True)
            assert answer.given > 0 and given_up.given == 0
            assert rollout.turns == [given_up.text]


def test_equal_seeds_give_equal_rollouts_whatever_the_batch(backend: TorchBackend, examples: list) -> None:
    def texts(config: RolloutConfig, seed: int) -> list[list[str]]:
        groups = sampler(backend, default_checkpoint(), config).sample(examples[:2], [seed, seed + 10])
        return [[part.text for part in r.parts if isinstance(part, Written)] for g in groups for r in g.rollouts]

    config = RolloutConfig(4, 'auto', 1.5)
    first = texts(config, 1)
    assert first == texts(config, 1) == texts(replace(config, rows=3), 1)
    assert first != texts(config, 2)
    assert len({tuple(text) for text in first}) > 4  # of 8: the samples of a group differ


@pytest.mark.parametrize(
    ('mode', 'temperature', 'rows'), [('auto', 1.0, 4), ('auto', 1.7, 3), ('text', 1.0, 4), ('perception', 0.7, 1)]
)
def test_packed_logprobs_equal_those_recorded_while_decoding(
    backend: TorchBackend, examples: list, mode: str, temperature: float, rows: int
) -> None:
    config = RolloutConfig(4, mode, temperature)
    groups = sampler(backend, default_checkpoint(), config).sample([examples[0], examples[-1]], [5, 6])
    packed = pack_rollouts(pieces(groups, backend.config, rows), backend.config)
    with torch.no_grad():
        found = token_logprobs(backend.model, packed, temperature)
    assert found.shape == packed.recorded.shape and len(found) == int((packed.batch.labels != IGNORE).sum())
    assert float((found - packed.recorded).abs().max()) < 1e-4
    lengths = [rollout.length for group in groups for rollout in group.rollouts]
    assert packed.owner.bincount(minlength=len(lengths)).tolist() == lengths


def test_rows_hold_no_more_tokens_than_asked_and_not_fewer_rollouts_than_they_could(
    backend: TorchBackend, examples: list
) -> None:
    groups = sampler(backend, default_checkpoint(), RolloutConfig(5, 'auto', 1.5)).sample([examples[0], examples[-1]])
    alone = pieces(groups, backend.config, 1)

    def tokens(piece: Piece) -> int:
        return pack_rollouts([piece], backend.config).batch.mask.shape[-1]

    most = max(map(tokens, pieces(groups, backend.config, 2)))
    rows = pieces(groups, backend.config, 5, most)
    assert [number for row in rows for number in row.numbers] == list(range(10))
    assert [tuple(row.rollouts) for row in pieces(groups, backend.config, 5, 1)] == [tuple(p.rollouts) for p in alone]
    assert max(map(tokens, rows)) <= most
    for row, following in pairwise(rows):
        if row.group is following.group:
            longer = replace(row, rollouts=[*row.rollouts, following.rollouts[0]], numbers=range(len(row.numbers) + 1))
            assert tokens(longer) > most


def test_logprobs_are_the_same_a_little_at_a_time(
    backend: TorchBackend, examples: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = sampler(backend, default_checkpoint(), RolloutConfig(2)).sample(examples[:1])
    packed = pack_rollouts(pieces(groups, backend.config, 2), backend.config)
    weight = backend.model.language_model.lm_head.weight
    found = []
    for rows in (policy.LOGITS_ROWS, 7):
        monkeypatch.setattr(policy, 'LOGITS_ROWS', rows)
        weight.requires_grad_(True)
        logprobs = token_logprobs(backend.model, packed, 1.0)
        (gradient,) = torch.autograd.grad(logprobs.sum(), weight)
        weight.requires_grad_(False)
        found.append((logprobs.detach(), gradient))
    assert len(found[0][0]) > 14
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_packed_logprobs_of_forced_answers_equal_those_recorded(random_folder: Path, examples: list) -> None:
    backend = TorchBackend.load(random_folder, 'cpu', torch.float32)
    groups = sampler(backend, random_folder, RolloutConfig(3)).sample(examples[:2], [1, 2])
    assert all(rollout.forced for group in groups for rollout in group.rollouts)
    packed = pack_rollouts(pieces(groups, backend.config, 8), backend.config)
    with torch.no_grad():
        found = token_logprobs(backend.model, packed, 1.0)
    assert float((found - packed.recorded).abs().max()) < 1e-4


def test_only_what_the_model_chose_carries_loss(backend: TorchBackend, examples: list) -> None:
    (group,) = sampler(backend, default_checkpoint(), RolloutConfig(1)).sample(examples[:1])
    end = backend.config.tokens.end
    parts = [
        Written('ab', (7, 8), 0, (-1.0, -1.0), False, kept=False),  # given up at the limit: no end of its own
        Written('?cd', (5, 6, 9), 2, (-1.0, -1.0), True),  # two given ids, then one of its own and the end
    ]
    told = replace(group, rollouts=(Rollout(0, [*parts, Read((4,)), Written('e', (9,), 0, (-1.0,), False)]),))
    batch = pack_rollouts(pieces([told], backend.config, 1), backend.config).batch
    learned = [
        (int(batch.ids[0, place]), int(batch.labels[0, place])) for place in (batch.labels[0] != IGNORE).nonzero()[:, 0]
    ]
    start = backend.config.tokens.start
    # Each token is predicted at the place before it; the given 6 predicts 9, and 9 the end.
    assert learned == [(start, 7), (7, 8), (6, 9), (9, end), (start, 9)]
    first, second = (row.tolist() for row in (batch.mask[0], batch.positions[0]))
    given_up = batch.ids[0].tolist().index(7)
    answer = batch.ids[0].tolist().index(5)
    assert not any(first[answer + n][given_up] for n in range(3))  # nothing later sees what was given up
    assert second[answer] == second[given_up]  # and the answer stands in its place
