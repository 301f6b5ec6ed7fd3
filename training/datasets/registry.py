"""All data sets by name. To add one, write its file and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from training.datasets import (
    ade20k,
    hypersim,
    interleaved,
    kitti,
    nyu,
    photos,
    rgbd,
    rl,
    robot,
    simulated_questions,
    simulation,
    vkitti,
)
from training.datasets.base import DataEntry, DataSet, ModelInput, QuestionSet
from training.datasets.interleaved import InterleavedTraces

SetT = TypeVar('SetT')
PICTURE_SETS: dict[str, Callable[[DataEntry, ModelInput], DataSet]] = {
    'simulation': simulation.open_set,
    'vkitti': vkitti.open_set,
    'hypersim': hypersim.open_set,
    'nyu': nyu.open_set,
    'kitti': kitti.open_set,
    'ade20k': ade20k.open_set,
    'photos': photos.open_set,
    'rgbd': rgbd.open_set,
    'robot': robot.open_set,
}
"""Sets of pictures to generate, for stage 1."""
TRACE_SETS: dict[str, Callable[[DataEntry, ModelInput], InterleavedTraces]] = {
    'interleaved': interleaved.open_traces,
}
"""Sets of reasoning written out, for stage 2a."""
QUESTION_SETS: dict[str, Callable[[DataEntry, ModelInput], QuestionSet]] = {
    'simulation': simulated_questions.open_questions,
    'rl': rl.open_questions,
    'interleaved': interleaved.open_traces,
    'robot': robot.open_questions,
}
"""Sets of questions with true answers, for stage 2b."""


def open_pictures(entry: DataEntry, model: ModelInput) -> DataSet:
    """Open a set of pictures.

    :raises ValueError: there is none of that name, or it cannot be used
    :raises FileNotFoundError: its files are missing
    """
    return _named(PICTURE_SETS, entry.set)(entry, model)


def open_traces(entry: DataEntry, model: ModelInput) -> InterleavedTraces:
    """Open a set of reasoning.

    :raises ValueError: there is none of that name, or it cannot be used
    :raises FileNotFoundError: its files are missing
    """
    return _named(TRACE_SETS, entry.set)(entry, model)


def open_questions(entry: DataEntry, model: ModelInput) -> QuestionSet:
    """Open a set of questions.

    :raises ValueError: there is none of that name, or it cannot be used
    :raises FileNotFoundError: its files are missing
    """
    return _named(QUESTION_SETS, entry.set)(entry, model)


def _named(sets: Mapping[str, SetT], name: str) -> SetT:
    if name not in sets:
        raise ValueError(f'there is no data set {name!r} here, expected one of {", ".join(sets)}')
    return sets[name]
