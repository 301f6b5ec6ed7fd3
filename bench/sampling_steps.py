"""Depth and masks against the sampler and its number of steps, on unseen simulated scenes.

    python -m bench.sampling_steps [--samplers euler adams] [--steps 1 2 4 8 15 30] [--scenes 200]
    python -m bench.sampling_steps --out runs/sampling_steps.json --table docs/results.md
    python -m bench.sampling_steps --samplers euler heun adams --evaluations 1 2 4 8 --out runs/samplers.json
    python -m bench.sampling_steps --out runs/samplers.json --table docs/results.md --mark samplers

N steps are N + 1 points of time. The same scenes and the same noise are used every time, and what differs is compared
scene by scene with the most steps of the first sampler. Samplers are what ``flow.parse_sampler`` reads, for example
``heun`` or ``euler,reuse=0.1``. With ``--evaluations`` each makes the most steps that ask the network no more often
than that for a map. What ``--out`` holds already is not measured again. The line below the table says whether four
steps lose more than two per cent of depth's accuracy against the most.
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

from bench.network_evaluations import NetworkCounter, with_evaluations
from bench.tables import fill_file
from cooper_cli.evaluation import DISTRIBUTION, SceneResult, Setup, measure_scenes, scene_seeds
from cooper_cli.machine import describe_machine
from cooper_cli.options import ModelChoice
from cooper_cli.output import plain
from cooper_cli.report import depth_figures, segmentation_figures
from cooper_model.backends.graphs import fingerprint_checkpoint
from cooper_model.flow import parse_sampler
from cooper_model.loading import default_checkpoint
from cooper_sim.distribution import Distribution
from training.benchmarks.statistics import difference

STEPS = (1, 2, 4, 8, 15, 30)
FEW, MOST_LOST = 4, 0.02  # steps, and the share of AbsRel that they may lose
FIGURES = {'depth': ('abs_rel', 'delta1', 'rmse'), 'segmentation': ('miou', 'boundary_f1')}


def measure(setup: Setup, name: str, scenes: int, workers: int) -> dict[str, Any]:
    """Return the figures of one sampler with its steps (``adams,steps=4``), and AbsRel of every scene."""
    sampler = f'{setup.model.sampler},{name}'
    setup = replace(setup, model=replace(setup.model, sampler=sampler))
    results: list[SceneResult] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=scenes)
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
    """Return a record as Markdown, the answer about few steps below it."""
    rows_by_name = dict(sorted(record['by_sampler'].items(), key=lambda item: _order(record, item[0])))
    names = [(part, name) for part, listed in FIGURES.items() for name in listed]
    best = _reference(record)
    counted = all('evaluations' in entry for entry in rows_by_name.values())
    heads = ['sampler', 'steps', *(['evaluations'] if counted else []), *(name for _, name in names)]
    heads += [f'AbsRel against {_label(best)}', 'seconds']
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for key, entry in rows_by_name.items():
        sampler, _, steps = key.rpartition(',steps=')
        change = _change(record, key)
        told = '-' if change is None else f'{change["mean"]:+.1%} ({change["low"]:+.1%} to {change["high"]:+.1%})'
        seconds = f'{entry["seconds"]:.3f}'
        evaluations = [f'{entry["evaluations"]:.3g}'] if counted else []
        cells = [sampler, steps, *evaluations, *(_figure(entry[part], name) for part, name in names), told, seconds]
        rows.append(f'| {" | ".join(cells)} |')
    where = f'{record["checkpoint"]}, {record["scenes"]} scenes, seed {record["seed"]}'
    below = f'`python -m bench.sampling_steps`; {where}; {record["machine"]}; {record["date"]}'
    return '\n'.join([*rows, '', *([] if counted else _few_steps(record)), below])


def _label(key: str) -> str:
    sampler, _, steps = key.rpartition(',steps=')
    return f'{steps} steps of {sampler}'


def _order(record: dict[str, Any], key: str) -> tuple[int, int]:
    sampler, _, steps = key.rpartition(',steps=')
    first = next(other for other in record['by_sampler'] if other.rpartition(',steps=')[0] == sampler)
    return list(record['by_sampler']).index(first), int(steps)


def _reference(record: dict[str, Any]) -> str:
    """Return the most steps of the sampler that was measured first."""
    keys = list(record['by_sampler'])
    return max((key for key in keys if _order(record, key)[0] == 0), key=lambda key: _order(record, key))


def _change(record: dict[str, Any], key: str) -> dict[str, float] | None:
    """Return the relative change of AbsRel against the most steps; None for these, or without metric depth."""
    best = _reference(record)
    first, second = (record['by_sampler'][each]['scene_abs_rel'] for each in (best, key))
    return None if key == best or None in (*first, *second) else relative_change(first, second)


def _few_steps(record: dict[str, Any]) -> list[str]:
    """Return a sentence for each sampler that was measured with few steps."""
    told = []
    for key in record['by_sampler']:
        change = _change(record, key) if key.endswith(f',steps={FEW}') else None
        if change is not None:
            answer = 'yes' if change['high'] <= MOST_LOST else 'no' if change['low'] > MOST_LOST else 'not certain'
            told.append(
                f'Are {_label(key)} no worse than {_label(_reference(record))} by {MOST_LOST:.0%} in AbsRel? '
                f'**{answer}**: {change["mean"]:+.1%}, 95 % interval {change["low"]:+.1%} to {change["high"]:+.1%}.'
            )
    return [line for sentence in told for line in (sentence, '')]


def _figure(entry: dict[str, Any], name: str) -> str:
    if entry[name] is None:
        return '-'
    low, high = entry[f'{name}_95']
    return f'{entry[name]:.3f} ± {(high - low) / 2:.3f}'


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, metavar='DIR', help='default the shipped nano')
    parser.add_argument('--samplers', nargs='+', default=['euler'])
    numbers = parser.add_mutually_exclusive_group()
    numbers.add_argument('--steps', type=int, nargs='+', default=STEPS)
    numbers.add_argument('--evaluations', type=int, nargs='+', default=(), help='of the network, in place of steps')
    parser.add_argument('--shift', type=float, help="time shift of the sampler; default the checkpoint's own")
    parser.add_argument('--scenes', type=int, default=200)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--device')
    parser.add_argument('--workers', type=int, default=1)
    parser.add_argument('--out', type=Path, default=Path('runs/sampling_steps.json'))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')
    parser.add_argument('--mark', default='sampling_steps', help='name of the place in the document')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            fill_file(given.table, {given.mark: table(_read(given.out))})
            return
        sys.stdout.write(table(_measure_all(given)) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure_all(given: argparse.Namespace) -> dict[str, Any]:
    if min([*given.steps, *given.evaluations]) < 1 or given.scenes < 2:
        numbers = given.evaluations or given.steps
        raise ValueError(f'steps {numbers} and scenes {given.scenes}: expected steps from 1 and scenes from 2')
    threads = 1 if given.workers > 1 else None
    sampler = '' if given.shift is None else f'shift={given.shift}'
    model = ModelChoice(given.checkpoint, device=given.device, threads=threads, sampler=sampler)
    setup = Setup(model, (), given.seed)
    asked = {
        'checkpoint': 'nano' if given.checkpoint is None else str(given.checkpoint),
        'fingerprint': fingerprint_checkpoint(given.checkpoint or default_checkpoint()),
        'scenes': given.scenes,
        'seed': given.seed,
        'shift': given.shift,
        'distribution_version': Distribution.load(DISTRIBUTION).version,
    }
    record = _read(given.out) if given.out.is_file() else {**asked, 'by_sampler': {}}
    differing = [name for name in asked if record.get(name) != asked[name]]
    if differing:
        raise ValueError(f'{given.out} was measured with another {", ".join(differing)}; choose another --out')
    for sampler in given.samplers:
        parse_sampler(f'{setup.model.sampler},{sampler}')  # before hours of work
    names: dict[str, dict[str, float]] = {}
    if given.evaluations:
        found = with_evaluations(given.samplers, given.evaluations, NetworkCounter(model, given.seed))
        names = {name: {'evaluations': count} for name, count in found.items()}
    else:
        names = {f'{sampler},steps={steps}': {} for sampler in given.samplers for steps in given.steps}
    for name, told in names.items():
        if name not in record['by_sampler']:
            record['by_sampler'][name] = told | measure(setup, name, given.scenes, given.workers)
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
