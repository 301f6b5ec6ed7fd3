"""What ``import cooper_model`` offers, and that it costs nothing before it is used."""

import subprocess
import sys
from pathlib import Path

import pytest

import cooper_model
from cooper_model import loading, reasoner

ROOT = Path(__file__).parents[2]


def test_the_names_are_those_of_the_modules():
    assert set(cooper_model.__all__) == {'Reasoner', 'load', 'load_backend'}
    assert cooper_model.load is loading.load
    assert cooper_model.load_backend is loading.load_backend
    assert cooper_model.Reasoner is reasoner.Reasoner


def test_all_of_them_can_be_imported_by_star():
    names: dict[str, object] = {}
    exec('from cooper_model import *', names)
    assert set(cooper_model.__all__) <= set(names)


def test_an_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'perceive'; it has Reasoner, load"):
        _ = cooper_model.perceive
    assert not hasattr(cooper_model, 'perceive')


def test_import_loads_neither_torch_nor_a_module_of_ours():
    program = 'import sys, cooper_model; print(*sys.modules)'
    command = [sys.executable, '-c', program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    loaded = {name for name in done.stdout.split() if name.startswith(('torch', 'cooper_'))}
    assert loaded == {'cooper_model'}
