"""Numbers of seats take turns at the same work, and a table tells what sitting together gains."""

from __future__ import annotations

import json

import pytest

from bench.together import main, table

RECORD = {
    'model': 'random mid',
    'device': 'cpu',
    'dtype': 'float32',
    'threads': 2,
    'rounds': 3,
    'rates': {
        'tokens_per_s': {'1': [10.0, 20.0, 30.0], '4': [30.0, 40.0, 60.0]},
        'images_per_s': {'1': [1.0, 1.0, 2.0], '4': [1.5, 1.0, 2.0]},
    },
    'machine': 'a machine',
    'date': '2026-01-01',
}


def test_the_table_tells_medians_and_gains_by_round():
    lines = table(RECORD).splitlines()
    assert lines[0] == '| at once | tokens a second | images a second |'
    assert lines[2:4] == ['| 1 | 20 (1.00x) | 1 (1.00x) |', '| 4 | 40 (2.00x) | 1.5 (1.00x) |']
    assert 'random mid; cpu in float32, 2 threads, 3 rounds; a machine' in lines[-1]


def test_it_measures_and_writes_into_a_document(tmp_path, capsys):
    out, document = tmp_path / 'together.json', tmp_path / 'page.md'
    main(['--random', 'tiny', '--seats', '1', '2', '--rounds', '1', '--device', 'cpu', '--out', str(out)])
    record = json.loads(out.read_text())
    assert {name: set(rates) for name, rates in record['rates'].items()} == {
        'tokens_per_s': {'1', '2'},
        'images_per_s': {'1', '2'},
    }
    assert all(rate > 0 for rates in record['rates'].values() for found in rates.values() for rate in found)
    document.write_text('<!-- bench:together -->\n<!-- /bench -->\n')
    main(['--table', str(document), '--out', str(out)])
    assert 'random tiny' in document.read_text()
    with pytest.raises(SystemExit):
        main(['--random', 'tiny', '--rounds', '0'])
    assert 'expected 1 or more' in capsys.readouterr().err
