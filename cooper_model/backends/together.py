"""Several conversations at once: like steps of theirs are computed as one batch.

Each conversation has a thread of its own and a seat at the table. What it wants computed it lays on the table and
waits; one thread takes what is alike, computes it as one, and hands everyone their rows. Nobody waits for the end of
another one's text or image: who sits down later joins in at the next step.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cooper_model.backends.steps import Steps
from cooper_model.context import Context
from cooper_model.network.decoder import Streams

PATIENCE = 0.005

Rows = tuple[Tensor, ...]
Work = Callable[..., Rows]


@dataclass(frozen=True, eq=False)
class _Wish:
    """What one conversation wants computed: ``work(contexts, *tensors)``."""

    key: Hashable
    work: Work
    contexts: list[Context]
    tensors: Rows
    result: Future[Rows] = field(default_factory=Future)


class Table:
    """Computes what several threads wish for, like wishes together.

    :param patience: longest time that a wish waits for those of others at work [s]
    :ivar sizes: how often so many wishes were computed together
    """

    def __init__(self, patience: float = PATIENCE) -> None:
        self.sizes: Counter[int] = Counter()
        self._patience, self._at_work = patience, 0
        self._wishes: list[_Wish] = []
        self._changed = threading.Condition()
        threading.Thread(target=self._serve, name='table', daemon=True).start()

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While it lasts, others' wishes wait for this thread's next one, though not for long."""
        self._come_or_go(1)
        try:
            yield
        finally:
            self._come_or_go(-1)

    def compute(self, kind: Hashable, work: Work, contexts: Sequence[Context], tensors: Rows) -> Rows:
        """Return ``work(contexts, *tensors)``, computed with whatever others wish for of this kind and these shapes.

        :param work: takes contexts, one a row or none at all, and tensors whose first dimension is rows; returns such
            tensors
        :raises Exception: what ``work`` raises, for everyone whose rows it had
        """
        wish = _Wish((kind, *((x.shape[1:], x.dtype) for x in tensors)), work, list(contexts), tensors)
        with self._changed:
            self._wishes.append(wish)
            self._changed.notify()
        return wish.result.result()

    def _come_or_go(self, change: int) -> None:
        with self._changed:
            self._at_work += change
            self._changed.notify()

    def _serve(self) -> None:
        while True:
            wishes = self._next()
            try:
                found = _computed(wishes)
            except Exception as error:  # noqa: BLE001 - raised in every thread that waits for it
                for wish in wishes:
                    wish.result.set_exception(error)
            else:
                for wish, rows in zip(wishes, found, strict=True):
                    wish.result.set_result(rows)

    def _next(self) -> list[_Wish]:
        """Wait until everyone at work has a wish, or patience is over; take the oldest and those like it."""
        with self._changed:
            self._changed.wait_for(lambda: self._wishes)
            self._changed.wait_for(lambda: len(self._wishes) >= self._at_work, self._patience)
            key = self._wishes[0].key
            taken = [wish for wish in self._wishes if wish.key == key]
            self._wishes = [wish for wish in self._wishes if wish.key != key]
        self.sizes[len(taken)] += 1
        return taken


@torch.inference_mode()
def _computed(wishes: Sequence[_Wish]) -> list[Rows]:
    """Compute like wishes as one, and return the rows of each."""
    first = wishes[0]
    if len(wishes) == 1:
        return [first.work(first.contexts, *first.tensors)]
    counts = [wish.tensors[0].shape[0] for wish in wishes]
    contexts = [context for wish in wishes for context in wish.contexts]
    tensors = (torch.cat(same) for same in zip(*(wish.tensors for wish in wishes), strict=True))
    return list(zip(*(x.split(counts) for x in first.work(contexts, *tensors)), strict=True))


class StepsTogether(Steps):
    """Has everything computed at a table."""

    def __init__(self, steps: Steps, table: Table) -> None:
        super().__init__(steps.model, steps.autoencoder, steps.kernel)
        self.table = table

    def forward(self, contexts: Sequence[Context], streams: Streams, *, causal: bool, store: bool) -> Streams:
        there = tuple(x is not None for x in streams)

        def work(contexts: list[Context], *present: Tensor) -> Rows:
            found = Steps.forward(self, contexts, _streams(there, present), causal=causal, store=store)
            return tuple(x for x in found if x is not None)

        present = tuple(x for x in streams if x is not None)
        return _streams(there, self.table.compute(('forward', there, causal, store), work, contexts, present))

    def logits(self, hidden: Tensor) -> Tensor:
        return self._rows(super().logits, hidden)

    def vision(self, images: Tensor) -> Tensor:
        return self._rows(super().vision, images)

    def encode(self, images: Tensor) -> Tensor:
        return self._rows(super().encode, images)

    def decode(self, latents: Tensor) -> Tensor:
        return self._rows(super().decode, latents)

    def _rows(self, step: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
        return self.table.compute(step.__name__, lambda _, x: (step(x),), (), (rows,))[0]


def _streams(there: Sequence[bool], present: Sequence[Tensor]) -> Streams:
    """Return streams of which some are there."""
    left = iter(present)
    return Streams(*(next(left) if given else None for given in there))
