"""What gets installed: manifests that ROS accepts, a wheel that holds what it must, pins that are true."""

from __future__ import annotations

import ast
import configparser
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from catkin_pkg.package import parse_package
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PACKAGES = ('cooper_cli', 'cooper_model', 'cooper_ros', 'cooper_sim')
BUILT_FROM = (*PACKAGES, 'config', 'launch', 'resource', 'rviz')
BUILD_FILES = ('package.xml', 'pyproject.toml', 'setup.cfg', 'setup.py')
# Parts of a ROS installation that no wheel holds; used where they are.
OPTIONAL_ROS = {'cv_bridge', 'diagnostic_updater', 'rosbag2_py', 'tf2_msgs', 'tf2_ros', 'vision_msgs'}


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    """Build the wheel from a copy of what it is made of, so that the checkout stays clean."""
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('wheel')
    for name in BUILT_FROM:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns('__pycache__'))
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, source / name)
    (source / 'training').mkdir()
    (source / 'training' / '__init__.py').touch()
    options = ['--no-deps', '--no-build-isolation', '--wheel-dir', str(out), str(source)]
    done = subprocess.run([sys.executable, '-m', 'pip', 'wheel', *options], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(out.glob('*.whl'))) as archive:
        yield archive


def wheel_metadata(wheel, name):
    path = next(path for path in wheel.namelist() if path.endswith(f'.dist-info/{name}'))
    return wheel.read(path).decode()


def requirements(wheel):
    lines = wheel_metadata(wheel, 'METADATA').splitlines()
    return [Requirement(line.partition(': ')[2]) for line in lines if line.startswith('Requires-Dist: ')]


def pins():
    lines = (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    found = [Requirement(line) for line in lines if line and not line.startswith('#')]
    return {canonicalize_name(pin.name): str(pin.specifier).removeprefix('==') for pin in found}


def third_party(folder):
    """Return the top-level names of other projects that a folder's files import, at any depth."""
    names = set()
    for path in (ROOT / folder).rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(node.module.partition('.')[0])
    stdlib = {*sys.stdlib_module_names, 'compression'}  # the last since Python 3.14
    return names - stdlib - set(PACKAGES) - {'training'}


@pytest.mark.parametrize(
    ('folder', 'name', 'build_type'),
    [('.', 'cooper_ros', 'ament_python'), ('cooper_msgs', 'cooper_msgs', 'ament_cmake')],
)
def test_manifest_is_accepted(folder, name, build_type):
    warnings = []
    package = parse_package(str(ROOT / folder), warnings=warnings)
    assert (package.name, package.get_build_type(), package.licenses) == (name, build_type, ['Apache-2.0'])
    assert not warnings


def test_versions_agree(wheel):
    ours = re.search(r'^Version: (.+)$', wheel_metadata(wheel, 'METADATA'), re.MULTILINE)[1]
    manifests = {parse_package(str(ROOT / folder)).version for folder in ('.', 'cooper_msgs')}
    assert manifests == {ours}


def test_wheel_holds_every_file_of_the_four_packages_and_no_other(wheel):
    expected = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in (ROOT / package).rglob('*')
        if path.is_file() and '__pycache__' not in path.parts
    }
    held = {name for name in wheel.namelist() if '.dist-info/' not in name and '.data/' not in name}
    assert held == expected


@pytest.mark.parametrize('package', PACKAGES)
def test_every_folder_with_programs_is_a_package(package):
    folders = {path.parent for path in (ROOT / package).rglob('*.py')}
    assert not [folder for folder in folders if not (folder / '__init__.py').is_file()]


def test_wheel_holds_a_checkpoint(wheel):
    inside = [name for name in wheel.namelist() if name.startswith('cooper_model/checkpoints/nano/')]
    assert {Path(name).suffix for name in inside} >= {'.json', '.safetensors'}


@pytest.mark.parametrize(
    'place',
    [
        'share/ament_index/resource_index/packages/cooper_ros',
        'share/cooper_ros/package.xml',
        'share/cooper_ros/launch/cooper.launch.py',
        'share/cooper_ros/config/cooper.yaml',
        'share/cooper_ros/rviz/cooper.rviz',
    ],
)
def test_wheel_installs_what_ros_looks_for(wheel, place):
    assert any(name.endswith(f'.data/data/{place}') for name in wheel.namelist())


def test_entry_points_exist(wheel):
    parser = configparser.ConfigParser()
    parser.read_string(wheel_metadata(wheel, 'entry_points.txt'))
    scripts = dict(parser['console_scripts'])
    assert set(scripts) == {'camera', 'cooper', 'cooper_node', 'viewer'}
    for target in scripts.values():
        module, _, attribute = target.partition(':')
        tree = ast.parse((ROOT / f'{module.replace(".", "/")}.py').read_text(encoding='utf-8'))
        functions = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
        targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        assert attribute in functions + names, f'{module} defines no {attribute}'


def test_ros_finds_the_programs_in_its_own_folder():
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / 'setup.cfg')
    assert parser['develop']['script_dir'] == parser['install']['install_scripts'] == '$base/lib/cooper_ros'


def test_launch_folder_hides_no_ros_package():
    assert not (ROOT / 'launch' / '__init__.py').exists()


def test_ros_packages_in_use_are_declared():
    manifest = parse_package(str(ROOT))
    declared = {dependency.name for dependency in manifest.exec_depends}
    wheels = [name for name in pins() if name.startswith('ros-')]
    known = {name.removeprefix('ros-').replace('-', '_') for name in wheels}
    used = third_party('cooper_ros') & (known | OPTIONAL_ROS | {'cooper_msgs'})
    rosdep_names = {'tf2_ros': 'tf2_ros_py'}
    assert {rosdep_names.get(name, name) for name in used} <= declared


def test_libraries_in_use_are_required(wheel):
    required = {canonicalize_name(requirement.name) for requirement in requirements(wheel)}
    providers = metadata.packages_distributions()
    unknown = []
    for name in set().union(*map(third_party, PACKAGES)) - OPTIONAL_ROS - {'cooper_msgs'}:
        names = {canonicalize_name(provider) for provider in providers.get(name, [name])}
        ros = f'ros-{name.replace("_", "-")}' in pins()
        if not ros and not names & required:
            unknown.append(name)
    assert not unknown


def test_everything_required_is_pinned_and_admitted(wheel):
    pinned = pins()
    for requirement in requirements(wheel):
        if requirement.name != 'tensorrt':  # no wheel of it installs without a GPU's own registry
            assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), str(requirement)


def test_the_environment_is_what_is_pinned():
    pinned = pins()
    installed = {canonicalize_name(each.name): Version(each.version) for each in metadata.distributions()}
    common = installed.keys() & pinned.keys()
    wrong = {name: str(installed[name]) for name in common if installed[name].public != pinned[name]}
    assert not wrong, f'{wrong} are not the versions of constraints.txt; run make test'
