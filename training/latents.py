"""Latents of a whole data set, computed once: the autoencoder is frozen, so no step need encode a picture again."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from cooper_model import transforms
from cooper_model.config import CooperConfig
from training.data import SimulatedScenes

log = logging.getLogger(__name__)
KINDS = ('image', 'depth', 'segmentation')
_BATCH = 32


class LatentCache:
    """Latent tokens of every scene's image, depth and segmentation, as float16 on disk.

    :param path: file of the cache, written when absent
    :param count: how many scenes, from the first, are kept
    :raises ValueError: the file belongs to another number of scenes
    """

    def __init__(self, path: str | Path, scenes: SimulatedScenes, autoencoder: nn.Module, count: int) -> None:
        path = Path(path)
        if not path.is_file():
            _write(path, scenes, autoencoder, count)
        self.tokens = np.load(path, mmap_mode='r')
        if len(self.tokens) != count:
            raise ValueError(f'{path} holds {len(self.tokens)} scenes, not {count}; delete it')

    def __len__(self) -> int:
        return len(self.tokens)

    def get(self, numbers: np.ndarray, kind: str) -> Tensor:
        """Return ``(scenes, tokens, latent_dim)`` float32 of one kind."""
        return torch.from_numpy(self.tokens[numbers, KINDS.index(kind)].astype(np.float32))


@torch.inference_mode()
def _write(path: Path, scenes: SimulatedScenes, autoencoder: nn.Module, count: int) -> None:
    config: CooperConfig = scenes.config
    height, width = scenes.records[0].ids.shape
    tokens = (height // config.latent_stride) * (width // config.latent_stride)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix('.part')
    shape = (count, len(KINDS), tokens, config.latent_dim)
    found = np.lib.format.open_memmap(unfinished, 'w+', np.float16, shape)
    for start in range(0, count, _BATCH):
        stop = min(start + _BATCH, count)
        pictures = [scenes.pictures(n) for n in range(start, stop)]
        stacked = np.stack([getattr(p, kind) for p in pictures for kind in KINDS])
        pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1
        with torch.autocast('cpu', torch.bfloat16):
            latents = autoencoder.encode(pixels)
        rows = transforms.latent_tokens(latents.float(), config.latent_patch_size).numpy()
        found[start:stop] = rows.reshape(stop - start, len(KINDS), tokens, -1)
        if start % (64 * _BATCH) == 0:
            log.info('latents of %d of %d scenes', stop, count)
    found.flush()
    unfinished.rename(path)
