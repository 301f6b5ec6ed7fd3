"""Back ends do the same work in turns, and a table tells which is faster."""

from __future__ import annotations

import json

import pytest

from bench.backends import main, ratio, table

RECORD = {
    'model': 'random mid',
    'rounds': {
        'torch': {'decode_tok_per_s': [10.0, 20.0, 30.0], 'image_context_s': [1.0, 2.0, 4.0]},
        'onnx': {'decode_tok_per_s': [20.0, 30.0, 30.0], 'image_context_s': [2.0, 1.0, 8.0]},
    },
    'count': 3,
    'backends': {name: {'device': 'cpu', 'dtype': 'float32'} for name in ('torch', 'onnx')},
    'threads': 2,
    'machine': 'a machine',
    'date': '2026-01-01',
}


def test_ratios_are_those_of_rounds_and_above_one_for_the_faster():
    rates, seconds = (RECORD['rounds']['torch'][name] for name in ('decode_tok_per_s', 'image_context_s'))
    other = RECORD['rounds']['onnx']
    assert ratio('decode_tok_per_s', rates, other['decode_tok_per_s']) == 1.5
    assert ratio('image_context_s', seconds, other['image_context_s']) == 0.5


def test_the_table_names_both_and_how_they_ran():
    lines = table(RECORD).splitlines()
    assert lines[0] == '| figure | torch | onnx | onnx against torch |'
    assert lines[2] == '| `decode_tok_per_s` | 20 tokens/s | 30 tokens/s | 1.50 |'
    assert 'torch on cpu in float32; onnx on cpu in float32; 2 threads, 3 rounds; a machine' in lines[-1]


def test_both_are_measured_and_written_into_a_document(tmp_path, monkeypatch, capsys):
    pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    monkeypatch.setenv('COOPER_CACHE', str(tmp_path / 'cache'))
    out, document = tmp_path / 'found.json', tmp_path / 'page.md'
    main(['--random', 'tiny', '--rounds', '1', '--device', 'cpu', '--out', str(out)])
    assert '| `generate_image_s` |' in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found['rounds']['torch']) == set(found['rounds']['onnx']) > {'decode_tok_per_s', 'token_after_4096_s'}
    assert {name: each['backend'] for name, each in found['backends'].items()} == {'torch': 'torch', 'onnx': 'onnx'}
    document.write_text('<!-- bench:backends -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document)])
    assert 'random tiny' in document.read_text()


def test_one_back_end_is_no_comparison(tmp_path, capsys):
    for backends in (['torch'], ['torch', 'torch']):
        with pytest.raises(SystemExit):
            main(['--backends', *backends, '--out', str(tmp_path / 'none.json')])
        assert 'of two or more back ends' in capsys.readouterr().err
