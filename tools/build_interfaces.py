"""Build cooper_msgs and tf2_msgs, by the ordinary ament and rosidl path, into the environment that runs this program.

ROS wheels name include folders of the machine that made them; those are set right first. In a ROS
installation this program is not needed: it has tf2_msgs, and colcon builds cooper_msgs there.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[1]
SOURCES = (ROOT / 'cooper_msgs', ROOT / 'tools' / 'tf2_msgs')
FOREIGN_NUMPY = re.compile(r'/opt/python/[^;"\s]*/numpy/_core/include')
FOREIGN_PYTHON = re.compile(r'/opt/python/[^;"\s/]*/include/python[0-9.]+')


def repair_include_paths(prefix: Path) -> None:
    """Point the installed CMake files of the ROS wheels at this machine's Python and NumPy headers."""
    python_include = sysconfig.get_paths()['include']
    for path in prefix.glob('share/*/cmake/*.cmake'):
        text = path.read_text(encoding='utf-8')
        repaired = FOREIGN_NUMPY.sub(lambda _: numpy.get_include(), text)
        repaired = FOREIGN_PYTHON.sub(lambda _: python_include, repaired)
        if repaired != text:
            path.write_text(repaired, encoding='utf-8')


def build_environment(prefix: Path) -> dict[str, str]:
    """Return the variables to build with: the programs of ``prefix`` first, no other ROS installation."""
    hidden = {'AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'PYTHONPATH'}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    path = f'{prefix / "bin"}{os.pathsep}{kept.get("PATH", os.defpath)}'
    return {**kept, 'PATH': path, 'VIRTUAL_ENV': str(prefix)}


def build(source: Path, prefix: Path) -> None:
    """Configure, build and install an interface package into ``prefix``.

    :raises SystemExit: CMake or the compiler failed; the message holds what they said
    """
    settings = {
        'CMAKE_PREFIX_PATH': prefix,
        'CMAKE_INSTALL_PREFIX': prefix,
        'Python3_EXECUTABLE': prefix / 'bin' / 'python',
        'BUILD_TESTING': 'OFF',
    }
    with tempfile.TemporaryDirectory(prefix=f'{source.name}-') as folder:
        configure = ['cmake', '-S', str(source), '-B', folder, '-G', 'Ninja']
        configure += [f'-D{name}={value}' for name, value in settings.items()]
        for command in (configure, ['cmake', '--build', folder], ['cmake', '--install', folder]):
            done = subprocess.run(command, env=build_environment(prefix), capture_output=True, text=True)
            if done.returncode:
                said = f'{done.stdout}{done.stderr}'
                raise SystemExit(f'{said}\n{" ".join(command)}: failed ({done.returncode})')


def main() -> None:
    """Build into the environment of this interpreter."""
    if sys.prefix == sys.base_prefix:
        raise SystemExit(f'{sys.executable} is not in a virtual environment; run this with .venv/bin/python')
    prefix = Path(sys.prefix)
    repair_include_paths(prefix)
    for source in SOURCES:
        build(source, prefix)


if __name__ == '__main__':
    main()
