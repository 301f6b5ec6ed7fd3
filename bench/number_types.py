"""Compare number types of the torch back end: time by the same work in turns, and how far results are from float32.

    python -m bench.number_types [--checkpoint DIR | --random mid] [--rounds 3] [--threads 2]
    python -m bench.number_types --out runs/number_types.json --table docs/backends.md

The work and its ratios are those of `python -m bench.backends`. An error is the root mean square of the difference to
float32 over that of the result: of the logits at all tokens of an image, and of velocities and their guided sum at
several times, on the contexts of the work.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.backends import Rounds, compare, ratio_rows
from bench.tables import add_record_options, fill_from, keep_record
from cooper_cli.machine import describe_machine
from cooper_cli.output import plain
from cooper_cli.random_model import SIZES, random_backend
from cooper_cli.session import set_threads
from cooper_cli.workloads import TEXT, Clock, Work
from cooper_model.backends.torch import TorchBackend
from cooper_model.flow import guide
from cooper_model.transforms import vision_input

MARK = 'number_types'
TYPES = 'float32', 'bfloat16'
TIMES = 1.0, 0.7, 0.3


@torch.inference_mode()
def results(backend: TorchBackend, seed: int) -> dict[str, list[Tensor]]:
    """Return what is compared, by name."""
    work = Work(backend, Clock(1, lambda: None), 256, seed)
    guidance = work.guidance()
    branches = [guidance.full, guidance.no_text, guidance.no_image]
    grid = tuple(side // backend.config.latent_stride for side in work.size)
    velocities = [backend.velocity(branches, torch.from_numpy(work.noise), grid, t) for t in TIMES]
    image = vision_input(work.image, backend.config.vae_transform, backend.config.vit_transform)
    seen = backend.append_vision(work.texts(TEXT), image)
    return {
        'logits': [backend.model.logits(seen)],
        'velocity': velocities,
        'guided velocity': [guide(*each.split(1), work.sampler) for each in velocities],
    }


def relative(found: Tensor, true: Tensor) -> float:
    """Return the root mean square of what is wrong over that of what is true."""
    return float((found.double() - true.double()).norm() / true.double().norm())


def errors(backend: TorchBackend, truth: TorchBackend, seed: int) -> dict[str, float]:
    """Return the mean error of each result by name."""
    found, true = (results(each, seed) for each in (backend, truth))
    return {name: sum(map(relative, found[name], true[name])) / len(true[name]) for name in true}


def table(record: dict[str, Any]) -> str:
    """Return a record as Markdown."""
    rounds: Rounds = record['rounds']
    rows = ratio_rows(rounds)
    for name, value in record['errors'].items():
        rows.append(f'| error of {name} | 0 | {100 * value:.2g} % | |')
    below = f'`python -m bench.number_types`; {record["model"]}; torch on cpu; {record["threads"]} threads, '
    return '\n'.join([*rows, '', f'{below}{record["count"]} rounds; {record["machine"]}; {record["date"]}'])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument('--checkpoint', type=Path, metavar='DIR')
    model.add_argument('--random', choices=tuple(SIZES), default='mid', help='a model with random weights')
    parser.add_argument('--threads', type=int)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seed', type=int, default=0)
    add_record_options(parser, 'runs/number_types.json')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            fill_from(given.table, given.out, MARK, table)
            return
        if given.rounds < 1:
            raise ValueError(f'{given.rounds} rounds: expected 1 or more')
        record = plain(_measure(given))
        keep_record(given.out, record)
        sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    threads = set_threads(given.threads)
    backends = {name: _load(given, name) for name in TYPES}
    truth = backends[TYPES[0]]
    return {
        'model': str(given.checkpoint or f'random {given.random}'),
        'errors': errors(backends[TYPES[1]], truth, given.seed),
        'rounds': compare(backends, given.rounds, given.seed),
        'count': given.rounds,
        'threads': threads,
        'seed': given.seed,
        **describe_machine(),
    }


def _load(given: argparse.Namespace, dtype: str) -> TorchBackend:
    if given.checkpoint is not None:
        return TorchBackend.load(given.checkpoint, 'cpu', getattr(torch, dtype))
    backend = random_backend(given.random, given.seed, 'cpu', dtype)
    backend.prepare()
    return backend


if __name__ == '__main__':
    main()
