"""A simulated robot's day in a world that no checkpoint was trained on, from its camera to a retrained checkpoint.

    python -m bench.retrain [--frames 400] [--steps N] [--out runs/retrain]
    python -m bench.retrain --out runs/retrain --table docs/retrain.md

A camera process plays the world, a node records it (``cooper record``), ``cooper bag2data`` makes a folder of the bags,
``cooper retrain`` does the rest. What is finished is not done again. Nothing else heavy should run meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.tables import fill_marks
from cooper_cli.machine import describe_machine
from cooper_cli.retrain import NOT_INSTALLED, figure_rows
from cooper_ros.client import CooperClient
from cooper_ros.processes import RosProcess

SIZE = (320, 240)
MASKS = ('mask/instances', 'mask/classes', 'mask/label_names')
START_SECONDS = 600.0
RESULT = 'result.json'


@dataclass(frozen=True)
class Day:
    """What is done.

    :param frames: that the robot's camera shows, each of another scene, ``rate`` a second
    :param steps, rehearsal, measured, processes: for ``cooper retrain``; None for its own choice
    """

    out: Path
    world: str
    frames: int
    seed: int
    rate: float = 4.0
    steps: int | None = None
    rehearsal: int | None = None
    measured: int | None = None
    processes: int | None = None

    @property
    def bags(self) -> Path:
        return self.out / 'bags'

    @property
    def data(self) -> Path:
        return self.out / 'data'

    def run(self) -> dict[str, Any]:
        """Run every part that is not finished; return the figures with the seconds that each part took."""
        self.out.mkdir(parents=True, exist_ok=True)
        seconds = {}
        for name, part in (('record', self.record), ('bag2data', self.convert), ('retrain', self.retrain)):
            start, done = time.monotonic(), self.out / f'{name}.json'
            if not done.is_file():
                found = part()
                done.write_text(json.dumps({**found, 'seconds': time.monotonic() - start}) + '\n', encoding='utf-8')
            seconds[name] = json.loads(done.read_text(encoding='utf-8'))['seconds']
        card = json.loads((self.out / 'retrain.json').read_text(encoding='utf-8'))
        result = {**card, 'world': self.world, 'parts': seconds, **describe_machine()}
        (self.out / RESULT).write_text(json.dumps(result, indent=1) + '\n', encoding='utf-8')
        return result

    def record(self) -> dict[str, Any]:
        """Let a node record what the camera shows."""
        # A domain of this run's own, and names that no other run there has.
        os.environ.setdefault('ROS_DOMAIN_ID', str(1 + os.getpid() % 100))
        os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
        namespace = f'/robot_{os.getpid()}'
        shown: dict[str, Any] = {
            'distribution': self.world, 'seed': self.seed, 'rate': self.rate, 'scene_period': 1 / self.rate,
            'width': SIZE[0], 'height': SIZE[1], 'questions': 0, 'wait_for_subscribers': 1,
        }  # fmt: skip
        topics = [f'{namespace}/{name}' for name in MASKS] + ['/tf']
        wanted = [word for topic in topics for word in ('--topic', topic)]
        wanted += ['--seconds', f'{self.frames / self.rate:g}', '--rate', f'{2 * self.rate:g}']
        wanted += ['--namespace', namespace, '--timeout', f'{START_SECONDS:g}']
        with RosProcess('cooper_ros.node', {'backend': 'torch'}, self.out / 'node.log', namespace) as node:
            with CooperClient(namespace=namespace) as client:
                _wait(lambda: client.is_there() and client.state() == 'active', node)
            with RosProcess('cooper_ros.camera', shown, self.out / 'camera.log', namespace) as camera:
                _wait(lambda: 'playing' in camera.tail(), camera)
                found = _cooper('record', str(self.bags), *wanted)
                camera.require_alive()
            node.require_alive()
        return found

    def convert(self) -> dict[str, Any]:
        """Make a folder to train on out of the bags."""
        return _cooper('bag2data', str(self.bags), '--out', str(self.data))

    def retrain(self) -> dict[str, Any]:
        """Retrain nano on the folder."""
        choices = {'steps': self.steps, 'rehearsal': self.rehearsal, 'measured': self.measured}
        choices['processes'] = self.processes
        given = [word for name, value in choices.items() if value is not None for word in (f'--{name}', str(value))]
        return _cooper('retrain', str(self.data), '--checkpoint', 'nano', *given)


def _wait(ready: Callable[[], bool], process: RosProcess) -> None:
    """Return when a process is ready.

    :raises RuntimeError: it has ended, or is not in time
    """
    end = time.monotonic() + START_SECONDS
    while not ready():
        process.require_alive()
        if time.monotonic() > end:
            raise RuntimeError(f'{process.module} is not ready after {START_SECONDS:g} s; its log:\n{process.tail()}')
        time.sleep(0.5)


def _cooper(*arguments: str) -> dict[str, Any]:
    """Run a command as users do and return what it tells.

    :raises RuntimeError: it failed
    """
    done = subprocess.run([sys.executable, '-m', 'cooper_cli.main', *arguments, '--json'], stdout=subprocess.PIPE)
    if done.returncode not in (0, NOT_INSTALLED):
        raise RuntimeError(f'cooper {" ".join(arguments)} ended with status {done.returncode}, for the reason above')
    return json.loads(done.stdout)


def table(result: dict[str, Any]) -> str:
    """Return the Markdown of a run: figures, what was used, times, machine and date."""
    rows = [('figure', 'frames', 'before', 'after', 'gain', '95 % interval'), ('---',) * 6, *figure_rows(result)]
    lines = [f'| {" | ".join(row)} |' for row in rows]
    data, training = result['data'], result['training']
    counts = data['frames']
    verdict = 'installed' if result['installed'] else f'not installed: {result["reason"]}'
    lines += [
        '',
        f'World *{result["world"]}*: {counts["trained"]} frames trained on, {counts["held_out"]} held out, '
        f'{counts["apart"]} between; {data["questions"]} questions; {training["rehearsed_scenes"]} scenes rehearsed; '
        f'{training["steps"]} steps. The checkpoint was {verdict}.',
        '',
        ', '.join(f'{name} {seconds / 60:.1f} min' for name, seconds in result['parts'].items())
        + f'; {result["machine"]}, {result["cores"]} cores; {result["date"]}',
    ]
    return '\n'.join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--out', type=Path, default=Path('runs/retrain'))
    parser.add_argument('--world', default='warehouse')
    parser.add_argument('--frames', type=int, default=400)
    parser.add_argument('--seed', type=int, default=0, help='of the first scene')
    parser.add_argument('--rate', type=float, default=4.0, help='scenes a second')
    for name in ('steps', 'rehearsal', 'measured', 'processes'):
        parser.add_argument(f'--{name}', type=int, help='for cooper retrain')
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what was measured there, do nothing else')
    given = parser.parse_args()
    if given.table:
        result = json.loads((given.out / RESULT).read_text(encoding='utf-8'))
        text = fill_marks(given.table.read_text(encoding='utf-8'), {'retrain': table(result)})
        given.table.write_text(text, encoding='utf-8')
        return
    values = {name: value for name, value in vars(given).items() if name != 'table'}
    sys.stdout.write(table(Day(**values).run()) + '\n')


if __name__ == '__main__':
    main()
