"""The model as the node uses it: settings and a frame in, maps or an answer out. Knows nothing of ROS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from cooper_model import loading
from cooper_model.backends.failures import BackendFailed, is_out_of_memory
from cooper_model.scene import describe_scene
from cooper_model.types import (
    MODES,
    Answer,
    AnswerReady,
    DepthMap,
    Event,
    Frame,
    ImageReady,
    Modality,
    Relation,
    SceneObject,
    Segmentation,
)
from cooper_ros.worker import Stop

if TYPE_CHECKING:
    from cooper_model.answerer import Answerer
    from cooper_model.backends.connection import Server

Scene = tuple[tuple[SceneObject, ...], tuple[Relation, ...]]


class BadQuestion(ValueError):
    """The question cannot be asked; the text names what is wrong with it."""


@dataclass(frozen=True)
class Settings:
    """What may change between two jobs.

    :param seed: of the noise that images are generated from
    :param sampler: settings of the image sampler that are not the checkpoint's, by name
    :param max_turns: after which an answer is forced; 0 for the checkpoint's own number
    :param min_object_area: least area of an object [px of the frame]
    """

    seed: int = 0
    sampler: Mapping[str, Any] = field(default_factory=dict)
    max_turns: int = 0
    min_object_area: int = 1


@dataclass(frozen=True)
class Question:
    """One question about one frame.

    :param live: the frame is the camera's, so that what is perceived in it is worth publishing
    :param camera: name of the camera that was asked
    """

    frame: Frame
    text: str
    choices: tuple[str, ...] = ()
    mode: str = 'auto'
    live: bool = False
    camera: str = ''


@dataclass(frozen=True)
class Perceived:
    """What the model saw in one frame. Objects and relations are worked out when somebody asks for them.

    :param least: area of the smallest object that counts [px of the frame]
    :param seconds: time that the maps took
    :param timings: time that each map took [s], where it is known
    """

    frame: Frame
    depth: DepthMap | None
    segmentation: Segmentation | None
    least: int = 1
    seconds: float = 0.0
    timings: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def _scene(self) -> Scene:
        return _large(describe_scene(self.frame, self.depth, self.segmentation), self.least)

    @property
    def objects(self) -> tuple[SceneObject, ...]:
        """The objects of the segmentation."""
        return self._scene[0]

    @property
    def relations(self) -> tuple[Relation, ...]:
        """The relations between the objects."""
        return self._scene[1]


class Inference:
    """A loaded model. Not for two threads at once.

    :param server: for the back end ``remote``
    :raises Exception: whatever loading raises, see ``cooper_model.loading.load``
    """

    def __init__(self, source: loading.Source, server: Server | None = None) -> None:
        self._source, self._server = source, server
        self._backend = source.backend
        self._broken: str | None = None
        self._loaded: Answerer | None = None
        _ = self._reasoner

    @property
    def backend(self) -> str:
        """Name of the backend that serves: the wanted one, or the next best that works."""
        return self._backend if self._loaded is None else self._loaded.serving

    @property
    def trouble(self) -> str:
        """Why what serves is not what was wanted; empty where it is."""
        if self._loaded is not None and self._loaded.trouble:
            return self._loaded.trouble
        wanted = self._source.backend
        return '' if wanted in ('auto', loading.REMOTE, self.backend) else f'the {wanted} backend cannot be used'

    @property
    def _reasoner(self) -> Answerer:
        if self._loaded is None:
            self._loaded = loading.load_working(self._source, self._server, self._broken)
        return self._loaded

    @contextmanager
    def _recovering(self) -> Iterator[None]:
        """Where the backend breaks down, let go of it; the next request loads the next best one.

        :raises BackendFailed: the text says what will serve
        """
        try:
            yield
        except RuntimeError as error:
            serving = self.backend
            following = loading.next_best(serving)
            if following is None or not (isinstance(error, BackendFailed) or is_out_of_memory(error)):
                raise
            text = f'{error}; ask again: the {following} backend serves from now on instead of {serving}'
            self._backend, self._broken, self._loaded = following, serving, None
            raise BackendFailed(text) from error

    def _apply(self, settings: Settings) -> None:
        self._reasoner.adjust(settings.sampler, settings.max_turns or None)

    def perceive(self, frame: Frame, modalities: tuple[Modality, ...], settings: Settings, stop: Stop) -> Perceived:
        """Generate maps of a frame.

        :raises Cancelled: ``stop()`` became true
        """
        began = time.monotonic()
        self._apply(settings)
        maps: dict[str, Any] = {}
        timings: dict[str, float] = {}
        with self._recovering():
            for event in self._reasoner.perceive(frame, modalities, seed=settings.seed, cancelled=stop):
                if isinstance(event, ImageReady):
                    maps[event.modality] = event.image
                    timings[event.modality] = event.seconds
        seconds = time.monotonic() - began
        least = settings.min_object_area
        return Perceived(frame, maps.get('depth'), maps.get('segmentation'), least, seconds, timings)

    def ask(self, question: Question, settings: Settings, on_event: Callable[[Event], None], stop: Stop) -> Answer:
        """Answer a question; ``on_event`` takes each event as it happens.

        :raises BadQuestion: the model does not take it
        :raises Cancelled: ``stop()`` became true
        """
        self._apply(settings)
        options = {'mode': question.mode, 'choices': question.choices, 'seed': settings.seed}
        try:
            events = self._reasoner.ask(question.frame, question.text, **options, cancelled=stop)
        except ValueError as error:
            raise BadQuestion(str(error)) from error
        answer = None
        with self._recovering():
            for event in events:
                if isinstance(event, AnswerReady):
                    scene = (event.answer.objects, event.answer.relations)
                    objects, relations = _large(scene, settings.min_object_area)
                    answer = replace(event.answer, objects=objects, relations=relations)
                    event = AnswerReady(answer)
                on_event(event)
        if answer is None:
            raise RuntimeError('the reasoner ended without an answer')
        return answer


def check_mode(mode: str) -> None:
    """Refuse an unknown mode before the question has waited for its turn.

    :raises BadQuestion: it is unknown
    """
    if mode not in MODES:
        raise BadQuestion(f'mode {mode!r} is unknown; expected {", ".join(MODES)}, or nothing for the default')


def _large(scene: Scene, least: int) -> Scene:
    """Leave out objects below an area, and what is said of them."""
    objects, relations = scene
    large = {item.id for item in objects if item.area >= least}
    return (
        tuple(item for item in objects if item.id in large),
        tuple(each for each in relations if {each.subject_id, each.object_id} <= large),
    )
