"""A program's YAML file as typed settings: every level is checked, and what is wrong is named with its remedy."""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

T = TypeVar('T')
DEBUG = 'COOPER_DEBUG'  # variable of the environment
# What pydantic calls a key that no field has, by kind of type.
_UNKNOWN = ('unexpected_keyword_argument', 'extra_forbidden')


def config_argument(description: str | None) -> Path:
    """Return the file that ``--config`` names on the command line of a program."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--config', required=True, type=Path)
    return parser.parse_args().config


def program(main: Callable[[], None]) -> Callable[[], None]:
    """Let a program end with one line where a file, a setting or its data are at fault; 1 is its exit status then."""

    @wraps(main)
    def run() -> None:
        try:
            main()
        except (OSError, ValueError, FloatingPointError) as error:
            if os.environ.get(DEBUG):
                raise
            sys.exit(f'{Path(sys.argv[0]).stem}: {error}\n({DEBUG}=1 shows where)')

    return run


def read_settings(path: str | Path, cls: type[T], partly: bool = False) -> T:
    """Read a YAML file into a dataclass; its fields may be dataclasses, and tuples or mappings of them.

    :param partly: leave unread what the dataclass does not name at its first level

    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is not YAML, a key is unknown or missing, or a value does not fit; all faults are named
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; give the YAML file of the run')
    try:
        values = yaml.safe_load(path.read_text(encoding='utf-8'))
    except yaml.YAMLError as error:
        raise ValueError(f'{path} is not valid YAML: {error}') from error
    if not isinstance(values, dict):
        raise ValueError(f'{path} holds {type(values).__name__}, expected a mapping of settings')
    if partly:
        values = {name: value for name, value in values.items() if name in {field.name for field in fields(cls)}}
    try:
        return TypeAdapter(cls).validate_python(values, extra='forbid')
    except ValidationError as error:
        faults = '; '.join(_describe(fault, cls) for fault in error.errors(include_url=False))
        raise ValueError(f'{path}: {faults}') from error


def _describe(fault: Any, cls: type) -> str:
    place = fault['loc']
    name = '.'.join(str(step) for step in place)
    if fault['type'] in _UNKNOWN:
        return f'{name} is unknown, {_known(cls, place[:-1])}'
    if fault['type'] == 'missing':
        return f'{name} is missing, {_known(cls, place[:-1])}'
    message = fault['msg'].removeprefix('Value error, ')
    return f'{name}: {message}' if fault['type'] == 'value_error' else f'{name} is {fault["input"]!r}: {message}'


def _known(cls: type, place: Sequence[str | int]) -> str:
    """Say which keys there are at a place."""
    kinds: list[Any] = [cls]
    for step in place:
        kinds = [inner for kind in kinds for inner in _inside(kind, step)]
    keys = [field.name for kind in kinds if is_dataclass(kind) for field in fields(kind)]
    where = f' in {".".join(str(step) for step in place)}' if place else ''
    return f'known keys{where} are {", ".join(keys)}'


def _inside(kind: Any, step: str | int) -> list[Any]:
    """Return what the type of a value may be one step further, unions opened."""
    if is_dataclass(kind):
        found = get_type_hints(kind).get(step)
    else:
        # Of a tuple or a mapping, the type of its items.
        found = next((inner for inner in reversed(get_args(kind)) if inner is not Ellipsis), None)
    return list(get_args(found)) if get_origin(found) in (Union, types.UnionType) else [found]
