"""Measure the throughput of training: scenes and tokens a second, and the share of the machine's matrix rate.

    python -m bench.training --config training/configs/nano/continue.yaml [--steps 10]
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m bench.training --config ...
    python -m bench.training --out runs/training.json --table docs/training.md

Trains stage 2a for some steps on scenes rendered for this, and throws the weights away. The matrix rate is that of one
large bfloat16 product, measured in all processes at the same time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import broadcast_object_list
from torch.utils.flop_counter import FlopCounterMode

from bench.tables import add_record_options, fill_from, keep_record
from cooper_cli.machine import describe_machine
from cooper_sim.dataset import write_dataset
from training.compiled import compile_layers
from training.curves import Parts
from training.evaluation import HELD_OUT
from training.loop import Run, batch_rng
from training.processes import start_processes
from training.settings import read_settings
from training.sft import Settings, Sft
from training.start import prepare

MARK = 'training'
SCENES = 64
WARM_UP = 4
PRODUCT = 1536  # side of the matrices whose product is timed
FIGURES = {
    'tokens_per_s': ('tokens a second', 'tokens/s'),
    'scenes_per_s': ('scenes a second', 'scenes/s'),
    'step_s': ('a step', 's'),
    'gflop_per_token': ('arithmetic of a token, forward and backward', 'GFLOP'),
    'tflop_per_s': ('arithmetic done', 'TFLOP/s'),
    'matrix_tflop_per_s': (f'the same of bfloat16 matrices of {PRODUCT:,}', 'TFLOP/s'),
}


def matrix_rate(device: torch.device, seconds: float = 2.0) -> float:
    """Return multiply-adds of bfloat16 matrices, times two, a second."""
    a, b = (torch.randn(PRODUCT, PRODUCT, device=device, dtype=torch.bfloat16) for _ in range(2))
    times = []
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times) < 3:
        start = time.perf_counter()
        (a @ b).sum().item()
        times.append(time.perf_counter() - start)
    return 2 * PRODUCT**3 / statistics.median(times)


def measure(settings: Settings, steps: int, folder: Path) -> dict[str, object]:
    """Return the figures of a stage 2a config; every process must call this with one and the same folder."""
    accelerator = start_processes()
    settings = replace(
        settings,
        scenes=str(folder / 'scenes'),
        latents=str(folder / 'latents.npy'),
        limit=SCENES,
        out=str(folder / 'run'),
        loop=replace(settings.loop, steps=WARM_UP + steps, warmup=1, decay=0, save_every=10**6, evaluate_every=10**6),
    )
    if accelerator.is_main_process:
        write_dataset(settings.scenes, SCENES + HELD_OUT, first_seed=0, workers=1)
        prepare(settings)  # writes the latents
    accelerator.wait_for_everyone()
    start = prepare(settings)
    stage = Sft(start.model, start.scenes, start.latents, start.folder)
    data = settings.stage

    def loss(step: int, rng: np.random.Generator) -> Parts:
        return stage.loss(rng.integers(0, SCENES, data.batch), data, rng)

    with FlopCounterMode(display=False) as counter, torch.autocast(accelerator.device.type, torch.bfloat16):
        parts = loss(0, batch_rng(settings.loop.seed, 0))
        parts['total'].backward()
    per_token = counter.get_total_flops() / float(parts['tokens'])
    run = Run(start.model, settings.loop, settings.out, settings.start)
    if settings.compile:
        compile_layers(start.model)
    began: list[float] = []
    counts: list[tuple[float, int]] = []

    def counted(step: int, rng: np.random.Generator) -> Parts:
        found = loss(step, rng)
        counts.append((float(found['tokens']), int(found['scenes'])))
        return found

    run.train(counted, prepare=lambda step: began.append(time.perf_counter()))
    elapsed = began[-1] - began[WARM_UP]
    tokens, scenes = (sum(values) for values in zip(*counts[WARM_UP : len(began) - 1], strict=True))
    own = torch.tensor([tokens / elapsed, scenes / elapsed, matrix_rate(accelerator.device)])
    tokens_s, scenes_s, peak = accelerator.reduce(own.to(accelerator.device), 'sum').tolist()
    return {
        'tokens_per_s': tokens_s,
        'scenes_per_s': scenes_s,
        'step_s': statistics.median(np.diff(began[WARM_UP:]).tolist()),
        'gflop_per_token': per_token / 1e9,
        'tflop_per_s': tokens_s * per_token / 1e12,
        'matrix_tflop_per_s': peak / 1e12,
        'share_of_peak': tokens_s * per_token / peak,
        'processes': accelerator.num_processes,
        'device': str(accelerator.device),
    }


def table(record: Mapping[str, Any]) -> str:
    """Return a record as Markdown."""
    rows = ['| figure | value |', '|---|---|']
    rows += [f'| {said} | {record[name]:,.4g} {unit} |' for name, (said, unit) in FIGURES.items()]
    rows.append(f'| share of that | {100 * record["share_of_peak"]:.0f} % |')
    where = f'{record["processes"]} processes on {record["device"]}; {record["machine"]}; {record["date"]}'
    return '\n'.join([*rows, '', f'`{record["command"]}`; {where}'])


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', type=Path)
    parser.add_argument('--steps', type=int, default=10)
    add_record_options(parser, 'runs/training.json')
    given = parser.parse_args(arguments)
    try:
        if given.table:
            fill_from(given.table, given.out, MARK, table)
            return
        if given.config is None:
            raise ValueError('--config is needed: which training to measure')
        settings = read_settings(given.config, Settings)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    accelerator = start_processes()
    folder = [tempfile.mkdtemp(prefix='cooper_training_')]
    if accelerator.num_processes > 1:
        folder = broadcast_object_list(folder)
    found = measure(settings, given.steps, Path(folder[0]))
    if not accelerator.is_main_process:
        return
    record = {'command': f'bench.training --config {given.config}', **found, **describe_machine()}
    keep_record(given.out, record)
    print(table(record))


if __name__ == '__main__':
    main()
