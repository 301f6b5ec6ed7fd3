"""The contract between the reasoning loop and whatever computes the model.

A backend owns weights and device. It deals in contexts (what the model has seen so far), token ids, uint8 images and
noise given as numpy arrays, so that one reasoner serves every backend and the same seed gives the same noise on all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from cooper_model import transforms
from cooper_model.config import CooperConfig, SamplerConfig

ContextT = TypeVar('ContextT')


@dataclass(frozen=True)
class Token:
    """One decoded token and its log-probability under the distribution that it was chosen from."""

    id: int
    logprob: float


@dataclass(frozen=True)
class Guidance(Generic[ContextT]):
    """The contexts of the guidance branches; a branch that the sampler switches off may be None.

    :param full: everything
    :param no_text: without the instruction that asks for the image
    :param no_image: without the camera image
    """

    full: ContextT
    no_text: ContextT | None = None
    no_image: ContextT | None = None


class Backend(ABC, Generic[ContextT]):
    """What a reasoner needs of a model.

    Contexts are opaque to callers. ``fork`` is cheap: the shared prefix is not copied, and neither side sees what the
    other appends afterwards. No method may be called from two threads at once.
    """

    name: str
    config: CooperConfig

    def seats(self, count: int) -> list[Backend[ContextT]]:
        """Return backends with this one's weights, each for a thread of its own, that compute like steps together.

        :param count: how many; one is this backend itself
        :raises ValueError: this backend computes one conversation at a time
        """
        if count == 1:
            return [self]
        raise ValueError(f'the {self.name} backend computes one question at a time, not {count}; use backend torch')

    def at_work(self) -> AbstractContextManager[None]:
        """Enter it for the time of a conversation, so that others at the same table wait for its steps."""
        return nullcontext()

    @abstractmethod
    def new_context(self) -> ContextT:
        """Return an empty context."""

    @abstractmethod
    def fork(self, context: ContextT) -> ContextT:
        """Return an independent continuation of ``context`` that shares its past."""

    @abstractmethod
    def replace_text(self, context: ContextT, said: Sequence[int], ids: Sequence[int]) -> ContextT:
        """Return a fork of ``context`` in which its last text segment, ``said``, is ``ids`` instead.

        What both begin with is shared, not computed again.
        """

    @abstractmethod
    def append_text(self, context: ContextT, ids: Sequence[int]) -> None:
        """Append one text segment: the start token, ``ids``, the end token."""

    @abstractmethod
    def append_image(self, context: ContextT, image: np.ndarray, *, latents: bool, vision: bool) -> None:
        """Append an image of shape ``(height, width, 3)`` uint8 as its latent segment, its ViT segment, or both."""

    @abstractmethod
    def decode(
        self,
        context: ContextT,
        prefix: Sequence[int] = (),
        *,
        max_tokens: int = 2048,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> Iterator[Token]:
        """Decode one text segment token by token, and leave it in the context.

        The start token and ``prefix`` are fed first and not yielded. The end token ends the iteration, is not
        yielded, and is appended; where ``max_tokens`` or the caller (by closing the iterator) ends it, the end token
        is appended likewise, so that the context holds one well-formed text segment in every case.
        """

    def noise(self, height: int, width: int, seed: int) -> np.ndarray:
        """Return the starting noise ``(tokens, latent_dim)`` float32 of an image, the same on every backend."""
        stride = self.config.latent_stride
        count = (height // stride) * (width // stride)
        return np.random.default_rng(seed).standard_normal((count, self.config.latent_dim), dtype=np.float32)

    @abstractmethod
    def generate(
        self, guidance: Guidance[ContextT], height: int, width: int, sampler: SamplerConfig, noise: np.ndarray
    ) -> Iterator[np.ndarray | None]:
        """Generate an image of ``height`` x ``width`` pixels (multiples of the latent stride).

        Yields None after each denoising step and at last the picture, ``(height, width, 3)`` float32 in 0..1. The
        contexts are only read.
        """

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return ``(height, width)`` at which the model sees, and generates, an image of the given size."""
        return transforms.resized_size(height, width, self.config.vae_transform)
