"""Stage 2a on reasoning that is written out in files, as the released traces are.

``python -m training.sft_traces --config training/configs/7b/sft.yaml``. The loss falls on the texts that the file says
are the model's; maps in a trace are read, not drawn. Traces from simulation truth are :mod:`training.sft`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from cooper_model.network.model import Cooper
from cooper_model.packing import PackedImages, pack, packed_forward
from training.curves import Parts
from training.datasets.base import DataEntry
from training.datasets.interleaved import Conversation, InterleavedTraces
from training.datasets.registry import open_traces
from training.datasets.report import LeftOut
from training.latents import Encoder, as_pixels
from training.loop import LoopConfig, Run
from training.losses import text_loss
from training.processes import start_processes
from training.settings import config_argument, program, read_settings
from training.start import model_input, prepare_model

PADDING = 32
_TRIES = 100


@dataclass(frozen=True)
class TracesConfig:
    """What is trained on.

    :param batch: traces of each batch
    :param max_tokens: longer traces are reported and left out; None for no limit
    """

    batch: int
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f'stage: batch is {self.batch}, expected 1 or more')


@dataclass(frozen=True)
class Settings:
    """A run of stage 2a on traces from files.

    :param architecture: folder with configuration, tokenizer and prompts
    :param autoencoder, start: folders of a run or a checkpoint
    """

    architecture: Path
    autoencoder: Path
    start: Path
    out: Path
    data: DataEntry
    stage: TracesConfig
    loop: LoopConfig


class Traces:
    """Builds batches of traces and their loss.

    :param trained: how many traces, from the first, are drawn from
    """

    def __init__(self, model: Cooper, encoder: Encoder, traces: InterleavedTraces, trained: int) -> None:
        self.model, self.encoder, self.traces, self.trained = model, encoder, traces, trained

    def loss(self, numbers: Sequence[int], rng: np.random.Generator) -> Parts:
        """Return the loss on traces; one that cannot be read is reported and another one drawn."""
        sequences, vision, pictures, grids = [], [], [], []
        for number in numbers:
            made = self._read(number, len(vision), len(pictures), rng)
            sequences.append(made.segments)
            grids += [segment.grid for segment in made.segments if segment.kind == 'latents']
            vision += made.vision
            pictures += made.latents
        device = self.model.device
        batch = pack(sequences, self.model.config, PADDING)
        latents = [rows.to(device) for rows in self.encoder.encode(pictures)]
        pixels = [as_pixels(picture).to(device) for picture in vision]
        images = PackedImages(pixels, latents, [0.0] * len(latents), grids)
        output = packed_forward(self.model, batch, images)
        total = text_loss(self.model, output.understanding, batch.labels.to(device))
        tokens = sum(segment.tokens for sequence in sequences for segment in sequence)
        return {'total': total, 'tokens': tokens, 'scenes': len(sequences)}

    def _read(self, number: int, vision: int, latents: int, rng: np.random.Generator) -> Conversation:
        for _ in range(_TRIES):
            try:
                return self.traces.conversation(number, vision, latents)
            except LeftOut as error:
                self.traces.report.leave_out(self.traces.place(number), error)
                number = int(rng.integers(0, self.trained))
        raise ValueError(f'{_TRIES} traces in a row cannot be read; {self.traces.report.summary()}')

    @torch.no_grad()
    def held_out(self) -> float:
        """Return the mean loss on the traces that are not trained on."""
        rng = np.random.default_rng(0)
        with torch.autocast(self.model.device.type, torch.bfloat16):
            found = [float(self.loss([n], rng)['total']) for n in range(self.trained, len(self.traces))]
        return float(np.mean(found))


@program
def main() -> None:
    """Command line."""
    logging.basicConfig(level=logging.INFO)
    train(read_settings(config_argument(__doc__), Settings))


def train(settings: Settings) -> Run:
    """Run the stage.

    :raises FileNotFoundError, ValueError: a folder is missing or of another model, or no trace can be used
    """
    start = prepare_model(settings.architecture, settings.autoencoder, settings.start, settings.loop.loaded)
    model = start.model
    words = model_input(start.folder, model.config, settings.stage.max_tokens)
    traces = open_traces(settings.data, words)
    encoder = Encoder(start.autoencoder.to(start_processes().device), model.config)
    stage = Traces(model, encoder, traces, settings.data.trained(len(traces)))
    run = Run(model, settings.loop, settings.out, settings.start)

    def loss(step: int, rng: np.random.Generator) -> Parts:
        return stage.loss([int(n) for n in rng.integers(0, stage.trained, settings.stage.batch)], rng)

    def evaluate(step: int) -> Mapping[str, float]:
        return {'text': stage.held_out()}

    run.train(loss, evaluate if settings.data.held_out else None)
    return run


if __name__ == '__main__':
    main()
