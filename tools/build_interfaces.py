"""Build cooper_msgs into the virtual environment that runs this program, by the ordinary ament and rosidl path.

ROS wheels name include folders of the machine that made them; those are set right first. In a ROS installation this
program is not needed: colcon builds cooper_msgs there.
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

SOURCE = Path(__file__).parents[1] / 'cooper_msgs'
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


def build(prefix: Path) -> None:
    """Configure, build and install cooper_msgs into ``prefix``.

    :raises subprocess.CalledProcessError: CMake or the compiler failed; their own words stand on standard error
    """
    environment = dict(os.environ, PATH=f'{prefix / "bin"}{os.pathsep}{os.environ["PATH"]}', VIRTUAL_ENV=str(prefix))
    for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'PYTHONPATH'):
        environment.pop(name, None)
    with tempfile.TemporaryDirectory(prefix='cooper_msgs-') as folder:
        configure = ['cmake', '-S', str(SOURCE), '-B', folder, '-G', 'Ninja']
        settings = {
            'CMAKE_PREFIX_PATH': prefix,
            'CMAKE_INSTALL_PREFIX': prefix,
            'Python3_EXECUTABLE': prefix / 'bin' / 'python',
            'BUILD_TESTING': 'OFF',
            'CMAKE_SUPPRESS_DEVELOPER_WARNINGS': 'ON',
            'CMAKE_WARN_DEPRECATED': 'OFF',
        }
        configure += [f'-D{name}={value}' for name, value in settings.items()]
        for command in (configure, ['cmake', '--build', folder], ['cmake', '--install', folder]):
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def main() -> None:
    prefix = Path(sys.prefix)
    if sys.prefix == sys.base_prefix:
        sys.exit(f'{sys.executable} is not in a virtual environment; run this with .venv/bin/python')
    repair_include_paths(prefix)
    build(prefix)


if __name__ == '__main__':
    main()
