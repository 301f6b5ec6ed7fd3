"""What rollouts were shown and what they wrote, complete enough to rebuild every context that they had."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from cooper_model.types import Modality
from training.datasets.base import QuestionExample


@dataclass(frozen=True)
class Read:
    """A text that the model was given."""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class Shown:
    """A generated map as the model saw it.

    :param picture: ``(height, width, 3)`` uint8, as generated
    """

    modality: Modality
    picture: np.ndarray


@dataclass(frozen=True)
class Written:
    """A text of the model.

    :param ids: those that were given to it, then its own
    :param given: how many were given
    :param logprobs: of its own ids, then of the end token where the model chose it (``ended``)
    :param kept: false for a turn that was given up, which nothing later sees
    """

    text: str
    ids: tuple[int, ...]
    given: int
    logprobs: tuple[float, ...]
    ended: bool
    kept: bool = True


@dataclass
class Rollout:
    """One sampled answer.

    :param seed: of the noise of its maps; its tokens are drawn from seeds made of it
    :param parts: everything behind the question, in order
    :param turns: texts of the model's turns but for an answer that was forced
    :param answer: the short answer
    """

    seed: int
    parts: list[Read | Shown | Written] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    answer: str = ''
    forced: bool = False

    @property
    def length(self) -> int:
        """Tokens that the model chose."""
        return sum(len(part.logprobs) for part in self.parts if isinstance(part, Written))


@dataclass(frozen=True, eq=False)
class Group:
    """The rollouts of one question, and the context that they share.

    :param system: ids of the system prompt; empty for none
    :param latents: clean latent tokens of the camera image ``(tokens, latent_dim)``; None where it enters by the ViT
        alone
    :param grid: rows and columns of the latents
    """

    example: QuestionExample
    system: tuple[int, ...]
    latents: Tensor | None
    grid: tuple[int, int]
    question: tuple[int, ...]
    rollouts: tuple[Rollout, ...]
