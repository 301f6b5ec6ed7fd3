"""``cooper eval``: depth, segmentation and answers on freshly simulated scenes."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from cooper_cli import options
from cooper_cli.output import print_json, say, write_lines

if TYPE_CHECKING:
    from cooper_cli.evaluation import SceneResult, Setup

MOST_WORKERS = 8
SMALL_BYTES = 200_000_000


@options.takes_model()
def evaluate(
    model: options.ModelChoice,
    scenes: Annotated[int, typer.Option('--scenes', min=1, help='How many scenes, four questions each.')] = 600,
    seed: options.Seed = 0,
    modes: options.Modes = 'auto',
    workers: Annotated[int, typer.Option('--workers', min=0, help='Processes; 0: chosen by model and machine.')] = 0,
    answers: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option('--answers', help='File for every answer of the first mode, one JSON line each.'),
    ] = None,
    json: options.Json = False,
) -> None:
    """Measure depth, segmentation and answers on fresh scenes of the versioned evaluation distribution."""
    from cooper_cli.evaluation import DISTRIBUTION, Setup, scene_seeds
    from cooper_cli.machine import describe_machine
    from cooper_cli.report import answer_lines, as_text, summarise
    from cooper_sim.distribution import Distribution

    names = tuple(modes.split(','))
    setup = Setup(model, names, seed)
    count = workers or _default_workers(model, scenes)
    start = time.perf_counter()
    seeds = scene_seeds(scenes, seed)
    results = _run(setup, seeds, count)
    if answers is not None:
        write_lines(answers, answer_lines(results, seeds, names[0]))
    record = summarise(results, names)
    record |= {
        'distribution': DISTRIBUTION,
        'distribution_version': Distribution.load(DISTRIBUTION).version,
        'seed': seed,
        'checkpoint': 'nano' if model.checkpoint is None else str(model.checkpoint),
        'quantise': model.quantise,
        'dtype': None if model.dtype is options.NumberType.auto else model.dtype.value,
        'sampler': model.sampler or None,
        'seconds': time.perf_counter() - start,
        'workers': count,
        **describe_machine(),
    }
    if json:
        print_json(record)
    else:
        say(as_text(record))
        say(f'\n{scenes} scenes of version {record["distribution_version"]}, {record["seconds"]:.0f} s')


def _default_workers(model: options.ModelChoice, scenes: int) -> int:
    """Return one worker a core for a small model on a CPU: its small matrices gain nothing from threads."""
    if model.server is not None or scenes < 2 * MOST_WORKERS or model.threads not in (None, 1):
        return 1
    if _weight_bytes(model) > SMALL_BYTES:
        return 1
    if model.device is None:
        import torch

        on_cpu = not torch.cuda.is_available()
    else:
        on_cpu = model.device == 'cpu'
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if on_cpu else 1


def _weight_bytes(model: options.ModelChoice) -> int:
    from cooper_model.loading import default_checkpoint

    return sum(path.stat().st_size for path in (model.checkpoint or default_checkpoint()).glob('*.safetensors'))


def _run(setup: Setup, seeds: list[int], workers: int) -> list[SceneResult]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from cooper_cli.evaluation import measure_scenes

    columns = (TextColumn('scenes'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    results = []
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task('scenes', total=len(seeds))
        for result in measure_scenes(setup, seeds, workers):
            results.append(result)
            progress.advance(task)
    return results
