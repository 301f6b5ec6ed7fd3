"""Questions about simulated scenes, with their true answers."""

from __future__ import annotations

from zlib import crc32

import numpy as np

from cooper_sim.grading import Truth
from cooper_sim.questions import Question, ask_questions
from cooper_sim.records import SimDataset
from training.datasets.base import DataEntry, ModelInput, QuestionExample, exact_reward
from training.datasets.report import ReadReport


class SimulatedQuestions:
    """One question about each scene of a folder, in the categories of the evaluation distribution.

    Which question that is depends on the scene alone, so that what was measured of it stays true.

    :raises ValueError: the folder holds no finished data set, or none of it is left to train on
    """

    def __init__(self, entry: DataEntry) -> None:
        self.name, self.records = entry.label, SimDataset(entry.path)
        self.report = ReadReport(self.name)
        self.asked: list[tuple[int, Question]] = []
        for number in range(entry.trained(len(self.records))):
            record = self.records[number]
            for question in ask_questions(record, np.random.default_rng(record.seed), 1):
                self.asked.append((number, question))
        self.report.used = len(self.asked)

    def __len__(self) -> int:
        return len(self.asked)

    def question(self, number: int) -> QuestionExample:
        """Return one question; whether perceiving helps with it must be measured."""
        scene, asked = self.asked[number]
        record = self.records[scene]
        return QuestionExample(
            # Texts may change with the templates; what was measured of the old one must not be taken for the new.
            id=f'scene {record.seed}-{crc32(asked.text.encode()):08x}',
            image=record.image,
            text=asked.text,
            truth=Truth(asked.answer, asked.value, asked.unit, asked.choices),
            choices=asked.choices,
            category=asked.category,
            intrinsics=record.intrinsics,
        )

    def reward(self, answer: str, example: QuestionExample) -> float:
        """Return 1 for a right short answer, otherwise 0."""
        return exact_reward(answer, example)


def open_questions(entry: DataEntry, model: ModelInput) -> SimulatedQuestions:
    """Open the set that a config names."""
    return SimulatedQuestions(entry)
