"""Write measured lines into a Markdown document, between the marks that name them.

    python -m bench.tables RESULTS.jsonl DOCUMENT.md

A place for the newest line of a name is marked so:

    <!-- bench:NAME -->
    <!-- /bench -->
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

UNITS = {'tok_per_s': 'tokens/s', 's': 's', 'mb': 'MB'}
MAPS = {'depth': ('delta1', 'abs_rel', 'rmse', 'delta1_scaled'), 'segmentation': ('miou', 'boundary_f1')}
MARK = re.compile(r'(<!-- bench:(\w+) -->\n).*?(<!-- /bench -->)', re.DOTALL)


def write(document: str, records: dict[str, dict[str, Any]]) -> str:
    """Return the document with every marked place filled from its record.

    :raises ValueError: a place names a record that is not there, or there is no place at all
    """
    for _, name, _ in MARK.findall(document):
        if name not in records:
            raise ValueError(f'no measurement {name!r} among {", ".join(records) or "nothing"}; run bench.run')
    return fill_marks(document, {name: table(record) for name, record in records.items()})


def fill_marks(document: str, tables: dict[str, str]) -> str:
    """Return the document with the places of these tables filled, others as they are.

    :raises ValueError: there is no place for any of them
    """
    if not any(match[2] in tables for match in MARK.finditer(document)):
        places = ', '.join(f'<!-- bench:{name} -->' for name in tables)
        raise ValueError(f'the document has no place marked {places} ... <!-- /bench -->')

    def fill(match: re.Match[str]) -> str:
        return f'{match[1]}{tables[match[2]]}\n{match[3]}' if match[2] in tables else match[0]

    return MARK.sub(fill, document)


def fill_file(document: Path, tables: dict[str, str]) -> None:
    """Fill the places of these tables in a file; errors as :func:`fill_marks`."""
    document.write_text(fill_marks(document.read_text(encoding='utf-8'), tables), encoding='utf-8')


def fill_from(document: Path, out: Path, mark: str, table: Callable[[Any], str]) -> None:
    """Fill the place of one table from a record that :func:`keep_record` wrote; errors as :func:`fill_marks`."""
    fill_file(document, {mark: table(json.loads(out.read_text(encoding='utf-8')))})


def add_record_options(parser: argparse.ArgumentParser, out: str) -> None:
    """Let a program be told where its record is kept, and which document it is written into."""
    parser.add_argument('--out', type=Path, default=Path(out))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')


def keep_record(path: Path, record: Any) -> None:
    """Write what was measured, as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=1) + '\n', encoding='utf-8')


def table(record: dict[str, Any]) -> str:
    """Return the Markdown of one record: figures, then command, machine and date."""
    body = _evaluation(record) if 'answers' in record else _speed(record)
    rest = [f'{record[key]} {key}' for key in ('threads', 'workers') if record.get(key)]
    where = ', '.join([record['machine'], *filter(None, (record.get('device'), record.get('dtype'))), *rest])
    return f'{body}\n\n`{record["command"]}`; {where}; {record["date"]}'


def unit_of(figure: str) -> str:
    """Return the unit of a figure by the end of its name; empty for what has none."""
    return next((UNITS[end] for end in UNITS if figure.endswith(f'_{end}')), '')


def _speed(record: dict[str, Any]) -> str:
    rows = ['| figure | median |', '|---|---|']
    for name, value in record.items():
        unit = unit_of(name)
        if unit and isinstance(value, (int, float)):
            rows.append(f'| `{name}` | {value:.3g} {unit} |')
    return '\n'.join(rows)


def _evaluation(record: dict[str, Any]) -> str:
    modes = record['by_mode']
    rows = ['| maps | mean | 95 % interval |', '|---|---|---|']
    for part, names in MAPS.items():
        for name in names:
            found, bounds = record[part][name], record[part][f'{name}_95']
            rows.append(f'| {part} {name} | {_share(found)} | {" to ".join(_share(bound) for bound in bounds or ())} |')
    first = record['answers']
    rows += ['', _row(f'answers ({record["questions"]})', [*modes, 'most frequent']), '|---' * (len(modes) + 2) + '|']
    shares = [found['overall'] for found in modes.values()]
    rows.append(_row('all', map(_share, [*shares, first['most_frequent']])))
    for name, entry in first['by_category'].items():
        shares = [found['by_category'][name]['accuracy'] for found in modes.values()]
        rows.append(_row(name, map(_share, [*shares, entry['most_frequent']])))
    return '\n'.join(rows)


def _row(label: str, cells: Iterable[str]) -> str:
    return f'| {" | ".join([label, *cells])} |'


def _share(value: float | None) -> str:
    return '-' if value is None else f'{value:.3f}'


def main() -> None:
    """Fill a document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('results', type=Path)
    parser.add_argument('document', type=Path)
    given = parser.parse_args()
    lines = given.results.read_text(encoding='utf-8').splitlines()
    records = {record['name']: record for record in map(json.loads, lines)}  # the newest line of a name stays
    try:
        text = write(given.document.read_text(encoding='utf-8'), records)
    except ValueError as error:
        parser.error(f'{given.document}: {error}')
    given.document.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
