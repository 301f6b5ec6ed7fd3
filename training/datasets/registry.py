"""All data sets by name. To add one, write its file and its line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from training.datasets import ade20k, hypersim, kitti, nyu, simulation, vkitti
from training.datasets.base import DataEntry, DataSet, ModelInput

SetT = TypeVar('SetT')
PICTURE_SETS: dict[str, Callable[[DataEntry, ModelInput], DataSet]] = {
    'simulation': simulation.open_set,
    'vkitti': vkitti.open_set,
    'hypersim': hypersim.open_set,
    'nyu': nyu.open_set,
    'kitti': kitti.open_set,
    'ade20k': ade20k.open_set,
}
"""Sets of pictures to generate, for stage 1."""


def read_entry(values: Mapping[str, Any]) -> DataEntry:
    """Return one entry of a config's ``data``.

    :raises ValueError: a key is unknown or missing, or a value is out of range
    """
    known = [field.name for field in fields(DataEntry)]
    unknown = sorted(set(values) - set(known))
    if unknown or not {'set', 'path'} <= set(values):
        raise ValueError(f'data entry {dict(values)}: unknown {unknown}, expected set and path, and maybe {known[2:]}')
    given = dict(values)
    given['only'] = tuple(given.get('only', ()))
    given['classes'] = {str(key): str(name) for key, name in given.get('classes', {}).items()}
    return DataEntry(**given)


def open_pictures(entry: DataEntry, model: ModelInput) -> DataSet:
    """Open a set of pictures.

    :raises ValueError: there is none of that name, or it cannot be used
    :raises FileNotFoundError: its files are missing
    """
    return _named(PICTURE_SETS, entry.set)(entry, model)


def _named(sets: Mapping[str, SetT], name: str) -> SetT:
    if name not in sets:
        raise ValueError(f'there is no data set {name!r} here, expected one of {", ".join(sets)}')
    return sets[name]
