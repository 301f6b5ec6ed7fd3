"""How much memory a run takes on each GPU, worked out from the sizes of a model on the meta device.

``python -m training.memory --config training/configs/7b/stage1.yaml --processes 8 --tokens 10240``. Where the folder of
the architecture is not there, sizes are the published ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cooper_model.config import CooperConfig, DecoderConfig
from cooper_model.network.autoencoder import build_autoencoder
from cooper_model.network.model import Cooper
from training.config import LoopConfig
from training.lora import add_adapters
from training.settings import program, read_settings
from training.sharding import split_layers

GB = 1e9
HALF, FULL = 2, 4  # bytes of a number


@dataclass(frozen=True)
class Work:
    """What one process computes at once.

    :param tokens: of the packed batch
    :param learned: how many of them have a label
    :param rows: sequences that the tokens are packed in
    :param cached: tokens in the caches of all contexts, while it samples; 0 where it is only evaluated now and then
    """

    tokens: int
    learned: int = 0
    rows: int = 1
    cached: int = 0


def worked_out(config: CooperConfig, loop: LoopConfig, processes: int, work: Work) -> dict[str, int]:
    """Return bytes a GPU by what they are for, and their sum while training and while evaluating or sampling.

    Runtime, buffers of communication and fragments come on top.
    """
    with torch.device('meta'):
        model, autoencoder = Cooper(config), build_autoencoder(config.autoencoder)
        for name in loop.freeze:
            model.get_submodule(name).requires_grad_(False)
        if loop.lora:
            add_adapters(model, loop.lora)
    parts = processes if loop.shard else 1
    trained, frozen = _count(model.parameters(), True), _count(model.parameters(), False)
    stored = HALF if loop.loaded == torch.bfloat16 else FULL
    kept = {
        'weights': (FULL * trained + stored * frozen) // parts,
        'optimiser': 2 * FULL * trained // parts,
        'average': FULL * trained // parts,
        'autoencoder': FULL * _count(autoencoder.parameters(), True),
    }
    training = {
        'gradients': FULL * trained // parts,
        'gathered': _gathered(model) if parts > 1 else 0,
        'activations': _activations(config.decoder, loop, work),
        'labels': work.learned * config.decoder.vocab_size * (HALF + 2 * FULL),
    }
    decoder = config.decoder
    sampling = {
        # The weights as they were are kept aside while the average stands in for them.
        'set aside': 0 if work.cached else FULL * trained // parts,
        'whole weights': HALF * (trained + frozen) if parts > 1 else 0,
        'caches': HALF * 2 * decoder.num_layers * decoder.num_kv_heads * decoder.head_dim * work.cached,
    }
    return {
        **kept,
        **training,
        'sum while training': sum(kept.values()) + sum(training.values()),
        **sampling,
        'sum while sampling': sum(kept.values()) + sum(sampling.values()),
    }


def _count(parameters: Iterable[nn.Parameter], trained: bool) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad == trained)


def _gathered(model: nn.Module) -> int:
    """Return bytes of weights that are whole at the worst moment.

    That is all but the decoder's layers, with its gradient, and of layers the running one, the next one, and the
    gradient of the running one, which is shared in float32.
    """
    layers = split_layers(model)
    below = {id(p) for layer in layers for p in layer.parameters()}
    rest = [p for p in model.parameters() if id(p) not in below]
    root = HALF * (_count(rest, True) + _count(rest, False)) + HALF * _count(rest, True)
    largest = max(layers, key=lambda layer: sum(p.numel() for p in layer.parameters()))
    whole = _count(largest.parameters(), True) + _count(largest.parameters(), False)
    return root + 2 * HALF * whole + (HALF + FULL) * _count(largest.parameters(), True)


def _activations(config: DecoderConfig, loop: LoopConfig, work: Work) -> int:
    """Return bytes that the backward pass of the decoder needs; of the mask, one fused attention at a time."""
    entering = HALF * config.hidden_size * work.tokens * config.num_layers
    inside = layer_bytes(config) * work.tokens
    mask = (1 + HALF) * work.tokens**2 // work.rows
    if loop.checkpoint_layers:
        # Of one layer at a time, with gradients of about the same size.
        return entering + 2 * inside + mask
    return inside * (config.num_layers + 1) + mask


def layer_bytes(config: DecoderConfig) -> int:
    """Return bytes a token that one layer keeps for its backward pass in bfloat16, attention fused."""
    return 30 * config.hidden_size + 6 * config.num_kv_heads * config.head_dim + 8 * config.intermediate_size


@program
def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--config', required=True, type=Path)
    parser.add_argument('--processes', type=int, default=1)
    parser.add_argument('--tokens', type=int, default=10240)
    parser.add_argument('--learned', type=int, default=0)
    parser.add_argument('--rows', type=int, default=1)
    parser.add_argument('--cached', type=int, default=0)
    arguments = parser.parse_args()
    named = read_settings(arguments.config, Planned, partly=True)
    config = CooperConfig.load(named.architecture) if named.architecture.is_dir() else CooperConfig()
    work = Work(arguments.tokens, arguments.learned, arguments.rows, arguments.cached)
    found = worked_out(config, named.loop, arguments.processes, work)
    for name, size in found.items():
        print(f'{name:18} {size / GB:7.1f} GB')


@dataclass(frozen=True)
class Planned:
    """What memory depends on, of the settings of any stage."""

    architecture: Path
    loop: LoopConfig


if __name__ == '__main__':
    main()
