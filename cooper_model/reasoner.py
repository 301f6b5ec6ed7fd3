"""The four modes of answering, and perception alone, as generators of typed events over a backend.

*direct*: image, question, answer. *text*: a thought comes first. *perception*: depth and segmentation are
generated, then the answer. *auto* (COOPER): in every turn the model itself asks for a map or answers; each
map comes back to it with a reflection message, until it answers or the turn limit forces an answer.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, Generic

import numpy as np

from cooper_model import grammar
from cooper_model.answerer import MODALITIES, Answerer, Events, Wish
from cooper_model.backends.base import Backend, ContextT, Guidance
from cooper_model.config import SamplerConfig
from cooper_model.conversation import Conversation, ModelText
from cooper_model.perception import read_picture, shown_picture
from cooper_model.prompts import Prompts, question_text
from cooper_model.scene import describe_scene
from cooper_model.stopwatch import Cancel, Stopwatch, never
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import (
    Answer,
    AnswerReady,
    Event,
    Frame,
    ImageProgress,
    ImageReady,
    ImageRequested,
    Modality,
    Mode,
    Turn,
    TurnDone,
)

MAX_QUESTION_TOKENS = 4096


def answers(turn: Turn, *, thinks: bool) -> bool:
    """Return whether the only turn of direct or text mode answers."""
    # A direct answer needs no tags; what follows a finished thought is an answer too.
    plain = turn.action is None and bool(turn.body) and (bool(turn.thought) or not thinks)
    return turn.action == 'answer' or plain


def forced_prefix(prompts: Prompts, thought: str = '') -> str:
    """Return the beginning of an answer that is forced, after the thought of a turn that failed to answer."""
    return grammar.format_turn(Turn(thought, None, '')) + prompts.forced_answer


def answer_text(short: str, choices: Sequence[str]) -> str:
    """Return the choice that a short answer names, or the short answer itself."""
    index = grammar.match_choice(short, choices)
    return short if index is None else choices[index].strip()


@dataclass
class _Work:
    """One request while it runs."""

    frame: Frame
    seed: int
    watch: Stopwatch
    thoughts: list[str] = field(default_factory=list)
    maps: dict[Modality, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Said:
    """The turn that answers: what was written, and the short answer in it."""

    written: ModelText
    short: str
    forced: bool


class Reasoner(Answerer, Generic[ContextT]):
    """Answers questions about frames, and perceives them.

    Not for two threads at once; a generator that is not read to its end may be closed or dropped at any time.

    :param sampler: how images are generated; default the checkpoint's own
    """

    def __init__(
        self,
        backend: Backend[ContextT],
        tokenizer: Tokenizer,
        prompts: Prompts,
        *,
        sampler: SamplerConfig | None = None,
    ) -> None:
        self.backend, self.tokenizer, self.prompts = backend, tokenizer, prompts
        self.sampler = self._own_sampler = sampler or backend.config.sampler
        self._max_turns: int | None = None
        self._fixed: dict[str, ContextT] = {}

    @property
    def serving(self) -> str:
        """Name of the backend that computes."""
        return self.backend.name

    def adjust(self, sampler: Mapping[str, Any] | None = None, max_turns: int | None = None) -> None:
        """See :meth:`cooper_model.answerer.Answerer.adjust`."""
        known = {each.name for each in fields(self._own_sampler)}
        unknown = sorted(set(sampler or {}) - known)
        if unknown:
            raise ValueError(f'the sampler has no setting {unknown[0]!r}; it has {", ".join(sorted(known))}')
        self.sampler = replace(self._own_sampler, **(sampler or {}))
        self._max_turns = max_turns

    def image_size(self, height: int, width: int) -> tuple[int, int]:
        """See :meth:`cooper_model.answerer.Answerer.image_size`."""
        return self.backend.image_size(height, width)

    def fulfil(self, wish: Wish, cancelled: Cancel = never) -> Events:
        """See :meth:`cooper_model.answerer.Answerer.fulfil`."""
        work = _Work(wish.frame, wish.seed, Stopwatch(cancelled))
        if not wish.question:
            return self._perceive(work, wish.modalities)
        text = question_text(wish.question, wish.choices)
        length = len(self.tokenizer.encode(text))
        if length > MAX_QUESTION_TOKENS:
            raise ValueError(
                f'the question has {length} tokens ({len(text)} characters), at most {MAX_QUESTION_TOKENS} '
                'are taken; ask a shorter question'
            )
        return self._ask(work, text, wish.mode, wish.choices)

    # Perception alone

    def _perceive(self, work: _Work, modalities: tuple[Modality, ...]) -> Events:
        base = self._begin(work, '', draws=True)
        base.add_photo(work.frame.image, latents=True)
        for modality in modalities:
            talk = base.fork()
            talk.add_text(self.prompts.request(modality))
            yield from self._draw(work, talk.guidance(base.full if self._guided else None), modality, 0)

    # Questions

    def _ask(self, work: _Work, text: str, mode: Mode, choices: tuple[str, ...]) -> Events:
        draws = mode in ('auto', 'perception')
        talk = self._begin(work, self.prompts.system(mode), draws=draws)
        talk.add_photo(work.frame.image, latents=draws)
        talk.add_text(text)
        if mode == 'auto':
            said = yield from self._own_choice(work, talk)
        elif mode == 'perception':
            said = yield from self._perception_first(work, talk)
        else:
            said = yield from self._one_turn(work, talk, thinks=mode == 'text')
        yield AnswerReady(self._answer(work, said, mode, choices))

    def _own_choice(self, work: _Work, talk: Conversation[ContextT]) -> Generator[Event, None, _Said]:
        last = (self._max_turns or self.backend.config.max_turns) - 1
        for turn in range(last + 1):
            before = talk.fork()
            written, parsed = yield from self._turn(work, talk, turn)
            if parsed.action == 'answer':
                return _Said(written, grammar.short_answer(parsed), forced=False)
            if parsed.action is None or turn == last:
                break
            talk.add_ids(written.ids, twin_only=True)
            no_text = None
            if self._guided:
                # What was thought stays, what asks for the image goes.
                with work.watch.part('context'):
                    kept = self.tokenizer.encode(grammar.without_action(written.text))
                    no_text = self.backend.replace_text(talk.full, written.ids, kept)
            shown = yield from self._draw(work, talk.guidance(no_text), parsed.action, turn)
            talk.add_map(shown)
            talk.add_text(self.prompts.reflection)
        return (yield from self._force(work, before, turn + 1, parsed))

    def _perception_first(self, work: _Work, talk: Conversation[ContextT]) -> Generator[Event, None, _Said]:
        for modality in MODALITIES:
            before = talk.fork_full() if self._guided else None
            talk.add_text(self.prompts.request(modality))
            shown = yield from self._draw(work, talk.guidance(before), modality, 0)
            talk.add_map(shown)
        said = yield from self._force(work, talk, 0)
        return _Said(said.written, said.short, forced=False)  # in this mode every answer begins so

    def _one_turn(
        self, work: _Work, talk: Conversation[ContextT], *, thinks: bool
    ) -> Generator[Event, None, _Said]:
        before = talk.fork()
        written, parsed = yield from self._turn(work, talk, 0)
        if answers(parsed, thinks=thinks):
            return _Said(written, grammar.short_answer(parsed), forced=False)
        return (yield from self._force(work, before, 1, parsed))

    def _turn(
        self, work: _Work, talk: Conversation[ContextT], turn: int, prefix: str = ''
    ) -> Generator[Event, None, tuple[ModelText, Turn]]:
        limit = self.backend.config.max_new_tokens
        written = yield from talk.decode(turn, prefix, max_tokens=limit, seed=work.seed)
        parsed = grammar.parse_turn(written.text)
        if parsed.thought and not prefix:
            work.thoughts.append(parsed.thought)
        yield TurnDone(turn, parsed)
        return written, parsed

    def _force(
        self, work: _Work, talk: Conversation[ContextT], turn: int, failed: Turn | None = None
    ) -> Generator[Event, None, _Said]:
        """Give the beginning of an answer, after the thought of a turn that failed to answer."""
        prefix = forced_prefix(self.prompts, '' if failed is None else failed.thought)
        written, parsed = yield from self._turn(work, talk, turn, prefix)
        return _Said(written, grammar.short_answer(parsed), forced=True)

    def _answer(self, work: _Work, said: _Said, mode: Mode, choices: tuple[str, ...]) -> Answer:
        text = answer_text(said.short, choices)
        value, unit = grammar.parse_number(text) or (None, '')
        depth, segmentation = work.maps.get('depth'), work.maps.get('segmentation')
        objects, relations = describe_scene(work.frame, depth, segmentation)
        work.watch.mark('total')
        return Answer(
            text=text,
            mode=mode,
            value=value,
            unit=unit,
            confidence=said.written.confidence(said.short),
            thoughts=tuple(work.thoughts),
            depth=depth,
            segmentation=segmentation,
            objects=objects,
            relations=relations,
            timings=dict(work.watch.seconds),
            forced=said.forced,
        )

    # Both

    @property
    def _guided(self) -> bool:
        return self.sampler.text_scale > 1

    def _begin(self, work: _Work, system: str, *, draws: bool) -> Conversation[ContextT]:
        """Return a conversation that holds the system prompt, whose context is computed once."""
        if system not in self._fixed:
            context = self.backend.new_context()
            if system:
                with work.watch.part('context'):
                    self.backend.append_text(context, self.tokenizer.encode(system))
            self._fixed[system] = context
        twin = draws and self._guided and self.sampler.image_scale > 1
        full, no_image = (self.backend.fork(self._fixed[system]) for _ in range(2))
        return Conversation(self.backend, self.tokenizer, work.watch, full, no_image if twin else None)

    def _draw(
        self, work: _Work, guidance: Guidance[ContextT], modality: Modality, turn: int
    ) -> Generator[Event, None, np.ndarray]:
        """Generate a map, keep it, and return it as the model is shown it: uint8, at the model's size."""
        part, config = f'generate_{modality}', self.backend.config
        before = work.watch.seconds.get(part, 0.0)
        yield ImageRequested(turn, modality)
        picture = yield from self._steps(work, guidance, modality, turn)
        with work.watch.part(part):
            depth_range = config.depth_range_of(work.frame.intrinsics)
            result = read_picture(picture, modality, work.frame, depth_range, config.colour_code)
            work.maps[modality] = result
        yield ImageReady(turn, modality, result, work.watch.seconds[part] - before, picture)
        return shown_picture(picture, modality)

    def _steps(
        self, work: _Work, guidance: Guidance[ContextT], modality: Modality, turn: int
    ) -> Generator[Event, None, np.ndarray]:
        height, width = self.backend.image_size(*work.frame.image.shape[:2])
        noise = self.backend.noise(height, width, work.seed)
        steps = self.backend.generate(guidance, height, width, self.sampler, noise)
        done = 0
        try:
            while True:
                with work.watch.part(f'generate_{modality}'):
                    picture = next(steps)
                if picture is not None:
                    return picture
                done += 1
                yield ImageProgress(turn, modality, done, self.sampler.num_timesteps - 1)
        finally:
            steps.close()
