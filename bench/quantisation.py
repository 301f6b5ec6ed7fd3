"""What fewer bits cost: `cooper eval` for each setting, on the same scenes with the same noise.

    python -m bench.quantisation [--settings none int8 int4] [--scenes 100] [--out runs/quantisation.json]
    python -m bench.quantisation --out runs/quantisation.json --table docs/performance.md

Settings are those of `cooper eval --quantise`; by default those that `cooper plan` chooses from. Answers are direct
ones unless --modes says otherwise. Where the processor has no kernel for a format, weights are rounded and back:
quality is that of the format, speed is not, so times are left out. Settings that ``--out`` holds already are not
measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.run import measure
from bench.tables import fill_file, keep_record
from cooper_model.quantise import FULL, Quantisation

SETTINGS = (
    FULL,
    'understanding=int8',
    'int8',
    'int8-fp8',
    'int4-fp8,lm_head=int8',
    'int4-int4,lm_head=int8',
    'int4-int4,lm_head=int4',
)
FIGURES = (('depth', 'abs_rel'), ('depth', 'delta1'), ('segmentation', 'miou'), ('answers', 'overall'))


def table(record: dict[str, Any]) -> str:
    """Return a record as Markdown, each figure with half of its 95 % interval."""
    heads = ['setting', *(name if part != 'answers' else 'answers' for part, name in FIGURES)]
    rows = [f'| {" | ".join(heads)} |', '|---' * len(heads) + '|']
    for setting, entry in record['by_setting'].items():
        cells = [_cell(entry[part], name) for part, name in FIGURES]
        rows.append(f'| {" | ".join([f"`{setting}`", *cells])} |')
    last = list(record['by_setting'].values())[-1]
    where = f'{record["checkpoint"]}, {record["scenes"]} scenes, mode {record["modes"]}, seed {record["seed"]}'
    return '\n'.join([*rows, '', f'`python -m bench.quantisation`; {where}; {last["machine"]}; {last["date"]}'])


def _cell(entry: dict[str, Any], name: str) -> str:
    if entry[name] is None:
        return '-'
    bounds = entry.get(f'{name}_95')
    return f'{entry[name]:.3f}' + (f' ± {(bounds[1] - bounds[0]) / 2:.3f}' if bounds else '')


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--checkpoint', metavar='DIR', help='default the shipped nano')
    parser.add_argument('--settings', nargs='+', default=SETTINGS)
    parser.add_argument('--scenes', type=int, default=100)
    parser.add_argument('--modes', default='direct', help='as of cooper eval; the first counts')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--workers', type=int, default=0)
    parser.add_argument('--out', type=Path, default=Path('runs/quantisation.json'))
    parser.add_argument('--table', type=Path, metavar='DOCUMENT', help='write what --out holds there, measure nothing')
    given = parser.parse_args(arguments)
    try:
        record = _read(given.out) if given.table else _measure_all(given)
        if given.table:
            fill_file(given.table, {'quantisation': table(record)})
        else:
            sys.stdout.write(table(record) + '\n')
    except (OSError, ValueError) as error:
        parser.error(str(error))


def _measure_all(given: argparse.Namespace) -> dict[str, Any]:
    for setting in given.settings:
        Quantisation.parse(setting)  # before hours of work
    asked = {'checkpoint': given.checkpoint or 'nano', 'scenes': given.scenes, 'modes': given.modes, 'seed': given.seed}
    record = _read(given.out) if given.out.is_file() else {**asked, 'by_setting': {}}
    differing = [name for name, value in asked.items() if record.get(name) != value]
    if differing:
        raise ValueError(f'{given.out} was measured with another {", ".join(differing)}; choose another --out')
    further = ['--scenes', str(given.scenes), '--modes', given.modes]
    further += ['--seed', str(given.seed), '--workers', str(given.workers)]
    further += ['--checkpoint', given.checkpoint] if given.checkpoint else []
    for setting in given.settings:
        if setting not in record['by_setting']:
            quantise = [] if setting == FULL else ['--quantise', setting]
            record['by_setting'][setting] = measure('eval', [*further, *quantise])
            keep_record(given.out, record)
    return record


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing; measure first')
    return json.loads(path.read_text(encoding='utf-8'))


if __name__ == '__main__':
    main()
