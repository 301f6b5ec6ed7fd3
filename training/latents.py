"""Latents of pictures: of a whole data set, computed once, or of a batch as it comes. The autoencoder is frozen."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model import transforms
from cooper_model.config import CooperConfig
from training.datasets.base import DataSet, Example, Target

log = logging.getLogger(__name__)
_BATCH = 32
_PATIENCE = 1.0  # seconds between two looks at what another process writes


class LatentCache:
    """Latent tokens of every example's image and pictures, as float16 on disk; for sets of one size.

    Beside it, where some pixels are not valid, stands which tokens count.

    :param path: file of the cache, written when absent, by the first process alone
    :param data: not mirrored or otherwise varied
    :param count: how many examples, from the first, are kept
    :raises ValueError: the file belongs to another number of examples, or sizes differ
    """

    def __init__(self, path: str | Path, data: DataSet, autoencoder: nn.Module, count: int) -> None:
        path = Path(path)
        self.kinds = ('image', *data.modalities)
        masks = path.with_name(f'{path.stem}_counted.npy')
        if not path.is_file() and int(os.environ.get('RANK', '0')) == 0:
            _write(path, masks, data, Encoder(autoencoder, data.config), count)
        while not path.is_file():
            time.sleep(_PATIENCE)
        self.tokens = np.load(path, mmap_mode='r')
        self.counts = np.load(masks, mmap_mode='r') if masks.is_file() else None
        if self.tokens.shape[:2] != (count, len(self.kinds)):
            raise ValueError(
                f'{path} holds {self.tokens.shape[1]} pictures of {len(self.tokens)} examples, '
                f'not {len(self.kinds)} of {count}; delete it'
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def get(self, numbers: np.ndarray, kind: str) -> Tensor:
        """Return ``(examples, tokens, latent_dim)`` float32 of one kind."""
        return torch.from_numpy(self.tokens[numbers, self.kinds.index(kind)].astype(np.float32))

    def counted(self, number: int, kind: str) -> Tensor | None:
        """Return ``(tokens,)`` bool, which tokens of one picture count in the loss; None for all."""
        if self.counts is None:
            return None
        return torch.from_numpy(np.array(self.counts[number, self.kinds.index(kind)]))


class Encoder:
    """A frozen autoencoder that turns pictures of any sizes into latent tokens."""

    def __init__(self, autoencoder: nn.Module, config: CooperConfig) -> None:
        self.autoencoder, self.patch = autoencoder, config.latent_patch_size
        self.stride = config.latent_stride

    @torch.no_grad()
    def encode(self, pictures: Sequence[np.ndarray]) -> list[Tensor]:
        """Return ``(tokens, latent_dim)`` float32 of each picture, on the autoencoder's device.

        :param pictures: ``(height, width, 3)``, uint8 or float32 in 0..1; those of one size are encoded together
        """
        found: list[Tensor] = [torch.empty(0)] * len(pictures)
        device = next(self.autoencoder.parameters()).device
        for shape in {picture.shape for picture in pictures}:
            numbers = [n for n, picture in enumerate(pictures) if picture.shape == shape]
            pixels = torch.stack([as_pixels(pictures[n]) for n in numbers]).to(device)
            with torch.autocast(device.type, torch.bfloat16):
                latents = self.autoencoder.encode(pixels)
            rows = transforms.latent_tokens(latents.float(), self.patch)
            for n, tokens in zip(numbers, rows, strict=True):
                found[n] = tokens
        return found


def as_pixels(picture: np.ndarray) -> Tensor:
    """Return a picture ``(height, width, 3)``, uint8 or float32 in 0..1, as ``(3, height, width)`` in -1..1."""
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return pixels.float() / 127.5 - 1 if picture.dtype == np.uint8 else pixels * 2 - 1


def counted_tokens(target: Target, stride: int) -> Tensor | None:
    """Return ``(tokens,)`` bool, which latent tokens of a target count in the loss; None for all.

    A token stands for ``stride`` x ``stride`` pixels and counts where at least ``target.share`` of them are valid.
    """
    if target.valid is None:
        return None
    height, width = target.valid.shape
    cells = target.valid.reshape(height // stride, stride, width // stride, stride)
    return torch.from_numpy(cells.mean((1, 3)) >= target.share).flatten()


def _write(path: Path, masks: Path, data: DataSet, encoder: Encoder, count: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix('.part')
    kinds = ('image', *data.modalities)
    tokens: np.memmap | None = None
    counts: np.ndarray | None = None
    for start in range(0, count, _BATCH):
        examples = [data.example(n) for n in range(start, min(start + _BATCH, count))]
        rows = encoder.encode([p for example in examples for p in _pictures(example, data)])
        if tokens is None:
            shape = (count, len(kinds), *rows[0].shape)
            tokens = np.lib.format.open_memmap(unfinished, 'w+', np.float16, shape)
            counts = np.ones(shape[:3], bool)
        for n, row in enumerate(rows):
            if row.shape != tokens.shape[2:]:
                raise ValueError(f'{data.name}: pictures differ in size, so no latents can be kept; drop latents')
            tokens[start + n // len(kinds), n % len(kinds)] = row.cpu().numpy()
        for n, example in enumerate(examples, start):
            for column, kind in enumerate(data.modalities, start=1):
                mask = counted_tokens(example.targets[kind], encoder.stride)
                counts[n, column] = True if mask is None else mask.numpy()
        if start % (64 * _BATCH) == 0:
            log.info('latents of %d of %d examples', start + len(examples), count)
    assert tokens is not None and counts is not None
    tokens.flush()
    if not counts.all():
        np.save(masks, counts)
    unfinished.rename(path)


def _pictures(example: Example, data: DataSet) -> list[np.ndarray]:
    return [example.image, *(example.targets[kind].picture for kind in data.modalities)]
