"""JSON Lines: one object a line, read with its line number; a line that cannot be used is reported and skipped.

A file whose name ends in ``.json`` is one array instead, whose elements count as lines.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from training.datasets.report import LeftOut, ReadReport

log = logging.getLogger(__name__)
ItemT = TypeVar('ItemT')


@dataclass(frozen=True)
class Line:
    """Where a line stands.

    :param offset: of its first byte
    """

    path: Path
    number: int
    offset: int

    @property
    def place(self) -> str:
        return f'{self.path}:{self.number}'


def find_list(path: str | Path, default: str, remedy: str) -> Path:
    """Return the list of a data set: ``path`` itself, or ``default`` in the folder ``path``.

    :param remedy: how to get the data
    :raises FileNotFoundError: there is none
    """
    found = Path(path)
    found = found / default if found.is_dir() else found
    if not found.is_file():
        raise FileNotFoundError(f'{found} is missing. {remedy}')
    return found


def read_rows(
    path: Path, parse: Callable[[Mapping[str, Any], Line], ItemT | None], report: ReadReport
) -> list[ItemT]:
    """Return what ``parse`` makes of each line; blank lines are nothing.

    :param parse: raises LeftOut for a line that cannot be used, returns None for one that is not asked for
    :raises ValueError: no line at all can be used
    """
    items = []
    for line, raw in _lines(path):
        try:
            item = parse(_parse_object(raw), line)
        except LeftOut as error:
            report.leave_out(line.place, error)
            continue
        if item is not None:
            items.append(item)
    report.used += len(items)
    log.info('%s', report.summary())
    if not items:
        raise ValueError(f'{path}: no line can be used; {report.summary()}. Check path and root of the data set')
    return items


def _lines(path: Path) -> Iterator[tuple[Line, bytes | str]]:
    """Yield each line that is not blank, or each element of an array."""
    if path.suffix == '.json':
        try:
            rows = json.loads(path.read_bytes())
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise ValueError(f'{path} is not valid JSON: {error}') from error
        if not isinstance(rows, list):
            raise ValueError(f'{path} holds {type(rows).__name__}, expected an array of objects')
        yield from ((Line(path, number, 0), json.dumps(row)) for number, row in enumerate(rows, start=1))
        return
    offset = 0
    with open(path, 'rb') as file:
        for number, raw in enumerate(file, start=1):
            if raw.strip():
                yield Line(path, number, offset), raw
            offset += len(raw)


def read_row(line: Line) -> Mapping[str, Any]:
    """Return the object of a line again."""
    with open(line.path, 'rb') as file:
        file.seek(line.offset)
        return _parse_object(file.readline())


def _parse_object(raw: bytes | str) -> Mapping[str, Any]:
    try:
        row = json.loads(raw)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise LeftOut('broken line', f'not valid JSON: {error}') from error
    if not isinstance(row, dict):
        raise LeftOut('broken line', f'{type(row).__name__}, expected a JSON object')
    return row


def text_of(row: Mapping[str, Any], key: str, default: str | None = None) -> str:
    """Return the text under ``key``; ``default`` where it is absent.

    :raises LeftOut: it is no text, or absent and there is no default
    """
    value = row.get(key, default)
    if not isinstance(value, str):
        raise LeftOut('broken line', f'{key!r} is {_shown(value)}, expected a text')
    return value


def number_of(row: Mapping[str, Any], key: str, default: float | None = None) -> float | None:
    """Return the number under ``key``, None or the default where it is absent.

    :raises LeftOut: it is no number
    """
    value = row.get(key, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
        raise LeftOut('broken line', f'{key!r} is {_shown(value)}, expected a number')
    return value


def _shown(value: object) -> str:
    return 'missing' if value is None else f'{value!r:.60}'
