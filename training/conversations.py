"""A question and its answer as segments of a training sequence, just as the reasoner would meet them, in every mode."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cooper_model.config import SpecialTokens
from cooper_model.grammar import format_turn
from cooper_model.packing import Segment
from cooper_model.prompts import Prompts
from cooper_model.reasoner import MODALITIES
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import Modality, Mode, Turn
from training.segments import model_text, user_text
from training.traces import looking_turn

SHARED = (0, 1)  # the camera image's latent and ViT segments, first in every sequence
THINKING: tuple[Mode, ...] = ('auto', 'text')
"""Modes whose answers begin with a thought."""


class Scene(Protocol):
    """One image's sequence while it is put together. Each method appends a segment and returns its index."""

    def add(self, segment: Segment) -> int: ...

    def show_latents(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as latents."""

    def show_image(self, sees: tuple[int, ...]) -> int:
        """Append the camera image as the ViT sees it."""

    def show_map(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a map as the ViT sees it."""

    def draw(self, modality: Modality, sees: tuple[int, ...]) -> int:
        """Append a map being generated."""


@dataclass(frozen=True)
class Exchange:
    """A question with what the model is to say.

    :param text: the question as it is asked
    :param turn: the one that answers; its thought counts in the modes that think
    :param look: the map that is asked for before, in the mode auto
    """

    text: str
    turn: Turn
    look: Modality | None = None

    @property
    def maps(self) -> tuple[Modality, ...]:
        """The maps that the mode auto needs."""
        return () if self.look is None else (self.look,)


@dataclass(frozen=True)
class Conversations:
    """Writes exchanges into sequences in the words of one checkpoint."""

    prompts: Prompts
    tokenizer: Tokenizer
    tokens: SpecialTokens

    def converse(self, scene: Scene, mode: Mode, exchange: Exchange, drawn: bool = False) -> None:
        """Append one exchange and all that comes between question and answer.

        :param drawn: also draw the map that is looked at, with a loss, where it is asked for
        """
        seen = self._begin(scene, mode)
        seen = (*seen, self.user(scene, exchange.text, seen))
        given = 0
        if mode == 'perception':
            for modality in MODALITIES:
                seen = (*seen, self.user(scene, self.prompts.request(modality), seen))
                seen = (*seen, scene.show_map(modality, seen))
            given = len(self.tokenizer.encode(self.prompts.forced_answer))
        elif mode == 'auto' and exchange.look is not None:
            seen = self._look(scene, exchange.look, seen, drawn)
        turn = exchange.turn if mode in THINKING else Turn('', exchange.turn.action, exchange.turn.body)
        self.model(scene, format_turn(turn), seen, given)

    def _begin(self, scene: Scene, mode: Mode) -> tuple[int, ...]:
        """Return what is seen before the question: the image that all share, unless the mode has it otherwise."""
        system, draws = self.prompts.system(mode), mode in ('auto', 'perception')
        if draws and not system:
            return SHARED
        seen = (self.user(scene, system, ()),) if system else ()
        if draws:
            seen = (*seen, scene.show_latents(seen))
        return (*seen, scene.show_image(seen))

    def _look(self, scene: Scene, modality: Modality, seen: tuple[int, ...], drawn: bool) -> tuple[int, ...]:
        """Append the turn that asks for a map, the map and what is said of it; return all that is seen then."""
        body = self.prompts.request(modality)
        body = body[body.index('>') + 1 : body.rindex('<')]
        seen = (*seen, self.model(scene, format_turn(looking_turn(modality, body)), seen))
        if drawn:
            scene.draw(modality, seen)
        seen = (*seen, scene.show_map(modality, seen))
        return (*seen, self.user(scene, self.prompts.reflection, seen))

    def user(self, scene: Scene, text: str, sees: tuple[int, ...]) -> int:
        """Append a text that the model reads."""
        return scene.add(user_text(self.tokenizer.encode(text), sees, self.tokens))

    def model(self, scene: Scene, text: str, sees: tuple[int, ...], given: int = 0) -> int:
        """Append a text that the model writes; the first ``given`` tokens carry no loss."""
        return scene.add(model_text(self.tokenizer.encode(text), sees, self.tokens, given))
