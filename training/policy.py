"""Log-probabilities of rollouts, in exactly the contexts that they had.

:func:`pack_rollouts` is the one place where a context is rebuilt; the old, the new and the reference policy are all
asked through it. Rollouts of a group share the tokens of their image and question.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from cooper_model import transforms
from cooper_model.config import CooperConfig
from cooper_model.memory import vision_tokens
from cooper_model.network.model import Cooper
from cooper_model.packing import IGNORE, Packed, PackedImages, Segment, pack, packed_forward
from training.segments import model_text, user_text
from training.transcripts import Group, Read, Rollout, Shown, Written

MARKERS = 2  # tokens around a segment
LOGITS_ROWS = 4096


@dataclass(frozen=True)
class Piece:
    """Rollouts of one group that are packed into one row.

    :param numbers: of these rollouts in the batch
    """

    group: Group
    rollouts: Sequence[Rollout]
    numbers: Sequence[int]


@dataclass(frozen=True)
class PackedRollouts:
    """A batch of rollouts ready for :func:`token_logprobs`, with one entry for each token that the model chose.

    :param owner: number of the rollout that each token belongs to, ``(tokens,)``
    :param recorded: log-probability of each token when it was decoded, ``(tokens,)`` float32
    """

    batch: Packed
    images: PackedImages
    owner: Tensor
    recorded: Tensor


@dataclass
class _Row:
    """One row while it is put together; images are counted over the whole batch."""

    config: CooperConfig
    vision: list[Tensor]
    latents: list[Tensor]
    grids: list[tuple[int, int]]
    segments: list[Segment] = field(default_factory=list)

    def add(self, segment: Segment) -> int:
        self.segments.append(segment)
        return len(self.segments) - 1

    def read(self, ids: Sequence[int], sees: tuple[int, ...]) -> int:
        return self.add(user_text(ids, sees, self.config.tokens))

    def show(self, picture: np.ndarray, sees: tuple[int, ...]) -> int:
        pixels = transforms.vision_input(picture, self.config.vae_transform, self.config.vit_transform)
        self.vision.append(torch.from_numpy(pixels))
        patch = self.config.vision.patch_size
        grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
        return self.add(Segment('vision', sees, image=len(self.vision) - 1, grid=grid))

    def begin(self, group: Group) -> tuple[int, ...]:
        """Add what the rollouts of a group share; returns its segments."""
        seen: tuple[int, ...] = ()
        if group.system:
            seen = (self.read(group.system, ()),)
        if group.latents is not None:
            self.latents.append(group.latents)
            self.grids.append(group.grid)
            number = len(self.latents) - 1
            seen = (*seen, self.add(Segment('latents', seen, image=number, grid=group.grid)))
        seen = (*seen, self.show(group.example.image, seen))
        return (*seen, self.read(group.question, seen))

    def follow(self, rollout: Rollout, seen: tuple[int, ...]) -> None:
        """Add a rollout as a branch."""
        for part in rollout.parts:
            if isinstance(part, Shown):
                seen = (*seen, self.show(part.picture, seen))
            elif isinstance(part, Read):
                seen = (*seen, self.read(part.ids, seen))
            else:
                text = model_text(part.ids, seen, self.config.tokens, part.given, part.ended)
                number = self.add(text)
                seen = (*seen, number) if part.kept else seen


def pieces(groups: Sequence[Group], config: CooperConfig, rollouts: int, tokens: int | None = None) -> list[Piece]:
    """Cut groups into pieces of at most ``rollouts``; rollouts are numbered through in order.

    :param tokens: of a piece at most, what its rollouts share included, as long as it holds more than one rollout
    """
    found = []
    start = 0
    for group in groups:
        shared = _shared_tokens(group, config)
        own: list[Rollout] = []
        length = shared
        for rollout in group.rollouts:
            more = _tokens(rollout, config)
            if own and (len(own) == rollouts or (tokens is not None and length + more > tokens)):
                found.append(Piece(group, own, range(start, start + len(own))))
                start, own, length = start + len(own), [], shared
            own.append(rollout)
            length += more
        found.append(Piece(group, own, range(start, start + len(own))))
        start += len(own)
    return found


def _shared_tokens(group: Group, config: CooperConfig) -> int:
    texts = [ids for ids in (group.system, group.question) if ids]
    latents = 0 if group.latents is None else len(group.latents) + MARKERS
    return latents + vision_tokens(config, group.example.image.shape[:2]) + sum(len(ids) + MARKERS for ids in texts)


def _tokens(rollout: Rollout, config: CooperConfig) -> int:
    shown = (vision_tokens(config, part.picture.shape[:2]) for part in rollout.parts if isinstance(part, Shown))
    return sum(shown) + sum(len(part.ids) + MARKERS for part in rollout.parts if not isinstance(part, Shown))


def pack_rollouts(rows: Sequence[Piece], config: CooperConfig) -> PackedRollouts:
    """Lay rollouts out as one padded batch.

    Labels stand on the tokens that the model chose and nowhere else: not on what it was given to begin an answer
    with, nor on an end token that was put behind a complete action.
    """
    vision: list[Tensor] = []
    latents: list[Tensor] = []
    grids: list[tuple[int, int]] = []
    samples, owner, recorded = [], [], []
    for piece in rows:
        row = _Row(config, vision, latents, grids)
        shared = row.begin(piece.group)
        for number, rollout in zip(piece.numbers, piece.rollouts, strict=True):
            row.follow(rollout, shared)
            logprobs = [x for part in rollout.parts if isinstance(part, Written) for x in part.logprobs]
            owner += [number] * len(logprobs)
            recorded += logprobs
        samples.append(row.segments)
    images = PackedImages(vision, latents, [0.0] * len(latents), grids)
    return PackedRollouts(pack(samples, config), images, torch.tensor(owner), torch.tensor(recorded))


def token_logprobs(model: Cooper, rollouts: PackedRollouts, temperature: float) -> Tensor:
    """Return the log-probability of each token that the model chose, ``(tokens,)`` float32.

    :param temperature: that the tokens were drawn at; at 0 the model's own probabilities count
    """
    device = model.device
    images = PackedImages(
        [picture.to(device, model.dtype) for picture in rollouts.images.vision],
        [tokens.to(device, model.dtype) for tokens in rollouts.images.latents],
        rollouts.images.times,
        rollouts.images.grids,
    )
    hidden = packed_forward(model, rollouts.batch, images).understanding
    labels = rollouts.batch.labels.to(device)
    places = labels != IGNORE

    def logprobs(hidden: Tensor, chosen: Tensor) -> Tensor:
        logits = model.logits(hidden)[:, : model.config.usable_vocab].float()
        return -F.cross_entropy(logits / (temperature or 1.0), chosen, reduction='none')

    # A little at a time, and once more in the backward pass: a token has far more logits than hidden numbers.
    parts = zip(hidden[places].split(LOGITS_ROWS), labels[places].split(LOGITS_ROWS), strict=True)
    return torch.cat([checkpoint(logprobs, *part, use_reentrant=False) for part in parts])
