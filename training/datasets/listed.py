"""Examples that the lines of a list name: what all data sets of image files share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from cooper_model.transforms import resize
from cooper_model.types import Modality
from training.datasets.base import DataEntry, ModelInput
from training.datasets.images import cut, read_rgb, turned
from training.datasets.report import LeftOut, ReadReport
from training.datasets.rows import Line, find_list, read_rows


@dataclass(frozen=True)
class Item:
    """One line.

    :param image: file of the camera image
    :param place: where the line stands, for messages
    """

    image: Path
    place: str


ItemT = TypeVar('ItemT', bound=Item)


class Listed(ABC, Generic[ItemT]):
    """A list of image files.

    :param list_name: the list in the set's folder
    :param remedy: how to get the data
    :raises FileNotFoundError: the list is missing
    :raises ValueError: no line of it can be used
    """

    modalities: tuple[Modality, ...]

    def __init__(self, entry: DataEntry, model: ModelInput, list_name: str, remedy: str) -> None:
        self.name, self.entry, self.model, self.config = entry.label, entry, model, model.config
        path = find_list(entry.path, list_name, remedy)
        self.root = Path(entry.root or path.parent)
        self.report = ReadReport(self.name)
        self.items = read_rows(path, self._parse, self.report)

    @abstractmethod
    def _parse(self, row: Mapping[str, Any], line: Line) -> ItemT | None:
        """Return what a line says, None where it is not asked for.

        :raises LeftOut: it cannot be used
        """

    def __len__(self) -> int:
        return len(self.items)

    def place(self, number: int) -> str:
        """Return the line of an example."""
        return self.items[number].place

    def check_length(self, height: int, width: int) -> None:
        """Check that an image and the maps asked of it fit a sequence.

        :raises LeftOut: they do not
        """
        model = self.model
        if model.max_tokens is None:
            return
        tokens = model.sample_tokens(height, width, self.modalities)
        if tokens > model.max_tokens:
            raise LeftOut('too long', f'{tokens} tokens, at most {model.max_tokens} fit (max_tokens)')

    def is_mirrored(self, rng: np.random.Generator | None) -> bool:
        """Return whether the example at hand is turned left to right."""
        return self.entry.flip and rng is not None and bool(rng.random() < 0.5)

    def read_image(self, item: Item, mirrored: bool, crop: tuple[int, int] | None = None) -> np.ndarray:
        """Return the camera image as it is encoded: cut, turned and resized."""
        return resize(turned(cut(read_rgb(item.image), crop), mirrored), self.config.vae_transform)
