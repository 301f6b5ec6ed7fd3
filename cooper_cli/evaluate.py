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


def evaluate(
    scenes: Annotated[int, typer.Option('--scenes', min=1, help='How many scenes, four questions each.')] = 600,
    seed: options.Seed = 0,
    modes: options.Modes = 'auto',
    workers: Annotated[int, typer.Option('--workers', min=0, help='Processes; 0: chosen by model and machine.')] = 0,
    answers: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option('--answers', help='File for every answer of the first mode, one JSON line each.'),
    ] = None,
    json: options.Json = False,
    checkpoint: options.Checkpoint = None,
    backend: options.Backend = options.BackendName.auto,
    graphs: options.Graphs = None,
    quantise: options.Quantise = None,
    device: options.Device = None,
    threads: options.Threads = None,
    server: options.Server = None,
) -> None:
    """Measure depth, segmentation and answers on fresh scenes of the versioned evaluation distribution."""
    from cooper_cli.evaluation import DISTRIBUTION, Setup, scene_seeds
    from cooper_cli.machine import describe_machine
    from cooper_cli.report import answer_lines, as_text, summarise
    from cooper_sim.distribution import Distribution

    names = tuple(modes.split(','))
    more = {'graphs': graphs, 'quantise': quantise, 'server': server}
    setup = Setup(checkpoint, backend.value, device, threads, names, seed, **more)
    count = workers or _default_workers(setup, scenes)
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
        'checkpoint': 'nano' if checkpoint is None else str(checkpoint),
        'quantise': quantise,
        'seconds': time.perf_counter() - start,
        'workers': count,
        **describe_machine(),
    }
    if json:
        print_json(record)
    else:
        say(as_text(record))
        say(f'\n{scenes} scenes of version {record["distribution_version"]}, {record["seconds"]:.0f} s')


def _default_workers(setup: Setup, scenes: int) -> int:
    """Return one worker a core for a small model on a CPU: its small matrices gain nothing from threads."""
    if setup.server is not None or scenes < 2 * MOST_WORKERS or setup.threads not in (None, 1):
        return 1
    if _weight_bytes(setup) > SMALL_BYTES:
        return 1
    if setup.device is None:
        import torch

        on_cpu = not torch.cuda.is_available()
    else:
        on_cpu = setup.device == 'cpu'
    return min(len(os.sched_getaffinity(0)), MOST_WORKERS) if on_cpu else 1


def _weight_bytes(setup: Setup) -> int:
    from cooper_model.loading import default_checkpoint

    return sum(path.stat().st_size for path in (setup.checkpoint or default_checkpoint()).glob('*.safetensors'))


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
