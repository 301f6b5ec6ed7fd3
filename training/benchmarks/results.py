"""A folder of results: settings, one JSON line a question, and a summary; a run that was stopped goes on in it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

SETTINGS, LINES, SUMMARY, VERDICTS = 'run.json', 'results.jsonl', 'summary.json', 'verdicts.jsonl'
Record = dict[str, Any]


class Results:
    """Results that are being made.

    :param settings: everything that decides the answers; a folder made with others is refused
    :raises ValueError: the folder holds results of other settings, or a line cannot be read
    """

    def __init__(self, folder: str | Path, settings: Mapping[str, Any]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / SETTINGS
        if path.is_file():
            found = json.loads(path.read_text(encoding='utf-8'))
            differing = sorted(key for key in {*found, *settings} if found.get(key) != settings.get(key))
            if differing:
                told = '; '.join(f'{key} {found.get(key)!r}, now {settings.get(key)!r}' for key in differing)
                raise ValueError(f'{self.folder} holds other results: {told}; choose another --out')
        else:
            _replace(path, json.dumps(dict(settings), indent=1, ensure_ascii=False) + '\n')
        lines = self.folder / LINES
        self.records = {record['index']: record for record in read_lines(lines)} if lines.is_file() else {}
        self.write(self.records.values())  # without the torn last line of a run that was cut off
        self._file = lines.open('a', encoding='utf-8')

    def append(self, record: Record) -> None:
        """Add one result; it is on disk when this returns."""
        self.records[record['index']] = record
        self._file.write(_line(record))
        self._file.flush()

    def write(self, records: Iterable[Record]) -> None:
        """Write all results anew, at once."""
        _replace(self.folder / LINES, ''.join(map(_line, records)))

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the summary."""
        _replace(self.folder / SUMMARY, json.dumps(dict(summary), indent=1, ensure_ascii=False, allow_nan=False) + '\n')


def read_lines(path: str | Path) -> list[Record]:
    """Read results, without a last line that was cut off.

    :raises FileNotFoundError: there is no such file
    :raises ValueError: another line is no JSON object with an index
    """
    path = Path(path)
    if path.is_dir():
        path = path / LINES
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; give a folder or file of results')
    lines = path.read_text(encoding='utf-8').splitlines(keepends=True)
    records = []
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
            if not isinstance(record, dict) or 'index' not in record:
                raise ValueError('no object with an index')
        except ValueError as error:
            if number == len(lines) and not line.endswith('\n'):
                break
            raise ValueError(f'{path}, line {number}: {error}') from error
        records.append(record)
    return records


def _line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + '\n'


def _replace(path: Path, text: str) -> None:
    fresh = path.with_name(path.name + '.new')
    fresh.write_text(text, encoding='utf-8')
    os.replace(fresh, path)
