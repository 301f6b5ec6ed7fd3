"""The table of a retraining states what its card says."""

from __future__ import annotations

from bench.retrain import Day, table
from training.retrain_scores import Gain, as_record

CARD = {
    'world': 'warehouse',
    'robot': as_record({'depth': Gain(0.5, 0.75, 0.2, 0.3, 60), 'answers': Gain(0.4, 0.5, 0.05, 0.15, 240)}),
    'old': as_record({'depth': Gain(0.9, 0.89, -0.02, 0.01, 60)}),
    'data': {'frames': {'trained': 300, 'held_out': 76, 'apart': 4}, 'questions': 1400},
    'training': {'steps': 300, 'rehearsed_scenes': 400},
    'installed': True,
    'reason': '',
    'parts': {'record': 120.0, 'bag2data': 30.0, 'retrain': 600.0},
    'machine': 'a processor',
    'cores': 2,
    'date': '2026-01-01',
}


def test_the_table_states_figures_counts_and_times():
    text = table(CARD)
    row = "| depth, share within 25 % of the truth | robot's, held out | 0.500 | 0.750 | +0.250 | +0.200 to +0.300 |"
    assert row in text
    assert '| simulated | 0.900 | 0.890 | -0.010 |' in text
    assert '300 frames trained on, 76 held out' in text and 'The checkpoint was installed.' in text
    assert 'record 2.0 min, bag2data 0.5 min, retrain 10.0 min; a processor, 2 cores; 2026-01-01' in text
    refused = table({**CARD, 'installed': False, 'reason': 'worse: depth'})
    assert 'not installed: worse: depth' in refused


def test_what_is_finished_is_not_done_again(tmp_path, monkeypatch):
    day = Day(tmp_path, 'warehouse', 12, 0)
    done = []
    for part, found in (('record', {}), ('convert', {}), ('retrain', {'name': 'checkpoint_0001'})):
        monkeypatch.setattr(Day, part, lambda self, part=part, found=found: done.append(part) or found)
    first, second = day.run(), day.run()
    assert done == ['record', 'convert', 'retrain']
    assert set(first['parts']) == {'record', 'bag2data', 'retrain'} and first['parts'] == second['parts']
