"""Stage 2a trains on just the sequences that a reasoner meets, and its traces tell the truth."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cooper_model.config import CooperConfig
from cooper_model.grammar import parse_turn
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.packing import IGNORE, Segment
from cooper_model.prompts import Prompts
from cooper_model.reasoner import MODALITIES, Reasoner
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import AnswerReady, Frame
from cooper_sim.dataset import write_dataset
from cooper_sim.questions import ask_questions
from tests.model.scripted import ScriptedBackend
from training.data import open_mixture
from training.datasets.base import DataEntry
from training.datasets.simulation import SimulatedScenes
from training.latents import LatentCache
from training.loop import LoopConfig
from training.sft import Beside, Settings, Sft, SftConfig
from training.stage1 import Stage1
from training.start import model_input
from training.traces import PLANS, answering_turn, think

ARCHITECTURE = Path(__file__).parents[2] / 'training/configs/nano'


@pytest.fixture(scope='module')
def stage(tmp_path_factory: pytest.TempPathFactory) -> Sft:
    folder = tmp_path_factory.mktemp('scenes')
    write_dataset(folder, 6, 0, workers=1)
    config = CooperConfig.load(ARCHITECTURE)
    config = replace(config, decoder=replace(config.decoder, num_layers=1), vision=replace(config.vision, num_layers=1))
    scenes = SimulatedScenes(folder, config)
    torch.manual_seed(0)
    latents = LatentCache(folder / 'latents.npy', scenes, build_autoencoder(config.autoencoder), len(scenes))
    return Sft(Cooper(config), scenes, latents, ARCHITECTURE)


@pytest.fixture(scope='module')
def settings(stage: Sft) -> Settings:
    folder = stage.scenes.records.folder
    sft = SftConfig(2, ({'describe': 1.0},), 1.0, map_weights={'depth': 3.0, 'segmentation': 0.5}, beside=3)
    data = (DataEntry('simulation', str(folder)),)
    loop = LoopConfig(steps=1, learning_rate=1e-3)
    return Settings(ARCHITECTURE, folder, folder, folder, 4, out=folder, stage=sft, loop=loop, data=data)


def _branch(segments: list[Segment], last: int) -> list[Segment]:
    return [segments[i] for i in segments[last].sees] + [segments[last]]


@pytest.mark.parametrize('mode', ['auto', 'direct', 'text', 'perception'])
def test_a_trained_branch_is_what_the_reasoner_feeds(stage: Sft, mode: str) -> None:
    settings = SftConfig(batch=1, modes=({mode: 1.0},), shift=1.0, listed_choices=1.0)
    checked = 0
    for number in range(len(stage.scenes)):
        record = stage.scenes.records[number]
        sample = stage.sample(record, settings, np.random.default_rng(number), 0, 0)
        question = ask_questions(record, np.random.default_rng(number), 1)[0]
        told = [i for i, s in enumerate(sample.segments) if s.labels]
        branch = _branch(sample.segments, told[-1])
        words = [stage.tokenizer.decode(s.ids) if s.kind == 'text' else s.kind for s in branch]
        forced = Prompts.load(ARCHITECTURE).forced_answer if mode == 'perception' else ''
        script = [stage.tokenizer.decode(sample.segments[i].ids).removeprefix(forced) for i in told]
        backend = ScriptedBackend(stage.config, stage.tokenizer, script)
        reasoner = Reasoner(backend, Tokenizer.load(ARCHITECTURE), Prompts.load(ARCHITECTURE))
        *_, last = reasoner.ask(Frame(record.image), question.text, mode=mode, choices=question.choices)
        assert isinstance(last, AnswerReady)
        assert last.answer.text == question.answer
        final = max(backend.contexts, key=len)
        assert [what if kind in ('text', 'said') else kind for kind, what in final] == words
        checked += 1
    assert checked == len(stage.scenes)


def test_only_the_models_own_words_carry_loss(stage: Sft) -> None:
    settings = SftConfig(batch=1, modes=({'auto': 1.0}, {'describe': 1.0}, {'perception': 1.0}), shift=1.0)
    sample = stage.sample(stage.scenes.records[0], settings, np.random.default_rng(1), 0, 0)
    end = stage.config.tokens.end
    for segment in sample.segments:
        if segment.labels:
            learned = [label for label in segment.labels if label != IGNORE]
            assert learned[-1] == end
            assert list(segment.ids[-len(learned) :]) == learned


@pytest.mark.parametrize('mode', ['describe', 'list'])
def test_a_scene_may_be_told_from_what_the_vision_tower_sees_alone(stage: Sft, mode: str) -> None:
    for chance, kinds in ((0.0, {'latents', 'vision', 'text'}), (1.0, {'vision', 'text'})):
        settings = SftConfig(1, ({mode: 1.0},), 1.0, drawn=0, seen_only=chance)
        sample = stage.sample(stage.scenes.records[0], settings, np.random.default_rng(0), 0, 0)
        assert {segment.kind for segment in _branch(sample.segments, len(sample.segments) - 1)} == kinds


def test_a_thought_may_do_otherwise_than_its_kind_of_question_has_it(stage: Sft) -> None:
    def looks(seed: int, otherwise: float) -> bool:
        settings = SftConfig(1, ({'auto': 1.0},), 1.0, drawn=0, otherwise=otherwise)
        sample = stage.sample(stage.scenes.records[seed % 6], settings, np.random.default_rng(seed), 0, 0)
        return len(sample.vision) > 1

    planned = [looks(seed, 0.0) for seed in range(12)]
    assert set(planned) == {True, False}
    assert [looks(seed, 1.0) for seed in range(12)] == [not look for look in planned]


def test_a_conclusion_is_learned_from_facts_that_carry_no_loss(stage: Sft) -> None:
    settings = SftConfig(batch=1, modes=({'conclude': 1.0},), shift=1.0, concluded={'situational': 1, 'occlusion': 1})
    learned_from = set()
    for number in range(len(stage.scenes)):
        sample = stage.sample(stage.scenes.records[number], settings, np.random.default_rng(number), 0, 0)
        said = next((segment for segment in sample.segments if segment.labels), None)
        if said is None:  # nothing can be asked of this scene
            continue
        learned = stage.tokenizer.decode([n for n in said.labels if n not in (IGNORE, stage.config.tokens.end)])
        found = re.fullmatch(r'(; from .* turn -?\d+)?\.</think><answer>\\boxed\{.+\}</answer>', learned)
        assert found, learned
        assert ' at ' in stage.tokenizer.decode(said.ids) and ' at ' not in learned
        learned_from.add(found[1] is None)
    assert learned_from == {True, False}


COMPARED = {
    'left_right': (' left ', 'left'), 'above_below': (' lower ', 'below'), 'front_behind': (' front ', 'in front'),
}  # fmt: skip


def test_what_a_thought_compares_agrees_with_the_answer(stage: Sft) -> None:
    checked = 0
    for number in range(len(stage.scenes)):
        record = stage.scenes.records[number]
        for question in ask_questions(record, np.random.default_rng(number), 8, dict.fromkeys(COMPARED, 1.0)):
            word, answer = COMPARED[question.category]
            thought = answering_turn(question, record).thought.rstrip('.')
            first, least = thought.split(' at ')[0], thought.rpartition(word)[2]
            if question.form == 'choice':
                assert (question.answer == answer) == (first == least), thought
                checked += 1
    assert checked


def test_a_turn_is_to_the_side_of_the_answer(stage: Sft) -> None:
    checked = 0
    for number in range(len(stage.scenes)):
        record = stage.scenes.records[number]
        for question in ask_questions(record, np.random.default_rng(number), 3, {'situational': 1.0}):
            turn = int(think(question, record).follows.rpartition(' ')[2])
            assert -165 <= turn <= 165 and ('right' if turn > 0 else 'left') == question.answer
            checked += 1
    assert checked


def test_the_way_between_two_objects_gives_their_distance(stage: Sft) -> None:
    checked = 0
    for number in range(len(stage.scenes)):
        record = stage.scenes.records[number]
        for question in ask_questions(record, np.random.default_rng(number), 3, {'metric_separation': 1.0}):
            *way, word, apart = think(question, record).follows.split()
            assert word == 'apart' and question.value == pytest.approx(int(apart) / 100, abs=0.026)
            assert np.linalg.norm([int(part) for part in way]) == pytest.approx(int(apart), abs=8)
            checked += 1
    assert checked


def test_a_run_without_maps_has_no_flow_loss(stage: Sft) -> None:
    settings = SftConfig(batch=2, modes=({'describe': 1.0}, {'text': 1.0}), shift=1.0, drawn=0)
    with torch.no_grad():
        parts = stage.loss(np.array([0, 1]), settings, np.random.default_rng(0))
    assert set(parts) == {'total', 'text', 'tokens', 'scenes'} and float(parts['total']) == float(parts['text'])


def test_images_beside_the_scenes_weigh_as_much_as_scenes(stage: Sft, settings: Settings) -> None:
    words = model_input(ARCHITECTURE, stage.config)
    mixture = open_mixture(settings.data, words, build_autoencoder(stage.config.autoencoder))
    beside = Beside(Stage1(stage.model, words), mixture, settings.stage)
    alone = {'total': torch.tensor(1.0), 'tokens': 10, 'scenes': 2}
    with torch.no_grad():
        parts = beside.add(alone, np.random.default_rng(0))
    weighted = sum(settings.stage.map_weights[kind] * float(parts[f'{kind} beside']) for kind in MODALITIES)
    assert float(parts['total']) == pytest.approx(1 + weighted * 3 / 2, rel=1e-5)
    assert parts['scenes'] == 2 + 3 and parts['tokens'] > 10


def test_data_without_a_number_of_images_is_refused(settings: Settings) -> None:
    with pytest.raises(ValueError, match='give both'):
        replace(settings, stage=replace(settings.stage, beside=0))


def test_loss_reaches_both_experts_and_the_vision_tower(stage: Sft) -> None:
    settings = SftConfig(batch=2, modes=({'auto': 1.0}, {'direct': 1.0}), shift=1.0)
    torch.manual_seed(0)
    parts = stage.loss(np.array([0, 1]), settings, np.random.default_rng(0))
    parts['total'].backward()
    missing = [name for name, p in stage.model.named_parameters() if p.grad is None]
    stage.model.zero_grad()
    assert not missing
    assert float(parts['text'].detach()) > 1 and float(parts['depth'].detach()) > 0.2


def test_traces_state_facts_and_the_true_answer(stage: Sft) -> None:
    seen = set()
    for number in range(len(stage.scenes)):
        record = stage.scenes.records[number]
        for question in ask_questions(record, np.random.default_rng(number), 12):
            turn = answering_turn(question, record)
            assert question.answer in turn.body
            assert turn.thought.endswith('.')
            if question.category in ('counting', 'existence'):
                listed, _, told = turn.thought.rstrip('.').partition('; these: ')
                counted = [part.rpartition(' ') for part in told.split('; ') if part != 'none']
                assert [f'{name} at ' in listed for name, _, _ in counted] == [True] * listed.count(' at ')
                last = int(counted[-1][2]) if counted else 0
                truth = {'yes': last > 0, 'no': last == 0}.get(question.answer, last == question.value)
                assert truth, turn.thought
            seen.add(question.category)
            assert parse_turn(f'<think>{turn.thought}</think><answer>{turn.body}</answer>').thought == turn.thought
    assert seen == set(PLANS)
