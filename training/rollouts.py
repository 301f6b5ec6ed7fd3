"""Rollouts: many sampled answers to many questions at once, each in just the contexts that the reasoner would make.

The same modes and turns as :class:`cooper_model.reasoner.Reasoner`, with its grammar and conversations, but every
step (decoding, drawing, showing a map) is one batch over all rollouts that are at it. What a rollout was shown and
what it wrote is recorded in full, so that training can rebuild its context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from cooper_model import grammar, transforms
from cooper_model.backends.decoding import TextToDecode
from cooper_model.backends.torch import TorchBackend
from cooper_model.context import Context
from cooper_model.conversation import Conversation, Writing
from cooper_model.perception import shown_picture
from cooper_model.prompts import Prompts, question_text
from cooper_model.reasoner import MODALITIES, answer_text, answers, forced_prefix
from cooper_model.stopwatch import Stopwatch, never
from cooper_model.tokenizer import Tokenizer
from cooper_model.types import Modality, Mode, Turn
from training.datasets.base import QuestionExample
from training.transcripts import Group, Read, Rollout, Shown, Written


@dataclass(frozen=True)
class RolloutConfig:
    """How rollouts are sampled.

    :param group: rollouts of each question
    :param mode: of the reasoner: ``auto`` is COOPER's, ``text`` reasons without maps
    :param temperature: of sampling; 0 takes the likeliest token
    :param rows: how many contexts at most are computed together
    :raises ValueError: a value is out of range
    """

    group: int = 8
    mode: Mode = 'auto'
    temperature: float = 1.0
    rows: int = 128

    def __post_init__(self) -> None:
        if self.group < 1 or self.rows < 1 or self.temperature < 0:
            raise ValueError(
                f'rollouts: group {self.group} and rows {self.rows} must be 1 or more, temperature '
                f'{self.temperature} not negative'
            )


@dataclass(eq=False)
class _Walk:
    """A rollout while it goes on."""

    rollout: Rollout
    example: QuestionExample
    talk: Conversation[Context]
    before: Conversation[Context] | None = None
    thought: str = ''
    no_text: Context | None = None


class RolloutSampler:
    """Samples rollouts from a model.

    :param backend: whose weights are asked; images are generated as its configuration says
    """

    def __init__(
        self, backend: TorchBackend, tokenizer: Tokenizer, prompts: Prompts, config: RolloutConfig
    ) -> None:
        self.backend, self.tokenizer, self.prompts, self.config = backend, tokenizer, prompts, config
        self.sampler = backend.config.sampler
        self.watch = Stopwatch(never)

    def sample(self, examples: Sequence[QuestionExample], seeds: Sequence[int] | None = None) -> list[Group]:
        """Return a group of rollouts of each question; equal seeds give equal rollouts.

        :param seeds: one a question; by default its place
        :raises ValueError: a question is empty
        """
        if seeds is None:
            seeds = range(len(examples))
        size = max(1, self.config.rows // self.config.group)
        return [
            group
            for first in range(0, len(examples), size)
            for group in self._sample(examples[first : first + size], seeds[first : first + size])
        ]

    @property
    def _guided(self) -> bool:
        return self.sampler.text_scale > 1

    @property
    def _draws(self) -> bool:
        return self.config.mode in ('auto', 'perception')

    def _sample(self, examples: Sequence[QuestionExample], seeds: Sequence[int]) -> list[Group]:
        system = self.tokenizer.encode(self.prompts.system(self.config.mode))
        fixed = self.backend.new_context()
        if system:
            self.backend.append_text(fixed, system)
        groups, walks = [], []
        for example, seed in zip(examples, seeds, strict=True):
            talk, latents = self._photo(fixed, example)
            question = self.tokenizer.encode(question_text(example.text, example.choices))
            talk.add_ids(question)
            own = np.random.default_rng(seed).integers(2**31, size=self.config.group)
            rollouts = tuple(Rollout(int(number)) for number in own)
            walks += [_Walk(rollout, example, talk.fork()) for rollout in rollouts]
            tokens, grid = (None, (0, 0)) if latents is None else self._tokens(latents)
            groups.append(Group(example, tuple(system), tokens, grid, tuple(question), rollouts))
        if self.config.mode == 'auto':
            self._own_choice(walks)
        elif self.config.mode == 'perception':
            self._perception_first(walks)
        else:
            self._one_turn(walks)
        return groups

    def _photo(self, fixed: Context, example: QuestionExample) -> tuple[Conversation[Context], Tensor | None]:
        """Return a conversation that holds system prompt and camera image, and the image's latents."""
        twin = self._draws and self._guided and self.sampler.image_scale > 1
        no_image = self.backend.fork(fixed) if twin else None
        full, latents = self.backend.fork(fixed), None
        if self._draws:
            latents = self.backend.encode_image(transforms.resize(example.image, self.backend.config.vae_transform))
            self.backend.append_latents(full, latents)
        self.backend.append_image(full, example.image, latents=False, vision=True)
        return Conversation(self.backend, self.tokenizer, self.watch, full, no_image), latents

    def _tokens(self, latents: Tensor) -> tuple[Tensor, tuple[int, int]]:
        patch = self.backend.config.latent_patch_size
        # A copy outside inference mode may take part in training.
        tokens = transforms.latent_tokens(latents, patch)[0].clone()
        return tokens, (latents.shape[2] // patch, latents.shape[3] // patch)

    # The modes

    def _own_choice(self, walks: list[_Walk]) -> None:
        failed: list[_Walk] = []
        last = self.backend.config.max_turns - 1
        for turn in range(last + 1):
            looking: dict[Modality, list[_Walk]] = {modality: [] for modality in MODALITIES}
            for walk, parsed in self._turns(walks, turn):
                if parsed.action == 'answer':
                    self._finish(walk, parsed)
                elif parsed.action is None or turn == last:
                    failed.append(walk)
                else:
                    looking[parsed.action].append(walk)
            walks = [walk for found in looking.values() for walk in found]
            for modality, found in looking.items():
                self._prepare_drawing(found)
                self._draw(found, modality)
            self._read(walks, self.prompts.reflection)
        self._force(failed)

    def _perception_first(self, walks: list[_Walk]) -> None:
        for modality in MODALITIES:
            for walk in walks:
                walk.no_text = walk.talk.fork_full() if self._guided else None
            self._read(walks, self.prompts.request(modality))
            self._draw(walks, modality)
        for walk, parsed in self._turns(walks, 0, forced=True):
            self._finish(walk, parsed)

    def _one_turn(self, walks: list[_Walk]) -> None:
        failed = []
        for walk, parsed in self._turns(walks, 0):
            if answers(parsed, thinks=self.config.mode == 'text'):
                self._finish(walk, parsed)
            else:
                failed.append(walk)
        self._force(failed)

    def _force(self, walks: list[_Walk]) -> None:
        """Begin the answer of walks whose last turn did not answer, in its place."""
        for walk in walks:
            walk.rollout.parts[-1] = replace(walk.rollout.parts[-1], kept=False)
            walk.rollout.forced, walk.talk = True, walk.before
        for walk, parsed in self._turns(walks, self.backend.config.max_turns, forced=True):
            self._finish(walk, parsed)

    def _finish(self, walk: _Walk, parsed: Turn) -> None:
        walk.rollout.answer = answer_text(grammar.short_answer(parsed), walk.example.choices)

    # Steps, each in batches

    def _turns(self, walks: list[_Walk], turn: int, *, forced: bool = False) -> list[tuple[_Walk, Turn]]:
        """Let each walk write a turn; returns the turns parsed."""
        found = []
        for first in range(0, len(walks), self.config.rows):
            found += self._decode(walks[first : first + self.config.rows], turn, forced)
        return found

    def _decode(self, walks: list[_Walk], turn: int, forced: bool) -> list[tuple[_Walk, Turn]]:
        writings = [
            Writing(self.tokenizer, forced_prefix(self.prompts, walk.thought) if forced else '') for walk in walks
        ]
        texts = []
        for walk, writing in zip(walks, writings, strict=True):
            walk.before = walk.talk.fork()
            texts.append(
                TextToDecode(
                    walk.talk.full,
                    writing.prefix_ids,
                    walk.rollout.seed + turn,
                    lambda token, writing=writing: writing.push(token)[1],
                )
            )
        with self.watch.part('decode'):
            decoded = self.backend.decode_batch(
                texts, max_tokens=self.backend.config.max_new_tokens, temperature=self.config.temperature
            )
        found = []
        for walk, writing, text in zip(walks, writings, decoded, strict=True):
            writing.finish()
            written, chosen = writing.written, [*text.tokens, *([text.end] if text.end else [])]
            logprobs = tuple(token.logprob for token in chosen)
            given = len(writing.prefix_ids)
            part = Written(written.text, tuple(written.ids), given, logprobs, text.end is not None)
            walk.rollout.parts.append(part)
            if not forced:
                walk.rollout.turns.append(written.text)
            parsed = grammar.parse_turn(written.text)
            walk.thought = parsed.thought
            found.append((walk, parsed))
        return found

    def _prepare_drawing(self, walks: list[_Walk]) -> None:
        """Give the twins the last turn, and make the branch without what asks for the map."""
        for walk in walks:
            written = walk.rollout.parts[-1]
            walk.talk.add_ids(written.ids, twin_only=True)
            if self._guided:
                walk.no_text = walk.before.full
                self.backend.append_text(
                    walk.no_text, self.tokenizer.encode(grammar.without_action(written.text))
                )

    def _draw(self, walks: list[_Walk], modality: Modality) -> None:
        """Generate a map for each walk and show it to it; images of one size are one batch."""
        sizes = [self.backend.image_size(*walk.example.image.shape[:2]) for walk in walks]
        for size in sorted(set(sizes)):
            same = [walk for walk, other in zip(walks, sizes, strict=True) if other == size]
            for first in range(0, len(same), self.config.rows):
                self._draw_batch(same[first : first + self.config.rows], modality, size)

    def _draw_batch(self, walks: list[_Walk], modality: Modality, size: tuple[int, int]) -> None:
        noise = np.stack([self.backend.noise(*size, walk.rollout.seed) for walk in walks])
        guidances = [walk.talk.guidance(walk.no_text) for walk in walks]
        with self.watch.part('draw'):
            *_, pictures = self.backend.generate_batch(guidances, *size, self.sampler, noise)
        shown = [shown_picture(picture, modality) for picture in pictures]
        for walk, picture in zip(walks, shown, strict=True):
            walk.rollout.parts.append(Shown(modality, picture))
        pairs = [(c, p) for walk, p in zip(walks, shown, strict=True) for c in walk.talk.contexts]
        with self.watch.part('show'):
            self.backend.append_pictures([context for context, _ in pairs], [picture for _, picture in pairs])

    def _read(self, walks: list[_Walk], text: str) -> None:
        ids = tuple(self.tokenizer.encode(text))
        for walk in walks:
            walk.rollout.parts.append(Read(ids))
        contexts = [context for walk in walks for context in walk.talk.contexts]
        with self.watch.part('show'):
            for first in range(0, len(contexts), self.config.rows):
                rows = contexts[first : first + self.config.rows]
                self.backend.append_texts(rows, [ids] * len(rows))
