"""Latents of pictures: of a whole data set, computed once, or of a batch as it comes. The autoencoder is frozen."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model import transforms
from cooper_model.config import CooperConfig
from training.datasets.base import DataSet, Target
from training.datasets.report import LeftOut

log = logging.getLogger(__name__)
_BATCH = 32
_PATIENCE = 1.0  # seconds between two looks at what another process writes


class LatentCache:
    """Latent tokens of every example's image and pictures, as float16 on disk; for sets of one size.

    Beside it, where some pixels are not valid or some pictures are not there, stands which tokens count.

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
        try:
            self.tokens = np.load(path, mmap_mode='r')
            self.counts = np.load(masks, mmap_mode='r') if masks.is_file() else None
        except (ValueError, EOFError) as error:
            raise ValueError(f'{path} or {masks.name} beside it is damaged ({error}); delete both') from error
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

    def is_known(self, number: int) -> bool:
        """Return whether any token of an example's pictures to generate counts."""
        return self.counts is None or bool(self.counts[number, 1:].any())


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
    kinds = len(data.modalities) + 1
    tokens: np.memmap | None = None
    counts = np.zeros((0, 0, 0), bool)
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        pictures = [picture for number in range(start, stop) for picture in _pictures(data, number, encoder.stride)]
        rows = encoder.encode([picture.pixels for picture in pictures])
        if tokens is None and rows:
            tokens = np.lib.format.open_memmap(unfinished, 'w+', np.float16, (count, kinds, *rows[0].shape))
            counts = np.zeros(tokens.shape[:3], bool)
        for picture, row in zip(pictures, rows, strict=True):
            if row.shape != tokens.shape[2:]:
                raise ValueError(f'{data.name}: pictures differ in size, so no latents can be kept; drop latents')
            tokens[picture.number, picture.column] = row.cpu().numpy()
            counts[picture.number, picture.column] = True if picture.counted is None else picture.counted.numpy()
        if start % (64 * _BATCH) == 0:
            log.info('latents of %d of %d examples', stop, count)
    if tokens is None:
        raise ValueError(f'{data.name}: no example can be read; {data.report.summary()}')
    tokens.flush()
    masks.unlink(missing_ok=True)  # of an earlier cache of this name
    if not counts.all():
        np.save(masks, counts)
    unfinished.rename(path)


class _Picture(NamedTuple):
    """A picture on its way into a cache: whose it is, and which of its tokens count."""

    number: int
    column: int
    pixels: np.ndarray
    counted: Tensor | None = None


def _pictures(data: DataSet, number: int, stride: int) -> list[_Picture]:
    """Return the pictures of an example; none, and a report, where it cannot be read."""
    try:
        example = data.example(number)
    except LeftOut as error:
        data.report.leave_out(data.place(number), error)
        return []
    found = [_Picture(number, 0, example.image)]
    for kind, target in example.targets.items():
        column = data.modalities.index(kind) + 1
        found.append(_Picture(number, column, target.picture, counted_tokens(target, stride)))
    return found
