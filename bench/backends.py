"""Compare back ends by the same work, in turns in one process, so that a slow minute of the machine hits all of them.

    python -m bench.backends [--checkpoint DIR | --random mid] [--backends torch onnx] [--rounds 3] [--threads 2]
    python -m bench.backends --out runs/backends.json --table docs/backends.md

The work is that of `cooper bench --checkpoint`: prefill, decoding, the context of an image, generation. In every round
each back end does it once after a warm-up. What counts is the median of the rounds; the ratio is the median of the
ratios within rounds, above 1 where the back end is faster than the first one.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from bench.tables import add_record_options, fill_from, keep_record, unit_of
from cooper_cli.machine import describe_backend, describe_machine, finisher
from cooper_cli.options import BackendName, ModelChoice, NumberType
from cooper_cli.output import note, plain
from cooper_cli.random_model import SIZES, random_backend
from cooper_cli.session import set_threads
from cooper_cli.workloads import Clock, model_figures
from cooper_model.backends.base import Backend
from cooper_model.checkpoint import save_checkpoint
from cooper_model.loading import load_backend

MARK = 'backends'
Rounds = dict[str, dict[str, list[float]]]


def compare(backends: Mapping[str, Backend], rounds: int, seed: int) -> Rounds:
    """Return the figures of every round, by back end and name.

    :raises ValueError: there is nothing to compare, since no token was decoded
    """
    found: Rounds = {name: {} for name in backends}
    for number in range(rounds):
        for name, backend in backends.items():
            note(f'round {number + 1} of {rounds}: {name}')
            for figure, value in model_figures(backend, Clock(1, finisher(backend)), seed=seed).items():
                if value == 0:
                    raise ValueError(f'{figure} of {name} is 0: the model ended its text at once; give another --seed')
                found[name].setdefault(figure, []).append(value)
    return found


def ratio(figure: str, first: Sequence[float], other: Sequence[float]) -> float:
    """Return how many times as fast the other is, by the median of the rounds."""
    pairs = zip(first, other, strict=True)
    return statistics.median(b / a if figure.endswith('_per_s') else a / b for a, b in pairs)


def ratio_rows(rounds: Rounds) -> list[str]:
    """Return the rows of a table of medians, and of ratios to the first."""
    first, *others = rounds
    heads = ['figure', first, *others, *(f'{name} against {first}' for name in others)]
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for figure, values in rounds[first].items():
        medians = [statistics.median(each[figure]) for each in rounds.values()]
        ratios = [f'{ratio(figure, values, rounds[name][figure]):.2f}' for name in others]
        cells = [f'`{figure}`', *(f'{value:.3g} {unit_of(figure)}' for value in medians), *ratios]
        rows.append(f'| {" | ".join(cells)} |')
    return rows


def table(record: Mapping[str, Any]) -> str:
    """Return a record as Markdown."""
    where = '; '.join(f'{name} on {each["device"]} in {each["dtype"]}' for name, each in record['backends'].items())
    how = f'{record["threads"]} threads, {record["count"]} rounds'
    below = f'`python -m bench.backends`; {record["model"]}; {where}; {how}; {record["machine"]}; {record["date"]}'
    return '\n'.join([*ratio_rows(record['rounds']), '', below])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument('--checkpoint', type=Path, metavar='DIR')
    model.add_argument('--random', choices=tuple(SIZES), default='mid', help='a model with random weights')
    parser.add_argument('--backends', nargs='+', choices=('torch', 'onnx', 'tensorrt'), default=['torch', 'onnx'])
    parser.add_argument('--dtype', choices=[each.value for each in NumberType], default='auto')
    parser.add_argument('--device')
    parser.add_argument('--threads', type=int)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--seed', type=int, default=0)
    add_record_options(parser, 'runs/backends.json')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            fill_from(given.table, given.out, MARK, table)
            return
        if given.rounds < 1 or len(set(given.backends)) < max(2, len(given.backends)):
            raise ValueError(f'{given.rounds} rounds of {given.backends}: expected 1 or more, of two or more back ends')
        record = plain(_measure(given))
        keep_record(given.out, record)
        sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    threads = set_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        if given.checkpoint is None:
            os.environ.setdefault('COOPER_CACHE', folder)  # no graphs of a random model are left behind
            built = random_backend(given.random, given.seed, 'cpu')
            save_checkpoint(folder, built.model, built.autoencoder, dtype=torch.float32)
        model = ModelChoice(given.checkpoint or Path(folder), dtype=NumberType(given.dtype), device=given.device)
        choices = {name: replace(model, backend=BackendName(name)) for name in given.backends}
        loaded = {name: load_backend(**asdict(choice.source)) for name, choice in choices.items()}
        rounds = compare(loaded, given.rounds, given.seed)
    return {
        'model': str(given.checkpoint or f'random {given.random}'),
        'rounds': rounds,
        'count': given.rounds,
        'backends': {name: describe_backend(backend, threads) for name, backend in loaded.items()},
        'threads': threads,
        'seed': given.seed,
        **describe_machine(),
    }


if __name__ == '__main__':
    main()
