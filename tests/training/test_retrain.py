"""Retraining on a robot's folder: what is held out, what is trained, what is compared, and what is refused."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cooper_model.grammar import parse_turn
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.packing import IGNORE
from cooper_model.reasoner import Reasoner
from cooper_model.types import CameraIntrinsics, Frame
from cooper_sim.robot_format import RobotFrame, RobotQuestion, RobotWriter
from cooper_sim.types import VisibleObject
from tests.model.scripted import ScriptedBackend
from tests.random_checkpoint import write_random_checkpoint
from training import retrain as program
from training.latents import Encoder
from training.lora import DECODER
from training.retrain import CURRENT, Wishes, retrain
from training.retrain_data import FrameSamples, RobotFolder, bag_of, split
from training.retrain_scores import FrameScore, Gain, Verdict, compare, judge, spread
from training.retrain_stage import FrameScene, RetrainConfig, RetrainStage, exchange_of
from training.stage1 import Batch

CAMERA = CameraIntrinsics(48.0, 48.0, 31.5, 23.5, 64, 48)
BALL = VisibleObject(
    1, 'ball', 'red', 'red ball', (8, 8, 24, 24), 256, 1.0, 1.0, (-0.3, -0.2, 1.0), (0.2, 0.2, 0.2), 1.0
)
BOX = replace(BALL, id=2, kind='box', name='red box', box=(40, 16, 56, 40), area=384, center=(0.4, 0.1, 2.0), depth=2.0)
UP = (0.0, -1.0, 0.0)
RULE = ('Which is closer, the red ball or the red box?', 'red ball', 'choice', ('red ball', 'red box'))
SETTINGS = RetrainConfig(batch=2, shift=1.0, describe_weight=1.0, modes={'auto': 1.0})


def picture(number):
    """Return a frame of a ball before a box, with depth, and its mask."""
    image = np.random.default_rng(number).integers(0, 256, (48, 64, 3), np.uint8)
    depth, ids = np.full((48, 64), 3.0, np.float32), np.zeros((48, 64), np.int64)
    for thing in (BALL, BOX):
        left, top, right, bottom = thing.box
        ids[top:bottom, left:right], depth[top:bottom, left:right] = thing.id, thing.depth
    return Frame(image, CAMERA, depth, number, 'camera'), ids


def rule(name):
    return RobotQuestion(name, *RULE, category='relative_distance', object_ids=(1, 2))


def write_robot(folder, count=12, bag='walk'):
    """Write frames of one bag; the first is corrected too."""
    writer = RobotWriter(folder)
    for number in range(1, count + 1):
        name = f'{bag}_{number}'
        frame, ids = picture(number)
        writer.add_frame(name, frame, ids, (BALL, BOX), UP)
        writer.add_question(rule(name))
    right = RobotQuestion(f'{bag}_1', 'Is the door open?', 'yes', 'yes_no', ('yes', 'no'), source='correction')
    writer.add_question(right)
    return folder


@pytest.fixture
def samples(tmp_path, words):
    torch.manual_seed(0)
    folder = RobotFolder(write_robot(tmp_path / 'robot', 3), words)
    encoder = Encoder(build_autoencoder(words.config.autoencoder).eval(), words.config)
    return FrameSamples(folder, [frame.id for frame in folder.frames], encoder)


# What is held out


def frames_of(bag, stamps):
    return [RobotFrame(f'{bag}_{stamp}', 'image.png', stamp_ns=stamp) for stamp in stamps]


def test_what_is_held_out_is_apart_in_time():
    found = split(frames_of('walk', range(100, 150))[::-1])
    held = [int(name[-3:]) for name in found.held_out]
    assert held == [115, 116, 117, 118, 119, 140, 141, 142, 143, 144]
    assert {int(name[-3:]) for name in found.apart} == {114, 120, 139, 145}
    assert len(found.trained) == 36 and not set(found.trained) & {*found.held_out, *found.apart}


def test_a_corrected_frame_is_on_the_side_of_its_moment():
    frames = frames_of('walk', range(20)) + [RobotFrame('walk_7_q1', 'i.png', stamp_ns=7)]
    # The id of a corrected frame ends with the question's, so its bag is found all the same.
    assert bag_of(frames[-1]) == 'walk'
    found = split(frames)
    assert {'walk_7', 'walk_7_q1'} <= set(found.held_out)


def test_of_short_bags_every_fifth_is_held_out_whole():
    frames = [frame for bag in 'abcdefghij' for frame in frames_of(bag, range(3))]
    found = split(frames)
    assert {name[0] for name in found.held_out} == {'e', 'j'} and not found.apart


def test_too_few_frames_are_refused():
    with pytest.raises(ValueError, match='7 frames of 1 bags leave 7 to train on and 0 to hold out.*record for longer'):
        split(frames_of('walk', range(7)))


# What is trained


def test_a_frame_brings_maps_texts_and_questions(samples):
    sample = samples.draw(np.random.default_rng(1))
    assert set(sample.targets) == set(sample.maps) == {'depth', 'segmentation'}
    assert sample.maps['depth'].shape == (48, 64, 3) and sample.maps['depth'].dtype == np.uint8
    assert sample.example.record is not None and sample.questions[0].answer == 'red ball'
    again = samples.draw(np.random.default_rng(1))
    assert again is sample  # kept ready


def test_a_conversation_is_what_the_reasoner_meets(samples, words):
    stage = RetrainStage(Cooper(words.config), words)
    sample = next(s for s in map(samples._kept, samples.names) if s.questions)
    question = sample.questions[0]
    exchange = exchange_of(question, sample.example.record, question.question)
    assert exchange.look == 'depth' and 'red ball' in exchange.turn.thought
    for mode in ('auto', 'direct', 'text', 'perception'):
        made = Batch()
        stage.append(made, sample, replace(SETTINGS, questions=0), np.random.default_rng(0))
        before = len(made.sequences[0])
        stage.talk.converse(FrameScene(made, sample, stage), mode, exchange)
        segments = made.sequences[0]
        told = [i for i in range(before, len(segments)) if segments[i].labels]
        branch = [segments[i] for i in segments[told[-1]].sees] + [segments[told[-1]]]
        said = [words.tokenizer.decode(s.ids) if s.kind == 'text' else s.kind for s in branch]
        forced = words.prompts.forced_answer if mode == 'perception' else ''
        script = [words.tokenizer.decode(segments[i].ids).removeprefix(forced) for i in told]
        backend = ScriptedBackend(replace(words.config, max_new_tokens=200), words.tokenizer, script)
        reasoner = Reasoner(backend, words.tokenizer, words.prompts)
        *_, last = reasoner.ask(Frame(sample.example.image), question.question, mode=mode)
        assert last.answer.text == 'red ball'
        final = max(backend.contexts, key=len)
        assert [what if kind in ('text', 'said') else kind for kind, what in final] == said
        assert parse_turn(words.tokenizer.decode(branch[-1].ids)).action == 'answer'
        assert any(label != IGNORE for label in branch[-1].labels)


def test_of_a_correction_only_the_answer_is_learned(samples):
    sample = samples._kept('walk_1')
    correction = next(each for each in sample.questions if each.source == 'correction')
    exchange = exchange_of(correction, sample.example.record, correction.question)
    assert (exchange.turn.thought, exchange.look, exchange.turn.body) == ('', None, r'\boxed{yes}')


def test_the_loss_has_maps_and_texts(samples, words):
    torch.manual_seed(0)
    model = Cooper(words.config)
    rng = np.random.default_rng(0)
    settings = replace(SETTINGS, drawn_in_thought=1.0)
    parts = RetrainStage(model, words).loss([samples.draw(rng), samples.draw(rng)], settings, rng)
    assert {'depth', 'segmentation', 'text'} <= set(parts)
    parts['total'].backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_frame_of_which_only_an_answer_is_known(tmp_path, words):
    writer = RobotWriter(tmp_path)
    frame, _ = picture(1)
    writer.add_frame('walk_1', frame)
    writer.add_frame('walk_2', replace(frame, depth=None, intrinsics=None))
    writer.add_question(RobotQuestion('walk_2', 'Is the door open?', 'yes', source='correction'))
    folder = RobotFolder(tmp_path, words)
    encoder = Encoder(build_autoencoder(words.config.autoencoder).eval(), words.config)
    sample = FrameSamples(folder, ['walk_2'], encoder).draw(np.random.default_rng(0))
    assert not sample.targets and not sample.maps
    rng = np.random.default_rng(0)
    parts = RetrainStage(Cooper(words.config), words).loss([sample, sample], replace(SETTINGS, batch=2), rng)
    assert float(parts['text'].detach()) > 0 and 'depth' not in parts


def test_a_folder_without_anything_to_learn_is_refused(tmp_path, words):
    with pytest.raises(FileNotFoundError, match='bag2data'):
        RobotFolder(tmp_path, words)
    writer = RobotWriter(tmp_path)
    frame, _ = picture(1)
    writer.add_frame('walk_1', replace(frame, depth=None))
    with pytest.raises(ValueError, match='no frame has depth and none has a mask.*record a depth topic'):
        RobotFolder(tmp_path, words)


# What is compared


def test_gains_are_over_the_same_frames():
    before = [FrameScore('a', (0.5,), (0.2, 0.4), (0.0, 1.0)), FrameScore('b', (0.7,), (), (1.0,))]
    after = [FrameScore('a', (0.6,), (0.3, 0.5), (1.0, 1.0)), FrameScore('b', (0.9,), (), (1.0,))]
    gains = compare(before, after)
    assert gains['depth'].difference == pytest.approx(0.15) and gains['masks'].n == 2
    assert gains['answers'].before == pytest.approx(2 / 3) and gains['answers'].after == 1
    assert judge(gains, {}).better
    assert 'masks' not in compare([FrameScore('a', (0.5,))], [FrameScore('a', (0.5,))])


def gain(before, after, spread=0.05):
    return Gain(before, after, after - before - spread, after - before + spread, 40)


@pytest.mark.parametrize(
    ('robot', 'old', 'better', 'reason'),
    [
        ({'depth': gain(0.6, 0.8)}, {'depth': gain(0.9, 0.89)}, True, ''),
        ({'depth': gain(0.6, 0.8)}, {'answers': gain(0.9, 0.86)}, False, r'simulated scenes: 0\.900 before.*-0\.040'),
        ({'depth': gain(0.6, 0.8)}, {'answers': gain(0.9, 0.88, 0.01)}, False, 'worse'),
        ({'depth': gain(0.6, 0.8), 'masks': gain(0.5, 0.4)}, {}, False, "robot's held-out frames: 0.500 before"),
        ({'depth': gain(0.6, 0.59)}, {}, False, r'no better .*-0\.010'),
        ({}, {}, False, 'no better'),
    ],
)
def test_nothing_may_be_lost_and_something_must_be_gained(robot, old, better, reason):
    verdict = judge(robot, old)
    assert verdict.better is better
    assert re.search(reason, verdict.reason)


def test_frames_are_spread_evenly():
    names = [str(number) for number in range(100)]
    assert list(spread(names, 4)) == ['0', '33', '66', '99'] and list(spread(names[:3], 4)) == names[:3]


# The whole


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    return write_random_checkpoint(tmp_path_factory.mktemp('checkpoint'))


def wishes_of(tmp_path, checkpoint, **changes):
    wishes = Wishes(tmp_path / 'robot', checkpoint, tmp_path / 'out', steps=2, rehearsal=2, measured=2, processes=1)
    return replace(wishes, **changes)


def test_from_folder_to_checkpoint_and_on_after_a_stop(tmp_path, checkpoint, monkeypatch):
    write_robot(tmp_path / 'robot')
    told = []
    wishes = wishes_of(tmp_path, checkpoint, tell=told.append)
    good = SimpleNamespace(better=True, reason='')
    monkeypatch.setattr(program, 'judge', lambda robot, old: good)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(program, 'export_run', stop)
        with pytest.raises(KeyboardInterrupt):
            retrain(wishes)
    # Begun with other settings it is another retraining.
    with pytest.raises(ValueError, match='unfinished retraining with another steps'):
        retrain(replace(wishes, steps=3))
    with monkeypatch.context() as patch:
        patch.setattr(program, 'write_scenes', lambda folder, name, seeds, *_: [f'{name}_{seed}' for seed in seeds])
        outcome = retrain(wishes)
    assert any('going on with' in line for line in told)
    assert sum('measuring' in line for line in told) == 2  # the first measurement was kept
    assert outcome.installed and outcome.checkpoint.name == 'checkpoint_0001'
    assert (tmp_path / 'out' / CURRENT).resolve() == outcome.checkpoint
    card = json.loads((outcome.checkpoint / 'card.json').read_text())
    assert card == outcome.card and card['data']['frames'] == {'trained': 6, 'held_out': 2, 'apart': 4}
    assert card['data']['corrections'] == 1 and set(card['robot']) == {'depth', 'masks', 'answers'}
    assert not (tmp_path / 'out' / 'work').exists()
    # A worse one is kept, but what was installed stays; retraining goes on from it.
    monkeypatch.setattr(program, 'judge', lambda robot, old: SimpleNamespace(better=False, reason='worse: depth'))
    monkeypatch.setattr(program._Retraining, '_train', lambda self, *_: None)
    monkeypatch.setattr(program, 'export_run', lambda run, start, architecture, out, dtype: shutil.copytree(start, out))
    second = retrain(replace(wishes, checkpoint=tmp_path / 'out' / CURRENT))
    assert not second.installed and second.checkpoint.name == 'checkpoint_0002'
    assert (tmp_path / 'out' / CURRENT).resolve() == outcome.checkpoint
    assert second.card['from']['checkpoint'] == str(outcome.checkpoint)
    # Better than its start is not enough where another is installed.
    verdicts = iter([Verdict(True), Verdict(False, 'worse: masks')])
    monkeypatch.setattr(program, 'judge', lambda robot, old: next(verdicts))
    third = retrain(wishes)
    assert not third.installed and third.card['reason'] == 'against checkpoint_0001: worse: masks'
    assert (tmp_path / 'out' / CURRENT).resolve() == outcome.checkpoint


def test_adapters_alone_are_trained_and_merged(tmp_path, checkpoint, monkeypatch):
    write_robot(tmp_path / 'robot')
    # What is measured is measured elsewhere.
    monkeypatch.setattr(program._Retraining, '_measured', lambda self, *_: {'robot': [], 'old': []})
    monkeypatch.setattr(program._Retraining, '_scenes', lambda self: ((), ()))
    monkeypatch.setattr(program, 'compare', lambda before, after: {})
    monkeypatch.setattr(program, 'judge', lambda robot, old: SimpleNamespace(better=True, reason=''))
    outcome = retrain(wishes_of(tmp_path, checkpoint, lora=True, rehearsal=0))
    assert outcome.card['training']['lora']
    before, after = (load_file(folder / 'ema.safetensors') for folder in (checkpoint, outcome.checkpoint))
    assert set(after) == set(before)
    changed = {name for name, old in before.items() if not torch.equal(after[name], old.to(after[name].dtype))}
    assert changed and all(re.fullmatch(f'{DECODER}.weight', name) for name in changed)


def test_a_full_disk_is_told_before_work_begins(tmp_path, checkpoint, monkeypatch):
    write_robot(tmp_path / 'robot')
    monkeypatch.setattr(program.shutil, 'disk_usage', lambda path: SimpleNamespace(free=1000))
    with pytest.raises(RuntimeError, match='MB free, retraining needs .* MB; free space or give --out'):
        retrain(wishes_of(tmp_path, checkpoint))


def test_two_at_once_in_a_folder_are_refused(tmp_path, checkpoint):
    write_robot(tmp_path / 'robot')
    (tmp_path / 'out').mkdir()
    with program._locked(tmp_path / 'out'), pytest.raises(RuntimeError, match='another retraining runs'):
        retrain(wishes_of(tmp_path, checkpoint))


def test_what_is_no_checkpoint_is_refused(tmp_path, checkpoint):
    write_robot(tmp_path / 'robot')
    broken = tmp_path / 'broken'
    shutil.copytree(checkpoint, broken)
    for path in broken.glob('*.safetensors'):
        path.unlink()
    with pytest.raises(FileNotFoundError, match='no weights'):
        retrain(wishes_of(tmp_path, broken))
    other = write_random_checkpoint(tmp_path / 'other')
    config = json.loads((other / 'llm_config.json').read_text())
    (other / 'llm_config.json').write_text(json.dumps({**config, 'hidden_size': 32}))
    with pytest.raises(ValueError, match='does not fit its configuration'):
        retrain(wishes_of(tmp_path, other))
