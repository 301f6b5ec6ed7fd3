"""Number types do the same work in turns, and errors are those of results that are wrong."""

from __future__ import annotations

import json

import pytest
import torch

from bench.number_types import main, relative


def test_an_error_is_relative_to_what_is_true():
    assert relative(torch.tensor([3.0, 4.4]), torch.tensor([3.0, 4.0])) == pytest.approx(0.08)


def test_both_types_are_measured_and_written_into_a_document(tmp_path, capsys):
    out, document = tmp_path / 'found.json', tmp_path / 'page.md'
    main(['--random', 'tiny', '--rounds', '1', '--out', str(out)])
    assert '| figure | float32 | bfloat16 | bfloat16 against float32 |' in capsys.readouterr().out
    found = json.loads(out.read_text())
    assert set(found['rounds']['float32']) == set(found['rounds']['bfloat16']) > {'generate_image_s'}
    assert all(1e-4 < error < 0.2 for error in found['errors'].values())
    document.write_text('<!-- bench:number_types -->\n<!-- /bench -->\n')
    main(['--out', str(out), '--table', str(document)])
    assert '| error of guided velocity | 0 |' in document.read_text()


def test_no_rounds_are_no_comparison(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(['--rounds', '0', '--out', str(tmp_path / 'none.json')])
    assert '0 rounds: expected 1 or more' in capsys.readouterr().err
