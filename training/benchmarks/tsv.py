"""Benchmark files as VLMEvalKit has them: one question a row, columns separated by tabs.

Columns: ``index``, ``question``, ``answer`` (or ``answer_value`` and ``answer_unit``), ``image`` (base64, a path, or
the index of the row whose image it is) or ``image_path`` (one, a list, or several by commas), and where there are any
``hint``, options ``A``, ``B`` .., ``category``, ``l2-category``, ``split``, ``type``, ``data_source``,
``question_type``.
"""

from __future__ import annotations

import ast
import csv
import hashlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from training.benchmarks.choice import options_of
from training.benchmarks.items import Item, Row, Skipped
from training.benchmarks.scorings import SCORINGS, scoring_of

CATEGORIES = ('category', 'question_type')  # the first that a file has
GROUPS = ('l2-category', 'split', 'data_source')
REFERENCE = 64  # characters of the longest image cell that names another row


@dataclass(frozen=True)
class Benchmark:
    """A file's questions.

    :param digest: SHA-256 of the file
    """

    name: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    digest: str


def read_benchmark(path: str | Path, scoring: str | None = None) -> Benchmark:
    """Read a file; malformed rows are skipped and listed.

    The file is held in memory, images included.

    :param scoring: name of a scoring for all rows; by default each row's own
    :raises FileNotFoundError: there is no such file
    :raises ValueError: it is no such table, or there is no such scoring
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path} is not a file; give a benchmark in the TSV form of VLMEvalKit')
    if scoring is not None and scoring not in SCORINGS:
        raise ValueError(f'no scoring {scoring!r}; choose from {", ".join(SCORINGS)}')
    items: dict[str, Item] = {}
    skipped: list[Skipped] = []
    images: dict[str, str] = {}
    for number, row in _rows(path, skipped):
        index = row.get('index') or str(number)
        images.setdefault(index, row.get('image', ''))
        try:
            if index in items:
                raise ValueError(f'index {index!r} is that of row {items[index].row} too')
            items[index] = _item(number, index, row, scoring)
        except ValueError as error:
            skipped.append(Skipped(number, index, str(error)))
    found = []
    for item in items.values():
        try:
            found.append(_with_images(item, images))
        except ValueError as error:
            skipped.append(Skipped(item.row, item.index, str(error)))
    skipped.sort(key=lambda row: row.row)
    return Benchmark(path.stem, tuple(found), tuple(skipped), hashlib.sha256(path.read_bytes()).hexdigest())


def _rows(path: Path, skipped: list[Skipped]) -> Iterator[tuple[int, Row]]:
    """Yield number and cells of the rows that have as many cells as the header."""
    csv.field_size_limit(sys.maxsize)
    with path.open(encoding='utf-8-sig', newline='') as file:
        try:
            lines = csv.reader(file, delimiter='\t')
            header = [name.strip() for name in next(lines, [])]
            _check(path, header)
            for number, cells in enumerate(lines, 1):
                if len(cells) == len(header):
                    yield number, {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
                elif cells:
                    reason = f'{len(cells)} cells (up to line {lines.line_num}), the header has {len(header)}'
                    skipped.append(Skipped(number, cells[0][:REFERENCE], reason))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f'{path} is no table of UTF-8 text separated by tabs: {error}') from error


def _check(path: Path, header: list[str]) -> None:
    for names in (('question',), ('answer', 'answer_value'), ('image', 'image_path')):
        if not set(names) & set(header):
            listed = ', '.join(header)[:200] or 'nothing'
            raise ValueError(f'{path} has no column {" or ".join(names)}; its header is: {listed}')


def _item(number: int, index: str, row: Row, scoring: str | None) -> Item:
    row = {'answer': '', **row}
    if not row['question']:
        raise ValueError('the question is empty')
    chosen = SCORINGS[scoring] if scoring else scoring_of(row)
    hint = f'{row["hint"]}\n' if row.get('hint') else ''
    return Item(
        row=number,
        index=index,
        question=hint + row['question'],
        scoring=chosen.name,
        truth=chosen.truth(row),
        choices=options_of(row),
        category=next((row[name] for name in CATEGORIES if row.get(name)), ''),
        groups={name: row[name] for name in GROUPS if row.get(name)},
        images=_several(row.get('image_path', ''), ','),
    )


def _with_images(item: Item, images: dict[str, str]) -> Item:
    """Return a question with the images of its row, or of the row that it names instead of an image."""
    cell = images[item.index]
    if 0 < len(cell) <= REFERENCE and not Path(cell).suffix:
        cell = images.get(cell, '')
        if len(cell) <= REFERENCE and not Path(cell).suffix:
            raise ValueError(f'the image names row {images[item.index]!r}, which has none')
    found = _several(cell, '') or item.images
    if not found:
        raise ValueError('there is no image')
    return replace(item, images=found)


def _several(cell: str, separator: str) -> tuple[str, ...]:
    """Return the entries of a cell that holds one, a list as Python writes it, or several by a separator."""
    if cell.startswith('[') and cell.endswith(']'):
        try:
            entries = ast.literal_eval(cell)
        except (ValueError, SyntaxError, MemoryError) as error:
            raise ValueError(f'the list of images cannot be read: {error}') from None
        return tuple(str(entry).strip() for entry in entries)
    parts = cell.split(separator) if separator else [cell]
    return tuple(part.strip() for part in parts if part.strip())
