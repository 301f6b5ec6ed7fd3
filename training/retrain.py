"""From a robot's folder to a checkpoint that is better for this robot, or to a word why there is none.

Measure, train, measure again, compare, install. Each part leaves its result in ``work`` below the folder of the
outcome, so that the same call goes on where an earlier one was stopped. Checkpoints are numbered and never
overwritten; the link ``current`` leads to the one that is installed.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from cooper_model.backends.graphs import fingerprint_checkpoint
from cooper_model.config import CooperConfig
from cooper_sim.distribution import Distribution
from cooper_sim.robot_format import FRAMES, QUESTIONS
from cooper_sim.types import KINDS
from training.datasets.base import ModelInput
from training.export import export_run
from training.lora import LoraSettings
from training.retrain_data import RobotFolder, Split, split
from training.retrain_scenes import write_scenes
from training.retrain_scores import FrameScore, Gain, Task, Verdict, as_record, compare, judge, measure, spread
from training.retrain_stage import FrameList, Recipe, Settings
from training.settings import read_settings
from training.start import model_input

CARD, CURRENT = 'card.json', 'current'
CONFIGS = Path(__file__).parent / 'configs'
SMALL_BYTES = 200_000_000  # of weights; such a model trains on a CPU
REHEARSED, MEASURED = 'train', 'eval'
# Far from the seeds that checkpoints were trained on; those of different distributions never meet.
FIRST_SEED = 3_000_000_000
REHEARSAL_QUESTIONS, OLD_QUESTIONS = 8, 4
CAMERA = (480, 640)


@dataclass(frozen=True)
class Wishes:
    """What to retrain, and how.

    :param folder: of the robot, as ``cooper bag2data`` writes it
    :param out: folder for checkpoints
    :param steps: optimiser steps; None for those of the recipe
    :param lora: train low-rank adapters only
    :param rehearsal: simulated scenes that are trained on beside the robot's frames
    :param measured: most frames of each kind that checkpoints are compared on
    :param processes: of training and of measuring; None for one a core where the model is small and there is no GPU
    :param tell: takes lines for people while it goes on
    """

    folder: Path
    checkpoint: Path
    out: Path
    steps: int | None = None
    lora: bool = False
    rehearsal: int = 400
    measured: int = 60
    processes: int | None = None
    tell: Callable[[str], None] = lambda text: None


@dataclass(frozen=True)
class Outcome:
    """What came of it.

    :param checkpoint: its folder, also where it was not installed
    :param card: what stands in its ``card.json``
    """

    checkpoint: Path
    card: dict[str, Any]

    @property
    def installed(self) -> bool:
        """Whether ``current`` leads to it."""
        return bool(self.card['installed'])


def retrain(wishes: Wishes) -> Outcome:
    """Retrain and compare; install what is better.

    :raises FileNotFoundError, ValueError: folder or checkpoint cannot be used, or ``out`` holds an unfinished
        retraining of something else
    :raises RuntimeError: no room on the disk, another retraining runs in ``out``, or training failed
    """
    return _Retraining(wishes).run()


class _Retraining:
    """One retraining; every part does nothing where its result is there."""

    def __init__(self, wishes: Wishes) -> None:
        self.wishes = wishes
        # A link such as an earlier `current` may lead elsewhere later.
        self.checkpoint = wishes.checkpoint.resolve()
        self.words: ModelInput = model_input(self.checkpoint, CooperConfig.load(self.checkpoint))
        self.bytes = sum(path.stat().st_size for path in self.checkpoint.glob('*.safetensors'))
        if not self.bytes:
            raise FileNotFoundError(f'{self.checkpoint} holds no weights (*.safetensors); name a checkpoint folder')
        self.is_small = self.bytes < SMALL_BYTES
        if not (self.is_small or wishes.lora):
            raise ValueError(f'{self.checkpoint} has {self.bytes / 1e9:.0f} GB of weights; retrain it with --lora')
        self.robot = RobotFolder(wishes.folder, self.words)
        self.split: Split = split(self.robot.frames)
        self.work = wishes.out / 'work'

    def run(self) -> Outcome:
        """Run every part."""
        self._check_room()
        with _locked(self.wishes.out) as lock:
            name = self._begin()
            tell, split = self.wishes.tell, self.split
            tell(f'{len(split.trained)} frames to train on, {len(split.held_out)} held out, {len(split.apart)} between')
            rehearsal, old = self._scenes()
            sets = {'robot': (self.wishes.folder, self.split.held_out), 'old': (self.work / 'old', old)}
            before = self._measured('before', self.checkpoint, sets)
            fresh = self.wishes.out / name
            if not fresh.exists():
                self._train(rehearsal, lock)
                fresh = self._export()
            after = self._measured('after', fresh, sets)
            gains = {kind: compare(before[kind], after[kind]) for kind in sets}
            verdict = judge(gains['robot'], gains['old'])
            if verdict.better:
                verdict = self._judge_installed(after, sets, name)
            return self._install(fresh, name, self._card(name, gains, verdict))

    @cached_property
    def processes(self) -> int:
        """Processes of training and of measuring."""
        if self.wishes.processes is not None:
            return self.wishes.processes
        import torch

        return len(os.sched_getaffinity(0)) if self.is_small and not torch.cuda.is_available() else 1

    def _check_room(self) -> None:
        """Look for room before hours of work are lost: states of 16 bytes a weight, twice while one is replaced."""
        out = self.wishes.out
        out.mkdir(parents=True, exist_ok=True)
        needed = self.bytes * (2 if self.wishes.lora else 18)
        free = shutil.disk_usage(out).free
        if free < needed:
            raise RuntimeError(
                f'{out} has {free / 1e6:,.0f} MB free, retraining needs {needed / 1e6:,.0f} MB; free space or give '
                '--out on another disk'
            )

    def _begin(self) -> str:
        """Note what is to be done, or check that it is what an earlier call began; return the new one's name."""
        lists = (self.wishes.folder / name for name in (FRAMES, QUESTIONS))
        content = b''.join(path.read_bytes() for path in lists if path.is_file())
        plan = {
            'folder': str(self.wishes.folder.resolve()),
            'content': hashlib.sha256(content).hexdigest(),
            'checkpoint': fingerprint_checkpoint(self.checkpoint),
            **{key: getattr(self.wishes, key) for key in ('steps', 'lora', 'rehearsal', 'measured')},
        }
        path = self.work / 'plan.json'
        if path.is_file():
            found = json.loads(path.read_text(encoding='utf-8'))
            name = found.pop('name')
            if found != plan:
                other = ', '.join(key for key in plan if found.get(key) != plan[key])
                raise ValueError(f'{self.work} holds an unfinished retraining with another {other}; '
                                 'finish that one, delete the folder, or give another --out')  # fmt: skip
            self.wishes.tell(f'going on with {self.work}')
            return name
        taken = [int(path.name[-4:]) for path in self.wishes.out.glob('checkpoint_[0-9][0-9][0-9][0-9]')]
        name = f'checkpoint_{max(taken, default=0) + 1:04d}'
        self.work.mkdir(exist_ok=True)
        _write_json(path, {**plan, 'name': name})
        return name

    def _scenes(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Render what is rehearsed and what is measured of old; return the ids of both."""
        size = self.words.latent_size(*CAMERA)
        masks = set(KINDS) <= set(self.words.config.colour_code.names)
        self.wishes.tell(f'rendering {self.wishes.rehearsal} scenes to rehearse, {self.wishes.measured} to measure')
        found = []
        for folder, distribution, count, questions in (
            ('rehearsal', REHEARSED, self.wishes.rehearsal, REHEARSAL_QUESTIONS),
            ('old', MEASURED, self.wishes.measured, OLD_QUESTIONS),
        ):
            seeds = range(FIRST_SEED, FIRST_SEED + count)
            found.append(write_scenes(self.work / folder, distribution, seeds, size, questions, masks))
        return found[0], found[1]

    def _measured(
        self, name: str, checkpoint: Path, sets: dict[str, tuple[Path, Sequence[str]]]
    ) -> dict[str, list[FrameScore]]:
        """Measure a checkpoint on both sets of frames, or read what was measured."""
        path = self.work / f'{name}.json'
        if not path.is_file():
            frames = {kind: list(spread(ids, self.wishes.measured)) for kind, (_, ids) in sets.items()}
            tasks = [Task(str(checkpoint), str(sets[kind][0]), each) for kind, ids in frames.items() for each in ids]
            self.wishes.tell(f'measuring {checkpoint} on {" + ".join(str(len(ids)) for ids in frames.values())} frames')
            scores = iter(measure(tasks, min(self.processes, len(tasks))))
            _write_json(path, {kind: [asdict(next(scores)) for _ in ids] for kind, ids in frames.items()})
        found = json.loads(path.read_text(encoding='utf-8'))
        return {kind: [FrameScore(**row) for row in rows] for kind, rows in found.items()}

    def _judge_installed(
        self, after: dict[str, list[FrameScore]], sets: dict[str, tuple[Path, Sequence[str]]], name: str
    ) -> Verdict:
        """Compare with the checkpoint that is installed, where that is neither the start nor the new one."""
        installed = (self.wishes.out / CURRENT).resolve()
        if not installed.exists() or installed in (self.checkpoint, (self.wishes.out / name).resolve()):
            return Verdict(True)
        held = self._measured(f'installed_{installed.name}', installed, sets)
        verdict = judge(*(compare(held[kind], after[kind]) for kind in ('robot', 'old')))
        return verdict if verdict.better else replace(verdict, reason=f'against {installed.name}: {verdict.reason}')

    def _recipe(self) -> Recipe:
        recipe = read_settings(CONFIGS / ('nano' if self.is_small else '7b') / 'retrain.yaml', Recipe)
        loop, steps = recipe.loop, self.wishes.steps
        if steps is not None:
            warmup, decay = min(loop.warmup, steps // 10), min(loop.decay, steps * 3 // 4)
            loop = replace(loop, steps=steps, warmup=warmup, decay=decay)
        if self.wishes.lora:
            loop = replace(loop, lora=LoraSettings(), muon=False)
        return replace(recipe, loop=loop)

    def _train(self, rehearsal: Sequence[str], lock: int) -> None:
        """Train in processes of their own; they go on where an earlier run was stopped.

        :param lock: descriptor of the folder's lock, which they keep should this process be killed
        """
        recipe = self._recipe()
        rehearsed = FrameList((self.work / 'rehearsal').resolve(), tuple(rehearsal)) if rehearsal else None
        robot = FrameList(self.wishes.folder.resolve(), self.split.trained)
        out = (self.work / 'run').resolve()
        settings = Settings(self.checkpoint, out, robot, rehearsed, recipe.stage, recipe.loop)
        config = self.work / 'config.yaml'
        config.write_text(yaml.safe_dump(_plain(asdict(settings)), sort_keys=False), encoding='utf-8')
        self.wishes.tell(f'training {recipe.loop.steps} steps in {self.processes} processes')
        count = self.processes
        launch = ['torch.distributed.run', '--standalone', '--nproc-per-node', str(count), '-m'] if count > 1 else []
        command = [sys.executable, '-m', *launch, 'training.retrain_stage', '--config', str(config)]
        environment = {**os.environ, 'PYTHONPATH': os.pathsep.join((str(CONFIGS.parents[1]), *sys.path[1:]))}
        if count > 1:
            environment.setdefault('OMP_NUM_THREADS', '1')
        # Its progress must not mix with what this program prints.
        done = subprocess.run(command, stdout=sys.stderr, env=environment, pass_fds=(lock,), check=False)
        if done.returncode:
            raise RuntimeError(
                f'training ended with status {done.returncode}, for the reason above; once that is mended the same '
                f'command goes on at the last state in {out}'
            )

    def _export(self) -> Path:
        fresh = self.work / 'checkpoint'
        dtype = 'float16' if self.is_small else 'bfloat16'
        export_run(self.work / 'run', self.checkpoint, self.checkpoint, fresh, dtype)
        return fresh

    def _card(self, name: str, gains: dict[str, dict[str, Gain]], verdict: Verdict) -> dict[str, Any]:
        asked = [question for questions in self.robot.questions.values() for question in questions]
        plan = json.loads((self.work / 'plan.json').read_text(encoding='utf-8'))
        loop = self._recipe().loop
        return {
            'name': name,
            'from': {'checkpoint': str(self.checkpoint), 'fingerprint': plan['checkpoint']},
            'data': {
                'folder': plan['folder'],
                'content': plan['content'],
                'frames': {key: len(ids) for key, ids in asdict(self.split).items()},
                'left_out': {reason: len(places) for reason, places in self.robot.pictures.report.left_out.items()},
                'questions': len(asked),
                'corrections': sum(question.source == 'correction' for question in asked),
            },
            'training': {
                'steps': loop.steps,
                'learning_rate': loop.learning_rate,
                'lora': self.wishes.lora,
                'rehearsed_scenes': self.wishes.rehearsal,
                'scenes_version': Distribution.load(MEASURED).version,
            },
            'robot': as_record(gains['robot']),
            'old': as_record(gains['old']),
            'installed': verdict.better,
            'reason': verdict.reason,
        }

    def _install(self, fresh: Path, name: str, card: dict[str, Any]) -> Outcome:
        """Give the checkpoint its card and its name, and lead ``current`` there where it is better."""
        final, out = self.wishes.out / name, self.wishes.out
        _write_json(fresh / CARD, card)
        if fresh != final:
            os.replace(fresh, final)
        if card['installed']:
            beside = out / f'.{CURRENT}'
            beside.unlink(missing_ok=True)
            beside.symlink_to(name)
            os.replace(beside, out / CURRENT)
        shutil.rmtree(self.work)
        return Outcome(final, card)


@contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Keep a folder for this process and its children alone; yields the descriptor that does.

    :raises RuntimeError: another one has it
    """
    with open(folder / '.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RuntimeError(f'another retraining runs in {folder}; wait for it or give another --out') from error
        yield file.fileno()


def _write_json(path: Path, content: Any) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f'{path.name}.part')
    beside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + '\n', encoding='utf-8')
    os.replace(beside, path)


def _plain(value: Any) -> Any:
    """Return settings as YAML has them."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value
