"""Real runs of a tiny model, alone or under torchrun: ``python -m tests.training.tiny_run '[{"out": ...}, ...]'``."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cooper_model.network.model import Cooper
from cooper_model.packing import PackedImages, Segment, pack, packed_forward
from tests.random_checkpoint import tiny_config
from training.config import LoopConfig
from training.loop import Run
from training.losses import flow_loss, mix, text_loss
from training.segments import model_text, user_text

ROOT = Path(__file__).parents[2]
GRID = (3, 4)
SETTINGS = {'steps': 4, 'learning_rate': 1e-2, 'warmup': 2, 'log_every': 1, 'save_every': 2, 'bf16': False}


def loss_of(model: Cooper, rng: np.random.Generator, uneven: bool) -> dict[str, Tensor | float]:
    """Return the loss of one sample.

    If ``uneven``, half of the samples touch neither output layer nor maps, and show pictures of two sizes.
    """
    config = model.config
    short = uneven and rng.random() < 0.5
    ids = [int(n) for n in rng.integers(10, 400, 5)]
    segments = [
        Segment('latents', (), image=0, grid=GRID),
        Segment('vision', (0,), image=0, grid=GRID),
        user_text(ids[:2], (0, 1), config.tokens),
        model_text(ids[2:], (0, 1, 2), config.tokens),
        Segment('noise', (0, 1, 2), image=1, grid=GRID),
    ]
    if short:
        segments = [*segments[:3], Segment('vision', (0, 1, 2), image=1, grid=(2, 3))]
    batch = pack([segments], config)
    clean, noise = torch.from_numpy(rng.standard_normal((2, 1, 12, config.latent_dim), dtype=np.float32))
    noisy = mix(clean, noise, torch.tensor([0.5]))
    pixels = list(torch.from_numpy(rng.standard_normal((1, 3, 48, 64), dtype=np.float32)))
    if short:
        pixels.append(torch.from_numpy(rng.standard_normal((3, 32, 48), dtype=np.float32)))
    count = 1 if short else 2
    images = PackedImages(pixels, [clean[0], noisy[0]][:count], [0.0, 0.5][:count], [GRID] * count)
    output = packed_forward(model, batch, images)
    if short:
        return {'total': output.understanding.square().mean(), 'tokens': 10.0}
    parts = {
        'text': text_loss(model, output.understanding, batch.labels),
        'depth': flow_loss(output.velocities, clean, noise),
    }
    return {'total': parts['text'] + parts['depth'], **parts, 'tokens': 20.0}


def main(
    out: str, settings: Mapping | None = None, uneven: bool = False, evaluate: bool = False, stop: int = -1
) -> None:
    """Train; ``stop`` is a step before which every process kills itself."""
    torch.manual_seed(7)
    config = LoopConfig(**{**SETTINGS, **(settings or {})})
    model = Cooper(tiny_config()).to(config.loaded)
    run = Run(model, config, out)

    def loss(step: int, rng: np.random.Generator) -> dict[str, Tensor | float]:
        if step == stop:
            os.kill(os.getpid(), 9)
        return loss_of(model, rng, uneven)

    def score(step: int) -> dict[str, float]:
        # Outside of the loop's own forward pass, and in the first process alone.
        with torch.no_grad(), torch.autocast('cpu', torch.bfloat16, enabled=config.bf16):
            return {'total': float(loss_of(model, np.random.default_rng(0), False)['total'])}

    run.train(loss, score if evaluate else None)


def start(*runs: Mapping, processes: int = 1, fails: bool = False) -> None:
    """Call :func:`main` for each of several runs in processes of their own."""
    how = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', str(processes)] if processes > 1 else []
    command = [sys.executable, *how, '-m', 'tests.training.tiny_run', json.dumps(runs, default=str)]
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert (done.returncode != 0) == fails, done.stderr


def logged(out: Path, name: str, group: str = 'train') -> list[float]:
    """Return the values of a curve in order of step."""
    lines = (json.loads(line) for line in (out / 'log.jsonl').read_text().splitlines())
    return [line[name] for line in lines if line['group'] == group]


if __name__ == '__main__':
    for arguments in json.loads(sys.argv[1]):
        main(**arguments)
