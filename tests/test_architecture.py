"""The layering of the house: every import that crosses a border must be on the list below."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OURS = {'bench', 'cooper_cli', 'cooper_model', 'cooper_msgs', 'cooper_ros', 'cooper_sim', 'tests', 'training'}
# What each folder may import of ours, as prefixes of dotted names.
ARROWS = {
    'cooper_model': (),
    'cooper_sim': ('cooper_model.types', 'cooper_model.geometry'),
    'cooper_ros': ('cooper_model', 'cooper_msgs'),
    'training': ('cooper_model', 'cooper_sim'),
    'cooper_cli': ('cooper_model', 'cooper_ros', 'cooper_sim', 'training'),
    'bench': ('cooper_cli', 'cooper_model', 'cooper_ros', 'cooper_sim', 'training'),
}
# The simulated camera is the only part of cooper_ros that knows the simulation.
CAMERA = ('cooper_ros/camera.py', 'cooper_ros/simulation.py')
# Inside the model: the layers that a lower one must not know.
ABOVE = {
    'network': ('backends', 'context', 'export', 'reasoner', 'server'),
    'backends': ('export', 'reasoner', 'server'),
}
HEAVY = {'diffusers', 'mujoco', 'onnxruntime', 'rclpy', 'rerun', 'torch', 'transformers'}


def imports(path: Path) -> set[str]:
    """Return the dotted names that a file imports absolutely, at any depth, functions included."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found |= {f'{node.module}.{alias.name}' for alias in node.names}
    return found


def within(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name == prefix or name.startswith(f'{prefix}.') for prefix in prefixes)


def is_ros(name: str) -> bool:
    package = name.partition('.')[0]
    return package in {'rclpy', 'launch', 'launch_ros', 'cv_bridge', 'tf2_ros', 'diagnostic_updater'} or (
        package.endswith(('_msgs', '_srvs', '_interfaces'))
    )


def crossings(root: Path, package: str) -> list[str]:
    """Return the imports of a package that no arrow allows, as ``file imports name``."""
    wrong = []
    for path in sorted((root / package).rglob('*.py')):
        place = path.relative_to(root).as_posix()
        allowed = ARROWS[package] + (package,) + (('cooper_sim',) if place in CAMERA else ())
        for name in sorted(imports(path)):
            foreign = name.partition('.')[0] in OURS and not within(name, allowed)
            if foreign or (is_ros(name) and package != 'cooper_ros'):
                wrong.append(f'{place} imports {name}')
    return wrong


@pytest.mark.parametrize('package', ARROWS)
def test_imports_follow_the_arrows(package):
    assert not crossings(ROOT, package)


def test_every_folder_of_programs_is_under_the_rule():
    folders = {path.parent.name for path in ROOT.glob('*/*.py')} - {'launch', 'tests', 'tools', 'docs'}
    assert folders <= set(ARROWS)


@pytest.mark.parametrize(
    ('place', 'line'),
    [
        ('cooper_model/flow.py', 'from training.loop import run'),
        ('cooper_model/flow.py', 'def f():\n    import rclpy'),
        ('cooper_sim/scene.py', 'from cooper_model import reasoner'),
        ('cooper_sim/scene.py', 'from cooper_model.config import Config'),
        ('cooper_ros/node.py', 'import cooper_sim.render'),
        ('training/sft.py', 'from cooper_ros import bags'),
        ('cooper_cli/main.py', 'from sensor_msgs.msg import Image'),
    ],
)
def test_a_wrong_import_is_found(tmp_path, place, line):
    path = tmp_path / place
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert len(crossings(tmp_path, path.parent.name)) == 1


@pytest.mark.parametrize('layer', ABOVE)
def test_the_model_has_no_upward_import(layer):
    wrong = []
    for path in (ROOT / 'cooper_model' / layer).rglob('*.py'):
        above = tuple(f'cooper_model.{name}' for name in ABOVE[layer])
        wrong += [f'{path.name} imports {name}' for name in imports(path) if within(name, above)]
    assert not wrong


def run_python(program: str) -> str:
    """Run a program in a fresh interpreter at the root of the checkout and return what it printed."""
    command = [sys.executable, '-c', program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_model_imports_without_torch():
    run_python(
        "import sys; sys.modules['torch'] = None\n"  # any import of torch now raises ImportError
        'import cooper_model, cooper_model.config, cooper_model.types, cooper_model.backends.base'
    )


def test_the_node_starts_without_the_simulation():
    loaded = run_python('import sys, cooper_ros.node; print(*sys.modules)').split()
    assert not {'cooper_sim', 'mujoco'} & {name.partition('.')[0] for name in loaded}


def test_the_command_line_starts_without_the_heavy_packages():
    loaded = run_python('import sys, cooper_cli.main; print(*sys.modules)').split()
    assert not HEAVY & {name.partition('.')[0] for name in loaded}
