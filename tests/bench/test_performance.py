"""docs/performance.md says what the code works out; tables of measurements come from their records."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.performance import fitting_table, full_table

ROOT = Path(__file__).parents[2]
WHERE = {'machine': 'a machine', 'date': '2026-01-01'}


def test_the_table_of_devices_is_up_to_date():
    text = (ROOT / 'docs' / 'performance.md').read_text(encoding='utf-8')
    written = re.search(r'<!-- bench:fits -->\n(.*?)\n<!-- /bench -->', text, re.DOTALL)
    assert written and written[1] == fitting_table(), 'run python -m bench.performance docs/performance.md'


def test_the_full_benchmark_shows_measured_floor_and_share():
    record = {
        'workload': 'full', 'size': '7b', 'device': 'cuda', 'dtype': 'bfloat16', 'peak_memory_mb': 2000.0,
        'peak_device_memory_mb': 31000.0, 'prefill_512_s': 0.02, 'decode_1k_tok_per_s': 180.0,
        'floors': {'prefill_512_s': 0.01, 'decode_1k_tok_per_s': 240.0},
        'shares': {'prefill_512_s': 0.5, 'decode_1k_tok_per_s': 0.75},
        'ceilings': {'copy_gb_per_s': 3000.0, 'matrix_tflop_per_s': 700.0}, **WHERE,
    }  # fmt: skip
    lines = full_table(record).splitlines()
    assert '| `prefill_512_s` | 0.02 s | 0.01 s | 50% |' in lines
    assert '| `decode_1k_tok_per_s` | 180 tokens/s | 240 tokens/s | 75% |' in lines
    assert 'peak 2.0 GB of the process, 31.0 GB of the GPU' in lines[-1] and lines[-1].endswith('2026-01-01')
    with pytest.raises(ValueError, match="'nano'"):
        full_table({'workload': 'nano'})
