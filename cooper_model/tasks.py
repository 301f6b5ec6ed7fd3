"""What a server is asked to do: requests in the form of OpenAI's chat completions, checked, and carried out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cooper_model.answerer import MODALITIES, Events, check_modalities
from cooper_model.config import SamplerConfig
from cooper_model.reasoner import Reasoner
from cooper_model.stopwatch import Cancel
from cooper_model.types import CameraIntrinsics, Frame, Modality, Mode
from cooper_model.wire import event_record, read_image_url

Records = AsyncGenerator[dict[str, Any], None]

MAX_TEXT = 40_000
MAX_STEPS = 1000
_SAMPLER = TypeAdapter(SamplerConfig)


@dataclass(frozen=True)
class Task:
    """One question, or with an empty one the wish to perceive.

    :param sampler, max_turns: as :meth:`cooper_model.answerer.Answerer.adjust` takes them
    """

    frame: Frame
    question: str = ''
    mode: Mode = 'auto'
    choices: tuple[str, ...] = ()
    modalities: tuple[Modality, ...] = MODALITIES
    seed: int = 0
    sampler: Mapping[str, Any] = field(default_factory=dict)
    max_turns: int | None = None

    def start(self, reasoner: Reasoner, cancelled: Cancel) -> Events:
        """Return the events of the task.

        :raises ValueError: the model does not take it
        """
        own = asdict(reasoner.backend.config.sampler)
        try:
            wanted = _SAMPLER.validate_python({**own, **self.sampler})
        except ValidationError as error:
            raise ValueError(f'sampler: {first_problem(error)}') from error
        if wanted.num_timesteps > MAX_STEPS:
            raise ValueError(f'sampler.num_timesteps is {wanted.num_timesteps}, at most {MAX_STEPS} are taken')
        reasoner.adjust({name: getattr(wanted, name, None) for name in self.sampler}, self.max_turns)
        if not self.question:
            return reasoner.perceive(self.frame, self.modalities, seed=self.seed, cancelled=cancelled)
        options = {'mode': self.mode, 'choices': self.choices, 'seed': self.seed}
        return reasoner.ask(self.frame, self.question, **options, cancelled=cancelled)


# Requests


class _Strict(BaseModel):
    model_config = ConfigDict(extra='forbid')


class _Url(BaseModel):
    url: str


class _ImagePart(BaseModel):
    type: Literal['image_url']
    image_url: _Url


class _TextPart(BaseModel):
    type: Literal['text']
    text: str = Field(max_length=MAX_TEXT)


_Part = Annotated[Union[_ImagePart, _TextPart], Field(discriminator='type')]


class _Message(BaseModel):
    role: Literal['user']
    content: list[_Part] = Field(min_length=1, max_length=2)


class _Camera(_Strict):
    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int


class _Extras(_Strict):
    mode: Mode = 'auto'
    choices: list[Annotated[str, Field(max_length=1000)]] = Field(default=[], max_length=26)
    modalities: list[Modality] = list(MODALITIES)
    intrinsics: Union[_Camera, None] = None
    sampler: dict[str, Any] = {}
    max_turns: Union[Annotated[int, Field(ge=1, le=16)], None] = None


class Request(BaseModel):
    """The body of a request. Fields of OpenAI's that mean nothing here are ignored, unknown ones of ours refused."""

    messages: list[_Message] = Field(min_length=1, max_length=1)
    stream: bool = False
    seed: int = Field(default=0, ge=0, le=2**63 - 1)
    n: Literal[1] = 1
    cooper: _Extras = _Extras()

    @classmethod
    def parse(cls, body: bytes) -> Request:
        """Read a body.

        :raises ValueError: it is no JSON, or a field is missing, unknown or out of range; the text names it
        """
        try:
            return cls.model_validate_json(body)
        except ValidationError as error:
            raise ValueError(first_problem(error)) from error

    def task(self, *, asks: bool) -> Task:
        """Decode what the body holds.

        :param asks: whether it is to hold a question; otherwise it must hold none
        :raises ValueError: not one image (and one question), or an image that cannot be read
        """
        parts = self.messages[0].content
        urls = [part.image_url.url for part in parts if isinstance(part, _ImagePart)]
        texts = [part.text for part in parts if isinstance(part, _TextPart)]
        if len(urls) != 1 or len(texts) != asks:
            wanted = 'one image_url and one text' if asks else 'one image_url and no text'
            raise ValueError(f'messages.0.content holds {len(urls)} images and {len(texts)} texts, expected {wanted}')
        if asks and not texts[0].strip():
            raise ValueError('the question is empty; ask something about the image')
        extras = self.cooper
        check_modalities(extras.modalities)
        camera = None if extras.intrinsics is None else CameraIntrinsics(**extras.intrinsics.model_dump())
        return Task(
            frame=Frame(read_image_url(urls[0]), camera),
            question=texts[0] if asks else '',
            mode=extras.mode,
            choices=tuple(extras.choices),
            modalities=tuple(extras.modalities),
            seed=self.seed,
            sampler=extras.sampler,
            max_turns=extras.max_turns,
        )


def first_problem(error: ValidationError) -> str:
    """Return the first complaint of pydantic in one line, with the field that it is about."""
    problem = error.errors(include_url=False, include_context=False)[0]
    place = '.'.join(str(part) for part in problem['loc'])
    return f'{place}: {problem["msg"]}' if place else problem['msg']


# Work


class Engine:
    """Carries out tasks on a reasoner, one at a time, in a thread of its own, for callers in an event loop."""

    def __init__(self, reasoner: Reasoner) -> None:
        self._reasoner = reasoner
        self._turn = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, 'reasoner')
        self._step_began: float | None = None

    @property
    def step_seconds(self) -> float:
        """How long the model step lasts that runs at the moment; 0 where none does."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    async def run(self, task: Task) -> Records:
        """Yield the records of a task's events. A caller that goes away stops the work after the current model step.

        :raises ValueError: the model does not take the task
        """
        stop, loop = threading.Event(), asyncio.get_running_loop()
        async with self._turn:
            # In the thread, where whatever a cancelled task left running has ended before.
            events = await loop.run_in_executor(self._thread, task.start, self._reasoner, stop.is_set)
            try:
                while (record := await loop.run_in_executor(self._thread, self._next, events, task)) is not None:
                    yield record
            finally:
                stop.set()
                self._thread.submit(events.close)  # after the step that runs

    def _next(self, events: Events, task: Task) -> dict[str, Any] | None:
        self._step_began = time.monotonic()
        try:
            event = next(events, None)
            return None if event is None else event_record(event, self._reasoner.backend.config, task.frame.intrinsics)
        finally:
            self._step_began = None
