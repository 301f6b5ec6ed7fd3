"""What a data set gives a stage: pictures with what is valid in them, questions with their truth, and a way to score.

A data set is one file of this package and one line of `registry`. Stages know no more of it than the protocols below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np

from cooper_model.config import CooperConfig
from cooper_model.prompts import Prompts
from cooper_model.tokenizer import Tokenizer
from cooper_model.transforms import resized_size
from cooper_model.types import CameraIntrinsics, Modality
from cooper_sim.grading import Truth, is_right
from cooper_sim.records import Record
from training.datasets.report import ReadReport

Flag = Literal['positive', 'negative', 'boundary']
DENSE = 0.5
"""Share of valid pixels from which a latent token counts, where depth or masks are dense."""


@dataclass(frozen=True)
class DataEntry:
    """One line of a config's ``data``.

    :param set: name in the registry
    :param path: its folder or list
    :param name: what it is called in curves and messages; empty for the name in the registry
    :param root: what paths in a list are relative to; empty for the folder of the list
    :param weight: relative frequency in a mixture; 0 for a set that is only scored, the whole of it
    :param limit: how many examples are trained on, from the first; None for all but the held out
    :param held_out: how many examples, from the last, are only scored
    :param flip: mirror half of the examples left to right
    :param latents: file that keeps the latents of all examples, for sets of one size; empty to encode as one goes
    :param only: names of the sequences to take, where a set has any; empty for all
    :param classes: from a class of the data to one of the checkpoint's colour code, beside equal names
    :raises ValueError: a value is out of range
    """

    set: str
    path: str
    name: str = ''
    root: str = ''
    weight: float = 1.0
    limit: int | None = None
    held_out: int = 0
    flip: bool = False
    latents: str = ''
    only: tuple[str, ...] = ()
    classes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float('inf'):
            raise ValueError(f'data set {self.set}: weight is {self.weight}, expected a number from 0 on')
        if self.held_out < 0 or (self.limit is not None and self.limit < 1):
            raise ValueError(f'data set {self.set}: held_out {self.held_out} or limit {self.limit} is out of range')
        if self.flip and self.latents:
            raise ValueError(f'data set {self.set}: kept latents cannot be mirrored; drop flip or latents')

    @property
    def label(self) -> str:
        """What the set is called in curves and messages."""
        return self.name or self.set

    def trained(self, count: int) -> int:
        """Return how many of ``count`` examples, from the first, are trained on.

        :raises ValueError: none is, though the set has a weight
        """
        if self.weight == 0:
            return 0
        left = count - self.held_out
        if left < 1:
            raise ValueError(
                f'{self.path} holds {count} examples, of which {self.held_out} are held out; none is left to train on'
            )
        return left if self.limit is None else min(self.limit, left)


@dataclass(frozen=True)
class ModelInput:
    """What a model takes in: sizes of images, words, and the longest sequence that is trained on.

    :param max_tokens: tokens of one sample, None for no limit
    """

    config: CooperConfig
    tokenizer: Tokenizer
    prompts: Prompts
    max_tokens: int | None = None

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Return ``(height, width)`` [px] that an image of the given size has where it is encoded."""
        return resized_size(height, width, self.config.vae_transform)

    def image_tokens(self, height: int, width: int) -> int:
        """Return the tokens of a camera image, which enters as latents and through the ViT, markers included."""
        height, width = self.latent_size(height, width)
        return self.map_tokens(height, width) + self.vision_tokens(height, width)

    def map_tokens(self, height: int, width: int) -> int:
        """Return the tokens of a picture that is generated at ``height`` x ``width``, markers included."""
        stride = self.config.latent_stride
        return (height // stride) * (width // stride) + 2

    def vision_tokens(self, height: int, width: int) -> int:
        """Return the ViT tokens of a picture that has its latent size, markers included."""
        rows, columns = resized_size(height, width, self.config.vit_transform)
        patch = self.config.vision.patch_size
        return (rows // patch) * (columns // patch) + 2

    def text_tokens(self, text: str) -> int:
        """Return the tokens of a text, markers included."""
        return len(self.tokenizer.encode(text)) + 2

    def sample_tokens(self, height: int, width: int, modalities: Sequence[Modality]) -> int:
        """Return the tokens of an image of ``height`` x ``width`` with a request and a map of each modality."""
        drawn = self.map_tokens(*self.latent_size(height, width))
        requests = sum(self.text_tokens(self.prompts.request(modality)) for modality in modalities)
        return self.image_tokens(height, width) + requests + drawn * len(modalities)


@dataclass(frozen=True, eq=False)
class Target:
    """A picture to generate.

    :param picture: ``(height, width, 3)`` float32 in 0..1, of the image's size
    :param valid: ``(height, width)`` bool, where the picture is known; None for everywhere
    :param share: share of valid pixels from which a latent token counts in the loss
    """

    picture: np.ndarray
    valid: np.ndarray | None = None
    share: float = DENSE


@dataclass(frozen=True, eq=False)
class MapTruth:
    """What generated maps are scored against.

    :param depth: ``(height, width)`` float32 [m] at the resolution of the file, NaN where it is not scored
    :param depth_range: ``(near, far)`` [m] that 0 and 1 of the depth picture stand for
    :param instances: ``(height, width)`` integers at the resolution of the model, 0 where there is no object
    :param scored: the same size, bool, where ``instances`` is known; None for everywhere
    """

    depth: np.ndarray | None = None
    depth_range: tuple[float, float] | None = None
    instances: np.ndarray | None = None
    scored: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Example:
    """One image with the pictures to generate of it.

    :param image: ``(height, width, 3)`` uint8, resized for the latents
    :param targets: pictures by modality; empty where only the image was asked for
    :param record: all that is known of a simulated scene, for texts
    """

    image: np.ndarray
    targets: Mapping[Modality, Target] = field(default_factory=dict)
    truth: MapTruth = field(default_factory=MapTruth)
    record: Record | None = None


class DataSet(Protocol):
    """Images with pictures to generate: what stage 1 is trained on.

    :ivar modalities: what every example has a target of
    :ivar config: of the checkpoint that its pictures are made for
    """

    name: str
    config: CooperConfig
    modalities: tuple[Modality, ...]
    report: ReadReport

    def __len__(self) -> int: ...

    def example(self, number: int, rng: np.random.Generator | None = None, maps: bool = True) -> Example:
        """Return one example, varied where there is an ``rng``; without ``maps`` the image and record alone.

        :raises LeftOut: its files cannot be read
        """
        ...

    def place(self, number: int) -> str:
        """Return where an example comes from, for messages."""
        ...

    def score(self, example: Example, pictures: Mapping[Modality, np.ndarray]) -> dict[str, list[float]]:
        """Return the values of each metric for generated pictures ``(height, width, 3)`` float32 in 0..1."""
        ...


@dataclass(frozen=True, eq=False)
class QuestionExample:
    """A question about an image, with the truth that an answer is rewarded by.

    :param image: ``(height, width, 3)`` uint8 RGB as in the file; a reasoner resizes it itself
    :param text: the question as it is asked, options included where the file lists them in the text
    :param choices: the options, where known
    :param flag: whether perceiving helps, as measured beforehand
    :param record, object_ids: all that is known of the scene and which of its objects are meant, where it is known
    """

    id: str
    image: np.ndarray
    text: str
    truth: Truth
    choices: tuple[str, ...] = ()
    category: str = ''
    flag: Flag = 'boundary'
    intrinsics: CameraIntrinsics | None = None
    record: Record | None = None
    object_ids: tuple[int, ...] = ()


class QuestionSet(Protocol):
    """Questions with true answers: what stage 2b is trained on."""

    name: str
    report: ReadReport

    def __len__(self) -> int: ...

    def question(self, number: int) -> QuestionExample:
        """Return one question.

        :raises LeftOut: its image cannot be read
        """
        ...

    def reward(self, answer: str, example: QuestionExample) -> float:
        """Return the accuracy of a short answer, 0..1."""
        ...


def exact_reward(answer: str, example: QuestionExample) -> float:
    """Return 1 for a right short answer, otherwise 0, by the rules of :mod:`cooper_sim.grading`."""
    return float(is_right(answer, example.truth))
