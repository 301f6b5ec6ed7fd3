"""Stage 2b learns what is rewarded, can be stopped and gone on with, and refuses what it cannot use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

from cooper_model.config import CooperConfig
from cooper_model.network.model import Cooper
from cooper_sim.dataset import write_dataset
from cooper_sim.grading import Truth
from tests.random_checkpoint import tiny_config, write_random_checkpoint
from training.config import LoopConfig
from training.datasets.base import DataEntry, QuestionExample
from training.datasets.report import ReadReport
from training.experience import figures, judge, transcript
from training.flags import FlagConfig, FlagStore, Measured
from training.grpo import Grpo, GrpoConfig, Settings, train
from training.grpo_batches import LossConfig, make_batch, policy_loss
from training.loop import Run
from training.question_pool import QuestionPool
from training.rewards import ExplorationConfig, graded_accuracy
from training.rollouts import RolloutConfig
from training.settings import read_settings
from training.start import prepare_model

ROOT = Path(__file__).parents[2]
VOWELS = set('aeiouAEIOU')


class Asked:
    """Questions about noise; an answer is the better the more vowels it has."""

    name = 'noise'

    def __init__(self, truths: tuple[str, ...] = ('a', 'b', 'c')) -> None:
        self.report = ReadReport(self.name)
        rng = np.random.default_rng(0)
        self.examples = [
            QuestionExample(f'q{n}', rng.integers(0, 256, (48, 64, 3), np.uint8), 'Which?', Truth(truth), category='x')
            for n, truth in enumerate(truths)
        ]

    def __len__(self) -> int:
        return len(self.examples)

    def question(self, number: int) -> QuestionExample:
        return self.examples[number]

    def reward(self, answer: str, example: QuestionExample) -> float:
        return sum(letter in VOWELS for letter in answer) / len(answer)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = replace(tiny_config(), max_new_tokens=5)
    return write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'), config=config)


def settings(checkpoint: Path, out: Path, **changes: object) -> Settings:
    loop = LoopConfig(
        steps=12, learning_rate=3e-2, warmup=0, weight_decay=0, save_every=12, log_every=1, bf16=False, seed=1
    )
    given = {
        'stage': GrpoConfig(questions=4, show_every=4),
        'loop': loop,
        'rollouts': RolloutConfig(group=16, mode='direct'),
        **changes,
    }
    return Settings(checkpoint, checkpoint, checkpoint, out, DataEntry('noise', '-'), **given)


def toy_run(chosen: Settings) -> tuple[Run, list[dict]]:
    start = prepare_model(chosen.architecture, chosen.autoencoder, chosen.start)
    stage = Grpo(start, chosen, QuestionPool(Asked()), {})
    run = Run(start.model, chosen.loop, chosen.out)
    run.train(lambda step, rng: stage.loss(), prepare=stage.prepare)
    return run, [json.loads(line) for line in (chosen.out / 'log.jsonl').read_text().splitlines()]


def test_a_random_model_learns_what_is_rewarded(checkpoint: Path, tmp_path: Path) -> None:
    run, log = toy_run(settings(checkpoint, tmp_path / 'run'))
    earned = [entry['accuracy'] for entry in log]
    assert len(earned) == 12
    assert np.mean(earned[:2]) < 0.2 and np.mean(earned[-2:]) > 0.7
    assert all(entry['gap'] < 1e-4 for entry in log)  # decoding and training agree at every step
    assert all(entry['clipped'] == 0 for entry in log)  # rollouts are used once, so the ratio is 1
    again, other = toy_run(settings(checkpoint, tmp_path / 'again'))
    assert [entry['accuracy'] for entry in other] == earned
    for name, weight in run.parameters.items():
        assert torch.equal(weight, again.parameters[name]), name
    shown = (tmp_path / 'run/rollouts/000004.txt').read_text()
    assert 'truth: ' in shown and 'advantage' in shown
    written = sorted(path.name for path in (tmp_path / 'run/rollouts').iterdir())
    assert written == ['000000.txt', '000004.txt', '000008.txt']


def test_rollouts_serve_several_steps_and_the_ratio_moves(checkpoint: Path, tmp_path: Path) -> None:
    stage = GrpoConfig(questions=4, minibatches=2, passes=2)
    _, log = toy_run(settings(checkpoint, tmp_path, stage=stage))
    earned = [entry['accuracy'] for entry in log]
    assert earned[0] == earned[2] and earned[1] == earned[3] and earned[0] != earned[1]
    assert log[0]['gap'] < 1e-4 < 1e-3 < log[3]['gap']  # old weights sampled, new ones are asked
    assert log[3]['clipped'] > 0


def test_accumulating_does_what_more_processes_do(checkpoint: Path, tmp_path: Path) -> None:
    def asked(accumulate: int, process: int) -> list[list[float]]:
        given = settings(checkpoint, tmp_path, rollouts=RolloutConfig(group=2, mode='direct'))
        given = replace(given, loop=replace(given.loop, accumulate=accumulate),
                        stage=GrpoConfig(questions=2 * accumulate))  # fmt: skip
        start = prepare_model(checkpoint, checkpoint, checkpoint)
        stage = Grpo(start, given, QuestionPool(Asked()), {})
        stage.prepare(4, process)
        assert len(stage.batches) == accumulate
        return [batch.packed.recorded.tolist() for batch in stage.batches]

    together, apart = asked(2, 0), [*asked(1, 0), *asked(1, 1)]
    assert [pytest.approx(one, abs=1e-4) for one in together] == apart


def judged(checkpoint: Path, tmp_path: Path, score) -> tuple[Cooper, list]:
    chosen = settings(checkpoint, tmp_path)
    start = prepare_model(checkpoint, checkpoint, checkpoint)
    stage = Grpo(start, chosen, QuestionPool(Asked()), {})
    groups = stage.sample(stage.pool.data.examples[:2], RolloutConfig(4, 'direct'), [3, 4])
    return start.model, [judge(group, 'boundary', score, ExplorationConfig(), True) for group in groups]


def test_equal_rewards_teach_nothing(checkpoint: Path, tmp_path: Path) -> None:
    model, groups = judged(checkpoint, tmp_path, lambda answer, example: 1.0)
    assert not any(group.teaches for group in groups) and figures(groups)['equal_groups'] == 1
    batch = make_batch(groups, model.config, LossConfig())
    assert len(batch.packed.batch.ids) == 1  # packed all the same, so that no process does less than others
    parts = policy_loss(model, batch, LossConfig(), 1.0)
    parts['total'].backward()
    assert float(parts['total'].detach()) == 0
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def test_what_is_left_out_counts_in_averages(checkpoint: Path, tmp_path: Path) -> None:
    def score(answer: str, example: QuestionExample) -> float:
        return sum(map(ord, answer)) % 7 if example.id == 'q0' else 0.0

    model, groups = judged(checkpoint, tmp_path, score)
    assert [group.teaches for group in groups] == [True, False]
    batch = make_batch(groups, model.config, LossConfig())
    lengths = [rollout.length for rollout in groups[0].group.rollouts]
    expected = [1 / length / 8 for length in lengths for _ in range(length)]  # 8 rollouts, 4 of them packed
    assert batch.weights.tolist() == pytest.approx(expected)
    parts = policy_loss(model, batch, LossConfig(), 1.0)
    # With ratio 1, the loss is the weighted sum of advantages.
    assert float(parts['total'].detach()) == pytest.approx(-sum(groups[0].advantages) / 8, abs=1e-6)
    watched = make_batch(groups, model.config, LossConfig(kl=0.1))
    assert len(watched.packed.batch.ids) == 2  # the divergence counts everywhere


def test_divergence_from_the_start_is_zero_at_the_start_and_pulls_back(checkpoint: Path, tmp_path: Path) -> None:
    model, groups = judged(checkpoint, tmp_path, lambda answer, example: 0.0)
    batch = make_batch(groups, model.config, LossConfig(kl=1.0))
    recorded = batch.packed.recorded
    same = policy_loss(model, replace(batch, reference=recorded), LossConfig(kl=1.0), 1.0)
    assert float(same['kl']) == pytest.approx(0, abs=1e-6)
    away = policy_loss(model, replace(batch, reference=recorded - 1), LossConfig(kl=1.0), 1.0)
    # exp(-1) + 1 - 1 at each token
    assert float(away['kl']) == pytest.approx(np.exp(-1), rel=1e-4)
    assert float(away['total'].detach()) == pytest.approx(float(away['kl']), rel=1e-4)


def test_perceiving_helps_where_it_was_measured_to() -> None:
    assert Measured(1.0, 0.5).flag(0.25) == 'positive'
    assert Measured(0.75, 0.75).flag(0.25) == 'negative'
    assert Measured(0.25, 0.75).flag(0.25) == 'negative'
    assert Measured(0.0, 0.0).flag(0.25) == 'boundary'
    assert Measured(0.6, 0.5).flag(0.25) == 'boundary'


def test_flags_are_measured_once_and_kept(tmp_path: Path) -> None:
    data, model = Asked(('a', 'b')), torch.nn.Linear(2, 2)
    config = FlagConfig(tmp_path / 'kept', samples=2)
    calls = []

    def answer(examples, how: RolloutConfig) -> list[list[str]]:
        calls.append((how.mode, how.group, [example.id for example in examples]))
        return [['yes', 'yes'] if how.mode == 'perception' or e.id == 'q1' else ['', 'yes'] for e in examples]

    def score(text: str, example: QuestionExample) -> float:
        return float(text == 'yes')

    def measure(store: FlagStore, questions: list, share: tuple[int, int] = (0, 1)) -> list[str]:
        store.measure([e.id for e in questions], lambda n: questions[n], answer, score, share)
        return [e.id for e in questions]

    store = FlagStore(config, model)
    assert store.flags(measure(store, data.examples)) == {'q0': 'positive', 'q1': 'negative'}
    assert calls == [('perception', 2, ['q0', 'q1']), ('direct', 2, ['q0', 'q1'])]
    (kept,) = config.folder.iterdir()
    with open(kept, 'a') as file:
        file.write('{"id": "q2", "loo')  # a process was killed here
    more = [*data.examples, replace(data.examples[0], id='q2'), replace(data.examples[0], id='q3')]
    again = FlagStore(config, model)
    for process in (0, 1):
        ids = measure(again, more, (process, 2))
    assert calls[2::2] == [('perception', 2, ['q2']), ('perception', 2, ['q3'])]
    assert list(again.flags(ids).values()) == ['positive', 'negative', 'positive', 'positive']
    with pytest.raises(KeyError, match='q0'):
        FlagStore(replace(config, samples=3), model).flags(ids)
    with pytest.raises(KeyError, match='q0'):
        FlagStore(config, torch.nn.Linear(2, 2)).flags(ids)


def test_a_question_without_usable_truth_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    data = Asked(('a', '', 'b'))
    data.examples.append(replace(data.examples[0], id='odd', truth=Truth('left', choices=('up', 'down'))))
    data.examples.append(replace(data.examples[0], id='nan', truth=Truth('nan', float('nan'), 'm')))
    data.examples.append(replace(data.examples[0], id='dumb', text='  '))
    pool = QuestionPool(data)
    assert pool.numbers == [0, 2]
    named = '\n'.join(data.report.left_out['no usable truth'])
    assert all(f"'{name}'" in named for name in ('q1', 'odd', 'nan', 'dumb')) and len(named.splitlines()) == 4
    assert "question 'odd' has the answer 'left', choices ['up', 'down']" in caplog.text
    drawn = pool.draw(5, np.random.default_rng(0))
    assert {example.id for example in drawn} == {'q0', 'q2'}
    with pytest.raises(ValueError, match='none of 1 questions can be used'):
        QuestionPool(Asked(('',)))


def test_lengths_can_earn_the_more_the_nearer_they_are() -> None:
    truth = Truth('2.00', 2.0, 'm')
    assert graded_accuracy('2 m', truth) == 1
    assert graded_accuracy('1.6 m', truth) == pytest.approx(0.6)  # 20 % off: right at 0.5 to 0.75
    assert graded_accuracy('near', truth) == 0
    assert graded_accuracy('3', Truth('3', 3.0)) == 1 and graded_accuracy('4', Truth('3', 3.0)) == 0


def test_a_group_can_be_read(checkpoint: Path, tmp_path: Path) -> None:
    _, (group, _) = judged(checkpoint, tmp_path, lambda answer, example: 0.5)
    text = transcript(group)
    assert text.startswith('q0 (x, boundary): Which?\ntruth: a\n')
    assert text.count('accuracy 0.5, format 0, exploration 0, advantage +0.00') == 4


@pytest.fixture(scope='module')
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('scenes')
    write_dataset(folder, 4, 0, workers=1)
    return folder


def program(tmp_path: Path, scenes: Path, out: str, steps: int) -> Settings:
    """Return the settings of a small run of the whole program, as a file gives them."""
    folder = tmp_path / 'small'
    if not folder.exists():
        config = CooperConfig.load(ROOT / 'training/configs/nano')
        config = replace(config, decoder=replace(config.decoder, num_layers=1), max_new_tokens=4)
        write_random_checkpoint(folder, config=replace(config, vision=replace(config.vision, num_layers=1)))
    picked = {'set': 'simulation', 'path': str(scenes)}
    values = {
        **{key: str(folder) for key in ('architecture', 'autoencoder', 'start')},
        'out': str(tmp_path / out),
        'questions': picked,
        'rollouts': {'group': 2},
        'flags': {'folder': str(tmp_path / 'flags'), 'samples': 1},
        'loss': {'kl': 0.1},
        'stage': {'questions': 2, 'passes': 2, 'numbers': 'graded'},
        'rehearsal': {'weight': 0.5, 'data': [picked], 'stage': {'batch': 2, 'shift': 3.0}},
        'loop': {'steps': steps, 'learning_rate': 1e-3, 'save_every': 2, 'log_every': 1, 'bf16': False, 'warmup': 0},
    }
    path = tmp_path / 'grpo.yaml'
    path.write_text(yaml.safe_dump(values))
    return read_settings(path, Settings)


def test_the_program_goes_on_where_it_was_stopped(tmp_path: Path, scenes: Path) -> None:
    train(program(tmp_path, scenes, 'whole', 4))
    train(program(tmp_path, scenes, 'halves', 2))
    train(program(tmp_path, scenes, 'halves', 4))
    whole, halves = (load_file(tmp_path / name / 'state.safetensors') for name in ('whole', 'halves'))
    assert whole.keys() == halves.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, halves[name]), name
    lines = [json.loads(line) for line in (tmp_path / 'whole/log.jsonl').read_text().splitlines()]
    logged = {name for line in lines if line['group'] == 'train' for name in line}
    assert {'reward', 'accuracy', 'format', 'exploration', 'perceives', 'length', 'clipped', 'kl', 'equal_groups',
            'rehearsal/depth', 'tokens_per_second'} <= logged  # fmt: skip
    assert any(name.startswith('perceives/') for name in logged)
    (kept,) = (tmp_path / 'flags').iterdir()
    assert kept.read_text().count('looking') == 4  # measured by the first run alone


def test_bad_settings_are_refused(tmp_path: Path, scenes: Path) -> None:
    good = program(tmp_path, scenes, 'out', 4)
    path = tmp_path / 'grpo.yaml'
    values = yaml.safe_load(path.read_text())
    for change, message in (
        ({'rollouts': {'group': 8, 'temprature': 1.0}}, 'temprature is unknown, known keys in rollouts are group'),
        ({'rollouts': {'group': 1}}, 'advantages compare rollouts'),
        ({'stage': {'questions': 3, 'minibatches': 2}}, 'cannot be cut'),
        ({'stage': {'questions': 2, 'passes': 3}}, 'is no multiple of the 3 steps'),
        ({'questions': {'set': 'simulation'}}, 'path'),
    ):
        path.write_text(yaml.safe_dump(values | change))
        with pytest.raises(ValueError, match=message):
            read_settings(path, Settings)
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if key != 'start'}))
    with pytest.raises(ValueError, match='start is missing'):
        read_settings(path, Settings)
    with pytest.raises(FileNotFoundError, match='give the folder of a COOPER checkpoint'):
        train(replace(good, start=tmp_path / 'nowhere'))

