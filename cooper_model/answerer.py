"""What answers questions about frames and perceives them: a model of this process, one on a server, or both in turn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cooper_model.prompts import question_text
from cooper_model.stopwatch import Cancel, never
from cooper_model.types import MODES, Event, Frame, Modality, Mode

MODALITIES: tuple[Modality, ...] = ('depth', 'segmentation')
Events = Generator[Event, None, None]


@dataclass(frozen=True)
class Wish:
    """One question about a frame, or with an empty one the wish to perceive it.

    :param mode, choices: of a question
    :param modalities: to generate where there is no question
    :param seed: of the noise that images start from
    """

    frame: Frame
    question: str = ''
    mode: Mode = 'auto'
    choices: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = MODALITIES
    seed: int = 0


class Answerer(ABC):
    """The public side of :class:`cooper_model.reasoner.Reasoner`, and of others that stand in its place.

    Not for two threads at once; a generator that is not read to its end may be closed or dropped at any time.

    :ivar trouble: why another back end than the preferred one serves; empty where none does
    """

    trouble: str = ''

    @property
    @abstractmethod
    def serving(self) -> str:
        """Name of the back end that serves at the moment."""

    @abstractmethod
    def adjust(self, sampler: Mapping[str, Any] | None = None, max_turns: int | None = None) -> None:
        """Replace settings of the checkpoint from now on; those that are not named are the checkpoint's again.

        :param sampler: fields of :class:`~cooper_model.config.SamplerConfig` by name
        :param max_turns: turns after which an answer is forced
        :raises ValueError: there is no such setting, or it cannot have this value
        """

    @abstractmethod
    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """Return ``(height, width)`` [px] at which the model sees, and draws, an image of the given size."""

    @abstractmethod
    def fulfil(self, wish: Wish, cancelled: Cancel = never) -> Events:
        """Return the events of a wish that :meth:`ask` and :meth:`perceive` would make.

        :raises ValueError: the question is too long; raised by the call itself
        :raises Cancelled: out of the generator, once ``cancelled()`` is true
        """

    def ask(
        self,
        frame: Frame,
        question: str,
        *,
        mode: Mode = 'auto',
        choices: Sequence[str] = (),
        seed: int = 0,
        cancelled: Cancel = never,
    ) -> Events:
        """Answer a question about a frame; the last event is :class:`~cooper_model.types.AnswerReady`.

        :param choices: the possible answers, of which the answer will be one if the model names one of them
        :param seed: of the noise that images start from
        :param cancelled: asked before every model step
        :raises ValueError: the question is empty or too long, or the mode is unknown; raised by the call itself
        :raises Cancelled: out of the generator, once ``cancelled()`` is true
        """
        if mode not in MODES:
            raise ValueError(f'mode is {mode!r}, expected one of {", ".join(MODES)}')
        question_text(question, choices)  # refuses what cannot be asked
        return self.fulfil(Wish(frame, question, mode, tuple(choices), seed=seed), cancelled)

    def perceive(
        self,
        frame: Frame,
        modalities: Sequence[Modality] = MODALITIES,
        *,
        seed: int = 0,
        cancelled: Cancel = never,
    ) -> Events:
        """Generate maps of a frame without a question; the last event is the last map's ``ImageReady``.

        :raises ValueError: no modality, or an unknown one; raised by the call itself
        :raises Cancelled: out of the generator, once ``cancelled()`` is true
        """
        check_modalities(modalities)
        return self.fulfil(Wish(frame, modalities=tuple(modalities), seed=seed), cancelled)


def check_modalities(modalities: Sequence[str]) -> None:
    """Refuse what cannot be perceived.

    :raises ValueError: no modality, or an unknown one
    """
    if not modalities or any(name not in MODALITIES for name in modalities):
        raise ValueError(f'modalities are {list(modalities)}, expected some of {", ".join(MODALITIES)}')
