"""Depth and masks against the number of sampling steps, on unseen simulated scenes.

    python -m bench.sampling_steps [--steps 1 2 4 8 15 30] [--scenes 200] [--out runs/sampling_steps.json]
    python -m bench.sampling_steps --out runs/sampling_steps.json --table docs/results.md

A step is one evaluation of the model, so N steps are N + 1 points of time. The same scenes and the same noise are used
for every number of steps, and what differs is compared scene by scene. Steps that ``--out`` holds already are not
measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from bench.tables import fill_marks
from cooper_cli.evaluation import DISTRIBUTION, SceneResult, Setup, measure_scenes, scene_seeds
from cooper_cli.machine import describe_machine
from cooper_cli.output import plain
from cooper_cli.report import depth_figures, segmentation_figures
from cooper_model.backends.graphs import fingerprint_checkpoint
from cooper_model.loading import default_checkpoint
from cooper_sim.distribution import Distribution
from training.benchmarks.statistics import difference

STEPS = (1, 2, 4, 8, 15, 30)
FIGURES = {'depth': ('abs_rel', 'delta1', 'rmse'), 'segmentation': ('miou', 'boundary_f1')}


def measure(setup: Setup, steps: int, scenes: int, workers: int) -> dict[str, Any]:
    """Return the figures with one number of steps, and AbsRel of every scene."""
    changed = {**setup.sampler, 'num_timesteps': steps + 1}
    setup = replace(setup, sampler=changed)
    results: list[SceneResult] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f'{steps} steps', total=scenes)
        for result in measure_scenes(setup, scene_seeds(scenes, setup.seed), workers):
            results.append(result)
            bar.advance(task)
    return {
        'depth': depth_figures(results),
        'segmentation': segmentation_figures(results),
        'seconds': sum(result.perceive_seconds for result in results) / len(results),
        'scene_abs_rel': [None if result.depth is None else result.depth.abs_rel for result in results],
    }


def relative_change(first: Sequence[float], second: Sequence[float]) -> dict[str, Any]:
    """Return by what share the mean of the second lies above that of the first, over the same scenes.

    :returns: ``mean`` and ``low``, ``high`` of its 95 % interval, the mean of the first taken as exact
    """
    found = difference(first, second, range(len(first)))
    level = sum(first) / len(first)
    return {'mean': found.mean / level, 'low': found.low / level, 'high': found.high / level}


def table(record: dict[str, Any]) -> str:
    """Return a record as Markdown."""
    by_steps = {int(steps): entry for steps, entry in record['by_steps'].items()}
    names = [(part, name) for part, listed in FIGURES.items() for name in listed]
    last = max(by_steps)
    heads = ['steps', *(name for _, name in names), f'AbsRel against {last} steps', 'seconds']
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for steps, entry in sorted(by_steps.items()):
        cells = [str(steps), *(_figure(entry[part], name) for part, name in names)]
        change = '-'
        if steps != last and None not in (*entry['scene_abs_rel'], *by_steps[last]['scene_abs_rel']):
            found = relative_change(by_steps[last]['scene_abs_rel'], entry['scene_abs_rel'])
            change = f'{found["mean"]:+.1%} ({found["low"]:+.1%} to {found["high"]:+.1%})'
        cells += [change, f'{entry["seconds"]:.3f}']
        rows.append(f'| {" | ".join(cells)} |')
    where = f'{record["checkpoint"]}, {record["scenes"]} scenes, seed {record["seed"]}'
    return '\n'.join([*rows, '', f'`python -m bench.sampling_steps`; {where}; {record["machine"]}; {record["date"]}'])


def _figure(entry: dict[str, Any], name: str) -> str:
    if entry[name] is None:
        return '-'
    low, high = entry[f'{name}_95']
    return f'{entry[name]:.3f} ± {(high - low) / 2:.3f}'


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, metavar='DIR', help='default the shipped nano')
    parser.add_argument('--steps', type=int, nargs='+', default=STEPS)
    parser.add_argument('--shift', type=float, help="time shift of the sampler; default the checkpoint's own")
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device')
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--out', type=Path, default=Path('runs/sampling_steps.json'))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            text = fill_marks(given.table.read_text(encoding='utf-8'), {'sampling_steps': table(_read(given.out))})
            given.table.write_text(text, encoding='utf-8')
            return
        sys.stdout.write(table(_measure_all(given)) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure_all(given: argparse.Namespace) -> dict[str, Any]:
    if min(given.steps) < 1 or given.scenes < 2:
        raise ValueError(f'steps {given.steps} and scenes {given.scenes}: expected steps from 1 and scenes from 2')
    sampler = {} if given.shift is None else {'shift': given.shift}
    setup = Setup(given.checkpoint, 'auto', given.device, 1 if given.workers > 1 else None, (), given.seed, sampler)
    asked = {
        'checkpoint': 'nano' if given.checkpoint is None else str(given.checkpoint),
        'fingerprint': fingerprint_checkpoint(given.checkpoint or default_checkpoint()),
        'scenes': given.scenes,
        'seed': given.seed,
        'shift': given.shift,
        'distribution_version': Distribution.load(DISTRIBUTION).version,
    }
    record = _read(given.out) if given.out.is_file() else {**asked, 'by_steps': {}}
    differing = [name for name in asked if record.get(name) != asked[name]]
    if differing:
        raise ValueError(f'{given.out} was measured with another {", ".join(differing)}; choose another --out')
    for steps in given.steps:
        if str(steps) not in record['by_steps']:
            record['by_steps'][str(steps)] = measure(setup, steps, given.scenes, given.workers)
            record |= describe_machine()
            given.out.parent.mkdir(parents=True, exist_ok=True)
            given.out.write_text(json.dumps(plain(record), indent=1) + '\n', encoding='utf-8')
    return _read(given.out)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; measure first')
    return json.loads(path.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
