"""Intervals and comparisons against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from training.benchmarks.report import compare, summarise
from training.benchmarks.statistics import difference, interval, mcnemar


def test_interval_of_independent_answers_is_wilsons():
    # 8 of 10: (0.8 + z^2 / 20 -+ z sqrt(0.016 + z^2 / 400)) / (1 + z^2 / 10) with z = 1.96.
    found = interval([1] * 8 + [0] * 2, range(10))
    assert (found.mean, found.low, found.high) == pytest.approx((0.8, 0.4902, 0.9433), abs=1e-4)


def test_interval_of_answers_that_are_all_alike_is_not_a_point():
    found = interval([1] * 10, range(10))
    assert (found.mean, found.high) == pytest.approx((1, 1))
    assert found.low == pytest.approx(10 / (10 + 1.96**2), abs=1e-4)
    assert interval([0] * 10, range(10)).high == pytest.approx(1 - found.low)
    assert interval([], []) is None


def test_answers_about_one_image_count_once():
    twice = interval([1, 1, 0, 0, 1, 1, 0, 0] * 5, [n // 2 for n in range(40)])
    once = interval([1, 0, 1, 0] * 5, range(20))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        right = np.repeat(rng.random(60) < 0.85, 2)  # two questions an image, both right or both wrong
        found = interval(right.astype(float), [n // 2 for n in range(120)])
        covered += found.low <= 0.85 <= found.high
    assert 0.92 <= covered / 400 <= 0.98


def test_mcnemar_by_hand():
    assert mcnemar(0, 0) == 1
    assert mcnemar(5, 0) == pytest.approx(2 / 32)
    assert mcnemar(1, 4) == pytest.approx(2 * (1 + 5) / 32)
    assert mcnemar(3, 3) == 1
    assert 0 < mcnemar(3000, 2000) < 1e-10


def test_difference_pairs_questions():
    first = [1, 0, 0, 0, 1, 1] * 20
    second = [1, 1, 0, 0, 1, 1] * 20
    found = difference(first, second, range(120))
    assert found.mean == pytest.approx(1 / 6)
    assert (found.better, found.worse, found.n) == (20, 0, 120)
    # Standard error of the mean of 20 ones in 120: sqrt(1/6 * 5/6 / 120) = 0.034.
    assert found.low == pytest.approx(1 / 6 - 1.96 * 0.034, abs=0.01)
    assert found.high == pytest.approx(1 / 6 + 1.96 * 0.034, abs=0.01)
    assert found.p == pytest.approx(2 / 2**20)
    assert difference(first, second, range(120)) == found
    assert difference([0.5, 1], [1, 1], range(2)).p is None


def test_difference_refuses_what_cannot_be_paired():
    with pytest.raises(ValueError, match='cannot be compared'):
        difference([1], [1, 0], [0])
    with pytest.raises(ValueError, match='cannot be compared'):
        difference([], [], [])


def record(index, score, category='size', **further):
    return {
        'index': str(index), 'question': f'question {index}', 'truth': 'A', 'score': score, 'read': 'A',
        'category': category, 'groups': {}, 'scoring': 'choice', 'cluster': str(index), 'figures': {},
        'images': [], 'forced': False, 'seconds': 1.0, **further,
    }  # fmt: skip


def test_summary_counts_what_is_not_scored_and_leaves_it_out():
    records = [record(1, 1.0), record(2, 0.0, read=None), record(3, None, read=None), record(4, 1.0, 'depth')]
    records[3]['images'] = ['depth']
    found = summarise(records)
    assert found['score'] == pytest.approx(2 / 3)
    assert (found['questions'], found['unscored'], found['unread']) == (4, 1, 1)
    assert found['by_category']['size'] | {'score_95': None} == {
        'score': 0.5, 'score_95': None, 'n': 2, 'perceive_rate': 0.0
    }  # fmt: skip
    assert found['by_category']['depth']['perceive_rate'] == 1
    assert found['perceive_rate'] == 0.25
    assert summarise([])['score'] is None


def test_a_rotated_question_is_right_only_in_every_rotation():
    records = [record(1, 1.0), record(1_000_001, 0.0), record(2, 1.0), record(1_000_002, 1.0)]
    found = summarise(records)
    assert (found['score'], found['circular'], found['circular_n']) == (0.75, 0.5, 2)
    assert 'circular' not in summarise(records[:1])


def test_results_are_compared_over_what_both_have():
    first = [record(1, 0.0), record(2, 0.0, 'depth'), record(3, 1.0), record(4, None)]
    second = [record(1, 1.0), record(2, 0.0, 'depth'), record(5, 1.0), record(4, 1.0)]
    found = compare(first, second)
    assert (found['first'], found['second'], found['difference'], found['n']) == (0, 0.5, 0.5, 2)
    assert (found['better'], found['worse'], found['only_first'], found['only_second']) == (1, 0, 2, 2)
    assert found['by_category']['size']['difference'] == 1
    with pytest.raises(ValueError, match='no scored question in common'):
        compare(first[:1], second[1:])
    with pytest.raises(ValueError, match='another question'):
        compare(first, [record(1, 1.0, question='other')])
