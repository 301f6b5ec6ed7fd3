"""Make cooper-nano's tokenizer: byte-level pairs merged on questions, descriptions and thoughts of simulated scenes.

``python -m training.tokenizer --scenes DIR --architecture training/configs/nano``. Tags are tokens of their own, so
that a small model cannot misspell them; any other text is still spelled in bytes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from cooper_model.config import CooperConfig
from cooper_model.prompts import Prompts
from cooper_model.tokenizer import CONTROL, FILE_NAME
from cooper_sim.questions import ask_questions
from cooper_sim.records import SimDataset
from training.describe import REQUEST, describe
from training.traces import LOOK_THOUGHTS, answering_turn

TAGS = (
    '<think>', '</think>', '<depth-estimation>', '</depth-estimation>', '<segmentation>', '</segmentation>',
    '<answer>', '</answer>', '\\boxed{', '}',
)  # fmt: skip
PER_SCENE = 8


def corpus(scenes: SimDataset, prompts: Prompts) -> Iterator[str]:
    """Yield everything that the model will read and write."""
    fixed = [value for value in vars(prompts).values() if value] + [REQUEST, *LOOK_THOUGHTS.values()]
    for number in range(len(scenes)):
        record = scenes[number]
        yield describe(record, np.random.default_rng(number))
        for question in ask_questions(record, np.random.default_rng(number), PER_SCENE):
            turn = answering_turn(question, record)
            yield from (question.text, turn.thought, turn.body)
        yield from fixed


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--scenes', required=True)
    parser.add_argument('--architecture', required=True, type=Path)
    arguments = parser.parse_args()
    config = CooperConfig.load(arguments.architecture)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.decoder.vocab_size - len(TAGS),
        special_tokens=list(CONTROL.values()),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(SimDataset(arguments.scenes), Prompts.load(arguments.architecture)), trainer)
    tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
    tokenizer.save(str(arguments.architecture / FILE_NAME))


if __name__ == '__main__':
    main()
