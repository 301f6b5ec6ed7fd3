"""The workspace of docs/install.md: colcon finds both packages, builds ours, and what it installs can be started."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip('colcon_core', reason='needs colcon')
pytest.importorskip('rclpy', reason='needs ROS 2')

ROOT = Path(__file__).parents[1]
BASES = ['--base-paths', '.', 'cooper_msgs']
PACKAGES = ('cooper_cli', 'cooper_model', 'cooper_msgs', 'cooper_ros', 'cooper_sim')
PARTS = (*PACKAGES, 'config', 'launch', 'resource', 'rviz')
PATH = f'{Path(sys.executable).parent}{os.pathsep}{os.environ["PATH"]}'
FILES = ('package.xml', 'setup.cfg', 'setup.py')


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Return a copy of what the packages are made of, away from the checkout."""
    folder = tmp_path_factory.mktemp('workspace')
    leave = shutil.ignore_patterns('__pycache__', '*.safetensors')
    for name in PARTS:
        shutil.copytree(ROOT / name, folder / name, ignore=leave)
    for name in FILES:
        shutil.copy(ROOT / name, folder)
    return folder


def colcon(workspace, *arguments):
    prefix = sys.prefix
    # The ROS wheels of this environment in place of a sourced installation.
    found = {'AMENT_PREFIX_PATH': prefix, 'CMAKE_PREFIX_PATH': prefix, 'VIRTUAL_ENV': prefix, 'PATH': PATH}
    environment = {**os.environ, **found, 'COLCON_HOME': str(workspace), 'CMAKE_GENERATOR': 'Ninja'}
    command = [sys.executable, '-m', 'colcon', *arguments, *BASES]
    done = subprocess.run(command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_both_packages_are_found(workspace):
    found = {tuple(line.split('\t')) for line in colcon(workspace, 'list').splitlines()}
    assert found == {('cooper_msgs', 'cooper_msgs', '(ros.ament_cmake)'), ('cooper_ros', '.', '(ros.ament_python)')}


def test_without_the_second_path_the_messages_are_not_found(workspace):
    done = colcon(workspace, 'list', '--names-only')
    assert done.split() == ['cooper_msgs', 'cooper_ros']
    command = [sys.executable, '-m', 'colcon', 'list', '--names-only', '--base-paths', '.']
    alone = subprocess.run(command, cwd=workspace, capture_output=True, text=True, timeout=120)
    assert alone.stdout.split() == ['cooper_ros']


def test_what_colcon_installs_is_what_launch_starts(workspace):
    colcon(workspace, 'build')
    installed = workspace / 'install' / 'cooper_ros'
    share = installed / 'share' / 'cooper_ros'
    assert {path.name for path in share.glob('*/*') if path.suffix != '.sh'} >= {
        'cooper.launch.py', 'cooper.yaml', 'cooper.rviz'
    }  # fmt: skip
    index = installed / 'share' / 'ament_index' / 'resource_index' / 'packages' / 'cooper_ros'
    assert index.is_file() and (share / 'package.xml').is_file()
    # From the installed copy: a bad parameter is named before a model is looked for.
    line = '. install/setup.sh && exec install/cooper_ros/lib/cooper_ros/cooper_node --ros-args -p backend:=abacus'
    kept = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run(
        ['sh', '-c', line], cwd=workspace, env={**kept, 'PATH': PATH}, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1 and 'abacus' in done.stderr, done.stderr
