"""Documents are filled from records, and only where they are marked."""

from __future__ import annotations

import pytest

from bench.tables import table, write

SPEED = {
    'name': 'nano', 'command': 'cooper bench --json', 'perception_s': 0.1234, 'decode_tok_per_s': 321.0,
    'cooper_answer_s': None, 'peak_memory_mb': 512.0, 'machine': 'a machine', 'device': 'cpu', 'dtype': 'float32',
    'threads': 2, 'date': '2026-01-01',
}  # fmt: skip
EVALUATION = {
    'name': 'eval', 'command': 'cooper eval --json', 'questions': 8, 'machine': 'a machine', 'date': '2026-01-01',
    'depth': {
        'delta1': 0.8, 'delta1_95': [0.7, 0.9], 'abs_rel': None, 'abs_rel_95': None, 'rmse': 0.3, 'rmse_95': [0, 1],
        'delta1_scaled': 0.9, 'delta1_scaled_95': [0.8, 1.0],
    },
    'segmentation': {'miou': 0.5, 'miou_95': [0.4, 0.6], 'boundary_f1': 0.6, 'boundary_f1_95': [0.5, 0.7]},
    'answers': {
        'overall': 0.5, 'most_frequent': 0.4, 'by_category': {'size': {'accuracy': 0.25, 'most_frequent': 0.1}},
    },
    'by_mode': {
        'auto': {'overall': 0.5, 'by_category': {'size': {'accuracy': 0.25}}},
        'direct': {'overall': 0.45, 'by_category': {'size': {'accuracy': 0.35}}},
    },
}  # fmt: skip


def test_speed_shows_figures_with_units_and_where_they_come_from():
    lines = table(SPEED).splitlines()
    assert '| `perception_s` | 0.123 s |' in lines
    assert '| `decode_tok_per_s` | 321 tokens/s |' in lines
    assert '| `peak_memory_mb` | 512 MB |' in lines
    assert not any('cooper_answer_s' in line or 'threads` ' in line for line in lines)
    assert lines[-1] == '`cooper bench --json`; a machine, cpu, float32, 2 threads; 2026-01-01'


def test_evaluation_has_a_column_a_mode():
    lines = table(EVALUATION).splitlines()
    assert '| depth delta1 | 0.800 | 0.700 to 0.900 |' in lines
    assert '| depth abs_rel | - |  |' in lines
    assert '| answers (8) | auto | direct | most frequent |' in lines
    assert '|---|---|---|---|' in lines
    assert '| all | 0.500 | 0.450 | 0.400 |' in lines
    assert '| size | 0.250 | 0.350 | 0.100 |' in lines


def test_only_marked_places_change_and_a_second_time_nothing():
    document = 'before\n<!-- bench:nano -->\nold\n<!-- /bench -->\nafter\n'
    filled = write(document, {'nano': SPEED})
    assert filled.startswith('before\n') and filled.endswith('<!-- /bench -->\nafter\n') and 'old' not in filled
    assert write(filled, {'nano': SPEED}) == filled


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="'mid'"):
        write('<!-- bench:mid -->\n<!-- /bench -->', {'nano': SPEED})
    with pytest.raises(ValueError, match='no place'):
        write('nothing here', {'nano': SPEED})
