"""``cooper bench``: speed and memory on fixed workloads."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from cooper_cli import options
from cooper_cli.output import note, print_json, say, table

if TYPE_CHECKING:
    from cooper_model.backends.base import Backend


@options.takes_model('server')
def bench(
    model: options.ModelChoice,
    random: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option('--random', metavar='SIZE', help='Measure a model with random weights of a size: mid, tiny.'),
    ] = None,
    save: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option('--save', metavar='DIR', help='Write the random model as a checkpoint folder.'),
    ] = None,
    full: Annotated[bool, typer.Option('--full', help='The 7B architecture on a GPU, beside its floors.')] = False,
    repeats: Annotated[int, typer.Option('--repeats', min=3, help='Measurements; the median counts.')] = 3,
    ros: Annotated[bool, typer.Option('--ros/--no-ros', help='Measure the way through a ROS node too.')] = True,
    json: options.Json = False,
    seed: options.Seed = 0,
) -> None:
    """Measure speed and memory: nano's own work, or the work of a model by its parts.

    With --full the published architecture is built with random weights on a GPU, or the random model of another size.
    Without --checkpoint and --random the shipped nano perceives and answers; any other checkpoint, or a random
    model, is measured by prefill, decode, image context and image generation.
    """
    from cooper_cli.machine import describe_backend, describe_machine, finisher, peak_memory_mb
    from cooper_cli.session import set_threads
    from cooper_cli.workloads import Clock, model_figures

    if save is not None and random is None:
        raise typer.BadParameter('--save needs --random')
    _require_fitting(model, random, full)
    used = set_threads(model.threads)
    if full:
        from cooper_cli.full_size import measure

        workload, (runner, figures) = 'full', measure(random, seed, model.device, repeats)
    elif random is None and _is_nano(model.checkpoint):
        workload, runner, figures = _nano(model, repeats, seed, ros)
    else:
        workload = random or 'checkpoint'
        runner = _load(model) if random is None else _random(random, seed, model, save)
        figures = model_figures(runner, Clock(repeats, finisher(runner)), seed=seed, sampler=model.sampling)
    record = {
        'workload': workload,
        **figures,
        **describe_backend(runner, used),
        'quantise': model.quantise,
        'sampler': model.sampler or None,
        'repeats': repeats,
        'seed': seed,
        **peak_memory_mb(runner),
        **describe_machine(),
    }
    if json:
        print_json(record)
    else:
        shares = figures.get('shares', {})
        rows = [
            (name, '-' if value is None else f'{value:.4g}', f'{shares[name]:.1%}' if name in shares else '')
            for name, value in figures.items()
            if value is None or isinstance(value, (int, float))
        ]
        say(table(('figure', 'median', 'of the floor' if shares else ''), rows))
        say(', '.join(f'{name} {record[name]}' for name in ('machine', 'device', 'dtype', 'threads', 'date')))


def _require_fitting(model: options.ModelChoice, random: str | None, full: bool) -> None:
    """Refuse options that would change nothing.

    :raises typer.BadParameter: there are some
    """
    if model.backend is options.BackendName.remote:
        raise typer.BadParameter('the remote back end computes nothing here; measure on the machine of the server')
    if full and (given := model.given('device', 'threads')):
        raise typer.BadParameter(f'--full builds its own model and goes without {", ".join(given)}')
    if random is not None:
        torch_named = model.backend is options.BackendName.torch
        given = model.given('device', 'threads', 'dtype', 'sampler', 'backend' if torch_named else '')
        if given:
            raise typer.BadParameter(f'--random and {", ".join(given)} exclude each other; write it with --save first')


def _is_nano(checkpoint: Path | None) -> bool:
    from cooper_model.loading import default_checkpoint

    return checkpoint is None or checkpoint.resolve() == default_checkpoint().resolve()


def _random(size: str, seed: int, model: options.ModelChoice, save: Path | None) -> Backend:
    from cooper_cli.random_model import random_backend

    backend = random_backend(size, seed, model.device, model.dtype.value)
    if save is not None:
        import torch

        from cooper_model.checkpoint import save_checkpoint

        # Whole files in float32, which any implementation reads: the weights of a comparison are the same.
        save_checkpoint(save, backend.model, backend.autoencoder, dtype=torch.float32, shard_bytes=2**40)
        note(f'wrote {save}')
    backend.prepare()
    return backend


def _load(model: options.ModelChoice) -> Backend:
    from cooper_model.loading import load_backend

    return load_backend(**asdict(model.source))


def _nano(model: options.ModelChoice, repeats: int, seed: int, ros: bool) -> tuple[str, Backend, dict[str, Any]]:
    from cooper_cli.answering import answer_figures
    from cooper_cli.session import open_reasoner

    reasoner = open_reasoner(model)
    figures: dict[str, Any] = answer_figures(reasoner, repeats, seed)
    if ros:
        from cooper_cli.ros_timing import end_to_end

        figures['ros_end_to_end_s'] = end_to_end(repeats, seed, model)
    return 'nano', reasoner.backend, figures
