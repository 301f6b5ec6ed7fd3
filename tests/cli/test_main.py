"""The command as a whole: starts light, lists what there is, tells errors in one line."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cooper_cli.main import COMMANDS, app
from cooper_cli.output import plain, table

ROOT = Path(__file__).parents[2]


def cooper(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    command = [sys.executable, '-m', 'cooper_cli.main', *arguments]
    environment = {name: value for name, value in os.environ.items() if name != 'COOPER_DEBUG'}
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment)


def test_help_lists_every_command():
    done = cooper('--help')
    assert done.returncode == 0
    assert all(f'  {name} ' in done.stdout for name in COMMANDS)


@pytest.mark.parametrize('place', [place for place, _ in COMMANDS.values()])
def test_every_command_is_there(place):
    module, _, function = place.partition(':')
    assert callable(getattr(importlib.import_module(module), function))


def test_help_of_every_command_needs_no_model():
    program = (
        'import sys\n'
        "sys.modules.update(dict.fromkeys(('torch', 'rclpy', 'mujoco'), None))\n"  # importing them raises now
        'from typer.testing import CliRunner\n'
        'from cooper_cli.main import COMMANDS, app\n'
        'for name in COMMANDS:\n'
        "    done = CliRunner().invoke(app, [name, '--help'])\n"
        "    assert done.exit_code == 0 and '--help' in done.stdout, (name, done.output)\n"
    )
    done = subprocess.run([sys.executable, '-c', program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_an_unknown_command_is_named_with_the_nearest():
    done = cooper('percieve')
    assert done.returncode == 2 and not done.stdout
    assert "'percieve'" in done.stderr and "'perceive'" in done.stderr


@pytest.mark.parametrize(
    'arguments, told',
    [
        (('ask', ' ', '--image', 'x.png'), 'question is empty'),
        (('ask', 'Which is closer?', '--checkpoint', 'x'), 'belong to --image'),
        (('ask', 'Which is closer?', '--device', 'cpu', '--seed', '3'), '--seed, --device belong to --image'),
        (('ask', 'Which is closer?', '--image', 'missing.png'), 'missing.png'),
        (('ask', 'Which is closer?', '--image', 'words.txt', '--mode', 'fast'), "'fast' is no mode"),
        (('perceive', '--image', 'missing.png', '--out', 'nowhere'), 'missing.png'),
        (('perceive', '--image', 'words.txt', '--out', 'nowhere'), 'words.txt is no image'),
        (('perceive', '--image', 'words.txt', '--out', 'nowhere', '--fov', '190'), '--fov'),
        (('eval', '--scenes', '0'), '--scenes'),
        (('eval', '--modes', 'auto,auto'), 'twice'),
        (('bench', '--random', 'huge'), "'huge'"),
        (('bench', '--random', 'mid', '--checkpoint', 'x'), 'exclude each other'),
        (('bench', '--save', 'x'), '--save needs --random'),
        (('bench', '--checkpoint', 'nowhere'), 'nowhere'),
    ],
)
def test_bad_input_is_one_line_and_status_2(arguments, told, tmp_path, monkeypatch):
    monkeypatch.delenv('COOPER_DEBUG', raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'words.txt').write_text('no image')
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 2
    assert told in done.stderr
    assert 'Traceback' not in done.stderr
    assert not done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ['words.txt']


def test_debug_shows_the_traceback():
    arguments = ('perceive', '--image', 'missing.png', '--out', 'nowhere')
    done = cooper('--debug', *arguments)
    assert done.returncode == 2 and 'Traceback' in done.stderr


def test_plain_is_strict_json():
    value = {'a': float('nan'), 'b': np.float32(0.5), 'c': (np.int64(2), np.bool_(True)), 'd': np.arange(3), 'e': 1 / 3}
    text = json.dumps(plain(value), allow_nan=False)
    assert json.loads(text) == {'a': None, 'b': 0.5, 'c': [2, True], 'd': [0, 1, 2], 'e': 0.333333}


def test_table_aligns():
    assert table(('name', 'n'), [('a', 1), ('long name', 22)]).splitlines() == [
        'name        n',
        '-------------',
        'a           1',
        'long name  22',
    ]
