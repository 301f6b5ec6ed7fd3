"""Put a run's averaged weights into a checkpoint folder: ``python -m training.export --run runs/sft --out DIR``.

Adapters are merged into the weights that they were trained on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from cooper_model.checkpoint import SHARD_BYTES, save_checkpoint
from cooper_model.config import CooperConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from cooper_model.prompts import FILE_NAME as PROMPTS
from cooper_model.tokenizer import FILE_NAME as TOKENIZER
from training.settings import program
from training.start import naming, start_autoencoder, start_model


@program
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--run', required=True)
    parser.add_argument('--autoencoder', default='runs/autoencoder')
    parser.add_argument('--architecture', type=Path, default=Path('training/configs/nano'))
    parser.add_argument('--out', type=Path, required=True)
    parser.add_argument('--dtype', choices=('float16', 'bfloat16', 'float32'), default='float16')
    parser.add_argument('--shard-mb', type=int, default=SHARD_BYTES // 1_000_000, help='most megabytes a file')
    arguments = parser.parse_args()
    most = arguments.shard_mb * 1_000_000
    export_run(arguments.run, arguments.autoencoder, arguments.architecture, arguments.out, arguments.dtype, most)


def export_run(
    run: str | Path,
    autoencoder: str | Path,
    architecture: Path,
    out: Path,
    dtype: str = 'float16',
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the checkpoint of a run.

    :param autoencoder: folder of a run or a checkpoint
    :param architecture: folder with configuration, tokenizer and prompts
    :param dtype: name of the weights' type in torch
    :raises FileNotFoundError, ValueError: a folder is missing, or of another model
    """
    with naming('architecture'):
        config = CooperConfig.load(architecture)
    model, coder = Cooper(config), build_autoencoder(config.autoencoder)
    with naming('run'):
        start_model(run, model)
    with naming('autoencoder'):
        start_autoencoder(autoencoder, coder)
    files = [path for name in (PROMPTS, TOKENIZER) if (path := architecture / name).is_file()]
    save_checkpoint(out, model, coder, dtype=getattr(torch, dtype), files=files, shard_bytes=shard_bytes)


if __name__ == '__main__':
    main()
