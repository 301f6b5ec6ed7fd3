"""What a server is asked to do: requests in the form of OpenAI's chat completions, checked, and carried out."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from cooper_model.answerer import MODALITIES, Events, Wish, check_modalities
from cooper_model.config import SamplerConfig
from cooper_model.reasoner import Reasoner
from cooper_model.stopwatch import Cancel
from cooper_model.types import CameraIntrinsics, Cancelled, Frame, Modality, Mode
from cooper_model.wire import event_record, read_image_url

Records = AsyncGenerator[dict[str, Any], None]

MAX_TEXT = 40_000
MAX_STEPS = 1000
_SAMPLER = TypeAdapter(SamplerConfig)


@dataclass(frozen=True)
class Task:
    """A wish, and the settings that it is fulfilled with.

    :param sampler, max_turns: as :meth:`cooper_model.answerer.Answerer.adjust` takes them
    """

    wish: Wish
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
        return reasoner.fulfil(self.wish, cancelled)


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
        wish = Wish(
            frame=Frame(read_image_url(urls[0]), camera),
            question=texts[0] if asks else '',
            mode=extras.mode,
            choices=tuple(extras.choices),
            modalities=tuple(extras.modalities),
            seed=self.seed,
        )
        return Task(wish, extras.sampler, extras.max_turns)


def first_problem(error: ValidationError) -> str:
    """Return the first complaint of pydantic in one line, with the field that it is about."""
    problem = error.errors(include_url=False, include_context=False)[0]
    place = '.'.join(str(part) for part in problem['loc'])
    return f'{place}: {problem["msg"]}' if place else problem['msg']


# Work


class _Seat:
    """A reasoner, and when the task that it carries out last told something."""

    def __init__(self, reasoner: Reasoner) -> None:
        self.reasoner = reasoner
        self.told: float | None = None

    def carry_out(self, task: Task, cancelled: Cancel, tell: Callable[[dict[str, Any]], object]) -> None:
        """Tell the records of a task's events, until one is cancelled.

        :raises ValueError: the model does not take the task
        """
        backend = self.reasoner.backend
        self.told = time.monotonic()
        try:
            with backend.at_work(), closing(task.start(self.reasoner, cancelled)) as events:
                for event in events:
                    self.told = time.monotonic()
                    tell(event_record(event, backend.config, task.wish.frame.intrinsics))
        except Cancelled:
            pass
        finally:
            self.told = None


class Engine:
    """Carries out tasks on reasoners, each with a thread of its own, for callers in an event loop.

    :param reasoners: as many tasks are carried out at once; the next ones wait for a free one
    """

    def __init__(self, reasoners: Sequence[Reasoner]) -> None:
        self._seats = [_Seat(reasoner) for reasoner in reasoners]
        self._free: asyncio.Queue[_Seat] = asyncio.Queue()
        for seat in self._seats:
            self._free.put_nowait(seat)
        self._threads = ThreadPoolExecutor(len(self._seats), 'reasoner')

    @property
    def step_seconds(self) -> float:
        """How long the model step lasts that runs the longest at the moment; 0 where none does."""
        now = time.monotonic()
        return max(now - told if (told := seat.told) is not None else 0.0 for seat in self._seats)

    async def run(self, task: Task) -> Records:
        """Yield the records of a task's events. A caller that goes away stops the work after the current model step.

        :raises ValueError: the model does not take the task
        """
        stop, loop = threading.Event(), asyncio.get_running_loop()
        records: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()

        def tell(record: dict[str, Any] | None) -> None:
            loop.call_soon_threadsafe(records.put_nowait, record)

        def work(seat: _Seat) -> None:
            try:
                seat.carry_out(task, stop.is_set, tell)
            finally:
                tell(None)

        seat = await self._free.get()
        done = loop.run_in_executor(self._threads, work, seat)
        done.add_done_callback(lambda _: self._free.put_nowait(seat))
        try:
            while (record := await records.get()) is not None:
                yield record
            await done
        finally:
            stop.set()
