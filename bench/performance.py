"""Write docs/performance.md: what fits which device, worked out anew, and the figures of `cooper bench --full`.

    python -m bench.performance docs/performance.md [--full full.json]

The table of devices needs no measurement. ``--full`` is the JSON object that ``cooper bench --full --json`` printed;
without it the place of its table stays as it is.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from bench.tables import fill_marks
from cooper_cli.plan import describe, devices
from cooper_model.config import CooperConfig
from cooper_model.memory import GB, make_plan

NAMES = {'jetson': 'Jetson', 'desktop': 'card'}
HEADS = ('device', 'understanding', 'generation', 'output layer', 'image', 'branches', 'weights', 'caches', 'working',
         'system, runtime', 'left')  # fmt: skip


def fitting_table() -> str:
    """Return what fits the usual devices, with the published sizes, as Markdown; memory in GB of 1e9 bytes."""
    rows = [f'| {" | ".join(HEADS)} |', '|---' * len(HEADS) + '|']
    config = CooperConfig()
    for kind, size in devices():
        record = describe(config, make_plan(config, int(size * GB), kind))
        label = f'{NAMES[kind]} {size} GB'
        if not record['fits']:
            lacking = f'nothing fits: {-record["free"] / GB:.1f} GB are lacking'
            rows.append(f'| {label} | {lacking} |' + ' |' * (len(HEADS) - 2))
            continue
        width, height = record['image_size']
        rows.append(f'| {" | ".join([label, *record["precision"].values(), f"{width}x{height}"])} '
                    f'| {record["branches"]} | {" | ".join(_gigabytes(record))} |')  # fmt: skip
    return '\n'.join(rows)


def _gigabytes(record: dict[str, Any]) -> list[str]:
    sizes = record['bytes']
    weights = sum(size for name, size in sizes.items() if name.endswith(' weights'))
    assumed = sum(size for name, size in sizes.items() if name.endswith('(assumed)'))
    caches = sizes['keys and values'] + sizes['decoding by a CUDA graph']
    parts = (weights, caches, sizes['working memory'], assumed, record['free'])
    return [f'{size / GB:.1f}' for size in parts]


def full_table(record: dict[str, Any]) -> str:
    """Return the figures of the full-size benchmark as Markdown: measured, floor, share.

    :raises ValueError: the record is of another workload
    """
    if record.get('workload') != 'full':
        raise ValueError(f'a record of workload {record.get("workload")!r}, expected that of cooper bench --full')
    rows = ['| figure | measured | floor | share |', '|---|---|---|---|']
    for name, floor in record['floors'].items():
        unit = 'tokens/s' if name.endswith('tok_per_s') else 's'
        rows.append(f'| `{name}` | {record[name]:.3g} {unit} | {floor:.3g} {unit} | {record["shares"][name]:.0%} |')
    rates = record['ceilings']
    where = (
        f'{record["size"]}, {record["device"]}, {record["dtype"]}; copies {rates["copy_gb_per_s"]:.0f} GB/s, '
        f'products {rates["matrix_tflop_per_s"]:.0f} TFLOP/s; '
        f'peak {record["peak_memory_mb"] / 1e3:.1f} GB of the process'
    )
    if 'peak_device_memory_mb' in record:
        where += f', {record["peak_device_memory_mb"] / 1e3:.1f} GB of the GPU'
    return '\n'.join([*rows, '', f'`cooper bench --full`; {where}; {record["machine"]}; {record["date"]}'])


def main() -> None:
    """Fill the document."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('document', type=Path)
    parser.add_argument('--full', type=Path, metavar='FILE', help='what cooper bench --full --json printed')
    given = parser.parse_args()
    try:
        tables = {'fits': fitting_table()}
        if given.full:
            tables['full'] = full_table(json.loads(given.full.read_text(encoding='utf-8')))
        text = fill_marks(given.document.read_text(encoding='utf-8'), tables)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    given.document.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
