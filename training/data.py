"""What stage 1 draws its batches from: several data sets, each with a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from cooper_model.types import Modality
from training.datasets.base import DataEntry, DataSet, Example, ModelInput
from training.datasets.registry import open_pictures
from training.datasets.report import LeftOut
from training.latents import Encoder, LatentCache, counted_tokens

_TRIES = 100


@dataclass(frozen=True)
class Part:
    """One data set of a mixture.

    :param count: how many examples, from the first, are trained on; 0 where the weight is 0
    :param held_out: numbers of those that are only scored
    :param latents: of the examples that are trained on, where they are kept
    """

    data: DataSet
    weight: float
    count: int
    held_out: range
    latents: LatentCache | None = None


@dataclass(frozen=True)
class Sample:
    """One example as latents.

    :param image: ``(tokens, latent_dim)`` of the camera image
    :param targets: the same of each picture to generate
    :param counted: ``(tokens,)`` bool, where only some tokens of a target count in the loss
    """

    example: Example
    image: Tensor
    targets: Mapping[Modality, Tensor]
    counted: Mapping[Modality, Tensor]


class Mixture:
    """Draws examples from several data sets and gives their latents.

    :raises ValueError: no set has a weight
    """

    def __init__(self, parts: Sequence[Part], encoder: Encoder) -> None:
        self.parts, self.encoder = list(parts), encoder
        self.drawn = [part for part in parts if part.weight > 0]
        if not self.drawn:
            raise ValueError('data lists no set with a weight; name one, for example '
                             '{set: simulation, path: runs/scenes}')  # fmt: skip
        weights = np.array([part.weight for part in self.drawn])
        self._chances = weights / weights.sum()

    def draw(self, count: int, rng: np.random.Generator) -> list[Sample]:
        """Return ``count`` samples; an example whose files cannot be read is reported and another one drawn.

        :raises ValueError: hardly any example can be read
        """
        if len(self.drawn) == 1:
            owners = self.drawn * count
            numbers = rng.integers(0, self.drawn[0].count, count)
        else:
            owners = [self.drawn[n] for n in rng.choice(len(self.drawn), count, p=self._chances)]
            numbers = np.array([rng.integers(0, owner.count) for owner in owners])
        found = [self._example(owner, int(n), rng) for owner, n in zip(owners, numbers, strict=True)]
        return self.samples(owners, found)

    def _example(self, part: Part, number: int, rng: np.random.Generator) -> tuple[int, Example]:
        for _ in range(_TRIES):
            try:
                example = part.data.example(number, rng, maps=part.latents is None)
                if part.latents is not None and not part.latents.is_known(number):
                    raise LeftOut('nothing valid', 'no picture to generate is kept of it')
                return number, example
            except LeftOut as error:
                part.data.report.leave_out(part.data.place(number), error)
                number = int(rng.integers(0, part.count))
        raise ValueError(f'{part.data.name}: {_TRIES} examples in a row cannot be read; {part.data.report.summary()}')

    def samples(self, owners: Sequence[Part], found: Sequence[tuple[int, Example]]) -> list[Sample]:
        """Return numbered examples as latents: kept ones where there are any, all others encoded together."""
        pictures = []
        for part, (_, example) in zip(owners, found, strict=True):
            if part.latents is None:
                pictures += [example.image, *(target.picture for target in example.targets.values())]
        encoded = iter(self.encoder.encode(pictures))
        samples = []
        for part, (number, example) in zip(owners, found, strict=True):
            if part.latents is None:
                image, targets = next(encoded), {kind: next(encoded) for kind in example.targets}
                masks = {k: counted_tokens(target, self.encoder.stride) for k, target in example.targets.items()}
                counted = {kind: mask for kind, mask in masks.items() if mask is not None}
                samples.append(Sample(example, image, targets, counted))
            else:
                samples.append(_kept(part.latents, number, example))
        return samples


def _kept(latents: LatentCache, number: int, example: Example) -> Sample:
    """Return an example with its kept latents; what nothing is known of is left out."""
    rows = {kind: latents.get(np.array([number]), kind)[0] for kind in latents.kinds}
    masks = {kind: latents.counted(number, kind) for kind in latents.kinds[1:]}
    image = rows.pop('image')
    targets = {kind: tokens for kind, tokens in rows.items() if masks[kind] is None or masks[kind].any()}
    return Sample(example, image, targets, {k: mask for k, mask in masks.items() if mask is not None})


def open_mixture(
    entries: Sequence[DataEntry], model: ModelInput, autoencoder: nn.Module
) -> Mixture:
    """Open the data sets that a config's ``data`` lists.

    :raises ValueError: none has a weight, one cannot be used, or two have one name
    :raises FileNotFoundError: files of one are missing
    """
    names = [entry.label for entry in entries]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f'data has several sets called {", ".join(twice)}; give each a name of its own (name: ..)')
    parts = [_open_part(entry, model, autoencoder) for entry in entries]
    return Mixture(parts, Encoder(autoencoder, model.config))


def _open_part(entry: DataEntry, model: ModelInput, autoencoder: nn.Module) -> Part:
    data = open_pictures(entry, model)
    count = entry.trained(len(data))
    latents = LatentCache(entry.latents, data, autoencoder, count) if entry.latents and count else None
    held_out = entry.held_out if count else len(data)
    return Part(data, entry.weight, count, range(len(data) - held_out, len(data)), latents)


def grid_of(tokens: Tensor, image: np.ndarray, stride: int) -> tuple[int, int]:
    """Return rows and columns of an image's latent tokens.

    :raises ValueError: there are not as many tokens
    """
    rows, columns = image.shape[0] // stride, image.shape[1] // stride
    if len(tokens) != rows * columns:
        raise ValueError(
            f'{len(tokens)} latent tokens do not fit an image of {rows} x {columns} cells; delete the kept latents'
        )
    return rows, columns
