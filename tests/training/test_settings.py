"""Settings: what a file may say, and how it is told what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from training import settings
from training.settings import read_settings


@dataclass(frozen=True)
class Inner:
    steps: int
    learning_rate: float = 1e-3

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f'steps is {self.steps}, expected 1 or more')


@dataclass(frozen=True)
class Outer:
    out: Path
    loop: Inner
    weights: tuple[Mapping[str, float], ...] = ()
    parts: tuple[Inner, ...] = ()
    extra: Inner | None = None


def read(tmp_path: Path, text: str) -> Outer:
    (tmp_path / 'run.yaml').write_text(text)
    return read_settings(tmp_path / 'run.yaml', Outer)


def test_values_are_read_by_type(tmp_path):
    found = read(tmp_path, 'out: runs/a\nloop: {steps: 3, learning_rate: 5e-6}\nweights: [{a: 1}, {b: 0.5}]\n')
    # YAML takes 5e-6 for a text, since it lacks a point.
    assert found == Outer(Path('runs/a'), Inner(3, 5e-6), ({'a': 1.0}, {'b': 0.5}))


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('out: a\nloop: {steps: 1}\nlop: 2', r'run\.yaml: lop is unknown, known keys are out, loop, weights, parts'),
        ('out: a\nloop: {step: 1, steps: 1}', 'loop.step is unknown, known keys in loop are steps, learning_rate'),
        ('out: a\nloop: {learning_rate: 1}', 'loop.steps is missing, known keys in loop are steps, learning_rate'),
        ('loop: {steps: 1}', 'out is missing, known keys are out'),
        ('out: a\nloop: {steps: 1}\nparts: [{steps: 1, x: 2}]', 'parts.0.x is unknown, known keys in parts.0 are'),
        ('out: a\nloop: {steps: 1}\nextra: {steps: 1, x: 2}', 'extra.x is unknown, known keys in extra are steps'),
        ('out: a\nloop: {steps: many}', "loop.steps is 'many': .*integer"),
        ('out: a\nloop: {steps: 0}', 'loop: steps is 0, expected 1 or more'),
        ('out: a\nloop: 7', 'loop is 7: '),
        ('- a', 'holds list, expected a mapping'),
        ('out: [', 'is not valid YAML'),
    ],
)
def test_faults_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read(tmp_path, text)


def test_all_faults_are_named_at_once(tmp_path):
    with pytest.raises(ValueError, match='loop.steps is missing.*; lop is unknown'):
        read(tmp_path, 'out: a\nloop: {}\nlop: 1')


@pytest.mark.parametrize('fault', [FileNotFoundError('a.yaml is missing'), FloatingPointError('no finite loss')])
def test_a_program_ends_with_one_line(fault, monkeypatch):
    @settings.program
    def main():
        raise fault

    with pytest.raises(SystemExit, match=f'{fault}'):
        main()
    monkeypatch.setenv(settings.DEBUG, '1')
    with pytest.raises(type(fault)):
        main()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match='none.yaml is missing'):
        read_settings(tmp_path / 'none.yaml', Outer)
