"""Measure one model that works on several conversations at once, against one after the other.

    python -m bench.together [--checkpoint DIR | --random mid] [--seats 1 2 4 8] [--rounds 3] [--threads 2] [--out FILE]
    python -m bench.together --table docs/fleet.md [--out FILE]

Two workloads, each as many times as the largest number of seats: 32 tokens after a picture and a question, and a
picture of the model's size in four steps, with the sampler's guidance branches. Numbers of seats take turns,
so that a noisy machine is noisy for all; a ratio is the median over rounds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.tables import add_record_options, fill_from, keep_record
from cooper_cli.machine import describe_machine
from cooper_cli.random_model import SIZES, random_backend
from cooper_cli.session import set_threads
from cooper_model.backends.base import Backend, Guidance
from cooper_model.backends.torch import TorchBackend

MARK = 'together'
TOKENS, QUESTION = 32, 20
POINTS = 5  # of the sampler's time axis, so four steps
TEMPERATURE = 5.0  # so high that hardly any text ends early
Seat = Backend[Any]


def decode(seat: Seat, seed: int) -> int:
    """Show a picture, ask, and decode; return how many tokens came."""
    context = _asked(seat, seed)
    return sum(1 for _ in seat.decode(context, max_tokens=TOKENS, temperature=TEMPERATURE, seed=seed))


def draw(seat: Seat, seed: int) -> int:
    """Show a picture, ask, and generate one; return 1."""
    full = _asked(seat, seed)
    height = width = seat.config.vae_transform.max_size
    guidance = Guidance(full, seat.fork(full), seat.fork(full))
    sampler = replace(seat.config.sampler, num_timesteps=POINTS)
    for _ in seat.generate(guidance, height, width, sampler, seat.noise(height, width, seed)):
        pass
    return 1


WORK: dict[str, Callable[[Seat, int], int]] = {'tokens_per_s': decode, 'images_per_s': draw}


def _asked(seat: Seat, seed: int) -> Any:
    random = np.random.default_rng(seed)
    side = seat.config.vae_transform.max_size
    context = seat.new_context()
    seat.append_image(context, random.integers(0, 256, (side, side, 3), np.uint8), latents=True, vision=True)
    seat.append_text(context, random.integers(10, 200, QUESTION).tolist())
    return context


def rate(seats: Sequence[Seat], work: Callable[[Seat, int], int], count: int) -> float:
    """Return what ``count`` times the work yields a second, with each seat in a thread of its own."""

    def sit(place: int) -> int:
        with seats[place].at_work():
            return sum(work(seats[place], number) for number in range(place, count, len(seats)))

    with ThreadPoolExecutor(len(seats)) as threads:
        start = time.perf_counter()
        done = sum(threads.map(sit, range(len(seats))))
        return done / (time.perf_counter() - start)


def measure(backend: Backend[Any], seats: Sequence[int], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Return rates by workload, then by number of seats, one a round."""
    seated = {count: backend.seats(count) for count in seats}
    most, found = max(seats), {}
    for name, work in WORK.items():
        run = {count: partial(rate, places, work, most) for count, places in seated.items()}
        rate(seated[most], work, most)  # memory and kernels are there before anything counts
        turns = [{count: each() for count, each in run.items()} for _ in range(rounds)]
        found[name] = {str(count): [turn[count] for turn in turns] for count in seats}
    return found


def table(record: Mapping[str, Any]) -> str:
    """Return a record as Markdown."""
    heads = ['at once', *(f'{name.removesuffix("_per_s")} a second' for name in record['rates'])]
    first = next(iter(next(iter(record['rates'].values()))))
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for count in next(iter(record['rates'].values())):
        cells = [count]
        for by_count in record['rates'].values():
            gain = statistics.median(a / b for a, b in zip(by_count[count], by_count[first], strict=True))
            cells.append(f'{statistics.median(by_count[count]):.3g} ({gain:.2f}x)')
        rows.append(f'| {" | ".join(cells)} |')
    how = f'{record["device"]} in {record["dtype"]}, {record["threads"]} threads, {record["rounds"]} rounds'
    below = f'`python -m bench.together`; {record["model"]}; {how}; {record["machine"]}; {record["date"]}'
    return '\n'.join([*rows, '', below])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    model = parser.add_mutually_exclusive_group()
    model.add_argument('--checkpoint', type=Path, metavar='DIR')
    model.add_argument('--random', choices=tuple(SIZES), default='mid', help='a model with random weights')
    parser.add_argument('--device')
    parser.add_argument('--threads', type=int)
    parser.add_argument('--seats', type=int, nargs='+', default=[1, 2, 4, 8])
    parser.add_argument('--rounds', type=int, default=3)
    add_record_options(parser, 'runs/together.json')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            fill_from(given.table, given.out, MARK, table)
            return
        if given.rounds < 1 or min(given.seats) < 1:
            raise ValueError(f'{given.rounds} rounds of {given.seats} seats: expected 1 or more')
        record = _measure(given)
        keep_record(given.out, record)
        sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    threads = set_threads(given.threads)
    if given.checkpoint is None:
        backend = random_backend(given.random, 0, given.device)
    else:
        backend = TorchBackend.load(given.checkpoint, device=given.device)
    return {
        'model': str(given.checkpoint or f'random {given.random}'),
        'device': str(backend.model.device),
        'dtype': str(backend.model.dtype).removeprefix('torch.'),
        'threads': threads,
        'rounds': given.rounds,
        'rates': measure(backend, given.seats, given.rounds),
        **describe_machine(),
    }


if __name__ == '__main__':
    main()
