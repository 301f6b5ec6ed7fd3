"""Measure decoding as stage 2b does it: tokens a second of one text at a time, and of many together.

    python -m bench.rollouts [--checkpoint DIR] [--rows 1 8 32 128] [--tokens 32] [--out FILE]

All rows go on from one picture and question, and sample at a high temperature, so that hardly any ends early. Prints a
JSON line for each number of rows. Time is that of the processor on a CPU, so that other work there matters less.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np

from cooper_cli.machine import describe_machine
from cooper_model.backends.decoding import TextToDecode
from cooper_model.backends.torch import TorchBackend
from cooper_model.context import Context
from cooper_model.loading import default_checkpoint

QUESTION = 20  # tokens
TEMPERATURE = 5.0
SIZE = (96, 128)


def asked(backend: TorchBackend) -> Context:
    """Return the context of a question about a picture of noise."""
    random = np.random.default_rng(0)
    context = backend.new_context()
    backend.append_image(context, random.integers(0, 256, (*SIZE, 3), np.uint8), latents=True, vision=True)
    backend.append_text(context, random.integers(10, 200, QUESTION).tolist())
    return context


def tokens_per_second(backend: TorchBackend, rows: int, tokens: int) -> float:
    """Return the rate of decoding ``rows`` texts of up to ``tokens`` tokens; one alone goes the way of the reasoner."""
    base = asked(backend)
    contexts = [backend.fork(base) for _ in range(rows)]
    clock = time.process_time if backend.model.device.type == 'cpu' else time.perf_counter
    start = clock()
    if rows == 1:
        done = sum(1 for _ in backend.decode(contexts[0], max_tokens=tokens, temperature=TEMPERATURE))
    else:
        texts = [TextToDecode(context, seed=row) for row, context in enumerate(contexts)]
        found = backend.decode_batch(texts, max_tokens=tokens, temperature=TEMPERATURE)
        done = sum(len(text.tokens) for text in found)
    return done / (clock() - start)


def main() -> None:
    """Measure what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', type=Path, default=default_checkpoint())
    parser.add_argument('--rows', type=int, nargs='+', default=[1, 8, 32, 128])
    parser.add_argument('--tokens', type=int, default=32)
    parser.add_argument('--out', type=Path, help='append the lines to this file as well')
    options = parser.parse_args()
    backend = TorchBackend.load(options.checkpoint)
    tokens_per_second(backend, 2, 2)
    for rows in options.rows:
        rate = tokens_per_second(backend, rows, options.tokens)
        line = json.dumps({'name': 'rollouts', 'rows': rows, 'tokens_per_s': round(rate, 1), **describe_machine()})
        print(line, flush=True)
        if options.out is not None:
            with options.out.open('a', encoding='utf-8') as file:
                file.write(line + '\n')


if __name__ == '__main__':
    main()
