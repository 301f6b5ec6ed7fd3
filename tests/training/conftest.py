"""What tests of data sets start from: a tiny model's sizes and words, and files in the released formats."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cooper_model.tokenizer import Tokenizer
from tests.random_checkpoint import PROMPTS, tiny_config, tiny_tokenizer
from training.datasets.base import ModelInput


@pytest.fixture(scope='session')
def words() -> ModelInput:
    """Return what data sets must know of a tiny model for images of up to 64 x 48 pixels."""
    config = tiny_config()
    return ModelInput(config, Tokenizer(tiny_tokenizer(), config.tokens), PROMPTS)


@pytest.fixture
def write_png(tmp_path: Path) -> Callable[[str, np.ndarray], str]:
    """Return a function that writes an array as a PNG below ``tmp_path`` and returns its name."""

    def write(name: str, pixels: np.ndarray) -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
        return name

    return write


@pytest.fixture
def write_list(tmp_path: Path) -> Callable[[str, Iterable[dict | str]], Path]:
    """Return a function that writes JSON lines, texts as they are, and returns the file."""

    def write(name: str, lines: Iterable[dict | str]) -> Path:
        path = tmp_path / name
        path.write_text('\n'.join(line if isinstance(line, str) else json.dumps(line) for line in lines) + '\n')
        return path

    return write
