"""Run measurements, each in a process of its own, and print one JSON line for each.

    python -m bench.run [NAME ...] [--out FILE] [--with ARGUMENTS]

Names and commands stand in MEASUREMENTS; without a name all of them run, one after the other. Nothing else heavy
should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

MEASUREMENTS: dict[str, tuple[str, ...]] = {
    'nano': ('bench',),
    'mid': ('bench', '--random', 'mid'),
    'eval': ('eval', '--scenes', '600'),
}


def measure(name: str, further: list[str]) -> dict[str, object]:
    """Run one measurement and return its record, with its name and command.

    :param further: arguments after those of the table
    :raises subprocess.CalledProcessError: the command failed; what it said stands on standard error
    """
    arguments = [*MEASUREMENTS[name], '--json', *further]
    command = [sys.executable, '-m', 'cooper_cli.main', *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {'name': name, 'command': ' '.join(['cooper', *arguments]), **json.loads(done.stdout)}


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('names', nargs='*', metavar='NAME', help=f'some of: {", ".join(MEASUREMENTS)}')
    parser.add_argument('--out', type=Path, help='append the lines to this file as well')
    parser.add_argument('--with', dest='further', default='', help='further arguments of the command, as one text')
    known = parser.parse_args()
    unknown = [name for name in known.names if name not in MEASUREMENTS]
    if unknown:
        parser.error(f'no measurement {unknown[0]!r}; choose from {", ".join(MEASUREMENTS)}')
    for name in known.names or MEASUREMENTS:
        line = json.dumps(measure(name, shlex.split(known.further)))
        print(line, flush=True)
        if known.out is not None:
            known.out.parent.mkdir(parents=True, exist_ok=True)
            with known.out.open('a', encoding='utf-8') as file:
                file.write(line + '\n')


if __name__ == '__main__':
    main()
