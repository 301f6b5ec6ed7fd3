"""Scores of maps against cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from cooper_sim.scoring import assign, boundary_f1, depth_score, nearest, object_ious, rate


def test_depth_score_by_hand():
    true = np.array([[1.0, 2.0, 4.0, np.nan]], np.float32)
    predicted = np.array([[1.2, 2.5, 3.0, 7.0]], np.float32)
    score = depth_score(predicted, true)
    # Ratios 1.2, 1.25 (not below 1.25) and 1.33: one of three; errors 0.2, 0.5 and 1.0.
    assert score.delta1 == pytest.approx(1 / 3)
    assert score.abs_rel == pytest.approx((0.2 + 0.25 + 0.25) / 3)
    assert score.rmse == pytest.approx(np.sqrt((0.04 + 0.25 + 1.0) / 3))


def test_depth_is_not_aligned():
    true = np.linspace(1, 5, 20).reshape(4, 5)
    assert depth_score(true * 2, true).delta1 == 0
    assert depth_score(true, true) == depth_score(true.copy(), true)
    assert depth_score(true, true).delta1 == 1


def test_missing_depth_counts_as_zero():
    score = depth_score(np.array([[np.nan, 2.0]]), np.array([[2.0, 2.0]]))
    assert (score.delta1, score.abs_rel, score.rmse) == pytest.approx((0.5, 0.5, np.sqrt(2.0)))


def test_depth_score_refuses_nothing_to_compare():
    with pytest.raises(ValueError, match='no valid pixel'):
        depth_score(np.ones((2, 2)), np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match=r'\(2, 3\)'):
        depth_score(np.ones((2, 3)), np.ones((2, 2)))


@pytest.mark.parametrize('shape', [(1, 1), (3, 3), (4, 6), (6, 4), (5, 1), (1, 5)])
def test_assignment_is_the_best_of_all(shape):
    random = np.random.default_rng(sum(shape))
    for _ in range(20):
        gain = random.random(shape) * (random.random(shape) > 0.4)
        pairs = assign(gain)
        rows, columns = {row for row, _ in pairs}, {column for _, column in pairs}
        assert len(rows) == len(columns) == len(pairs) == min(shape)
        tall = gain if shape[0] >= shape[1] else gain.T
        orders = itertools.permutations(range(tall.shape[0]), tall.shape[1])
        best = max(sum(tall[row, column] for column, row in enumerate(order)) for order in orders)
        assert sum(gain[pair] for pair in pairs) == pytest.approx(best)


def squares(*boxes: tuple[int, int, int, int], shape: tuple[int, int] = (40, 40)) -> np.ndarray:
    """Draw boxes (left, top, right, bottom) with ids 1, 2, ..."""
    ids = np.zeros(shape, np.uint8)
    for number, (left, top, right, bottom) in enumerate(boxes, 1):
        ids[top:bottom, left:right] = number
    return ids


def test_iou_of_a_shifted_square():
    true, predicted = squares((0, 0, 10, 10)), squares((5, 0, 15, 10))
    assert object_ious(predicted, true) == pytest.approx([50 / 150])


def test_ids_need_not_agree_and_unmatched_objects_score_zero():
    true = squares((0, 0, 10, 10), (20, 0, 30, 10), (0, 20, 10, 30))
    predicted = np.zeros_like(true, dtype=np.uint16)
    predicted[true == 2] = 700
    predicted[true == 3] = 3
    assert object_ious(predicted, true) == pytest.approx([0, 1, 1])


def test_one_prediction_cannot_serve_two_objects():
    true = squares((0, 0, 10, 10), (10, 0, 20, 10))
    predicted = squares((0, 0, 20, 10))
    assert sorted(object_ious(predicted, true)) == pytest.approx([0, 0.5])


def test_best_total_beats_greedy():
    # Prediction 1 overlaps both objects best, but object 1 has no other: the total decides.
    true = squares((0, 0, 10, 10), (10, 0, 20, 10))
    predicted = np.zeros_like(true)
    predicted[:, 2:18] = np.where(true[:, 2:18] > 0, 1, 0)
    predicted[0:5, 18:20] = 2
    assert object_ious(predicted, true).sum() == pytest.approx(80 / 180 + 10 / 100)


def test_small_objects_and_background_are_left_out():
    true = squares((0, 0, 8, 8), (20, 0, 29, 7))  # 64 and 63 pixels
    assert object_ious(true, true) == pytest.approx([1.0])
    assert len(object_ious(true, np.zeros_like(true))) == 0
    assert object_ious(np.zeros_like(true), true) == pytest.approx([0.0])
    everything = squares((0, 0, 40, 40))
    assert object_ious(np.zeros_like(everything), everything) == pytest.approx([0.0])


def test_boundary_f1():
    true = squares((10, 10, 20, 20))
    assert boundary_f1(true, true) == 1
    assert boundary_f1(squares((11, 10, 21, 20)), true, 1.0) == 1  # one pixel beside is within the tolerance
    assert boundary_f1(squares((24, 24, 34, 34)), true, 1.0) == 0
    assert boundary_f1(np.zeros_like(true), true) == 0
    assert boundary_f1(np.zeros_like(true), np.zeros_like(true)) == 1
    # Every true boundary found, and another one as long beside it: precision 1/2, recall 1.
    assert boundary_f1(squares((10, 10, 20, 20), (25, 10, 35, 20)), true, 1.0) == pytest.approx(2 / 3)


def test_nearest_takes_the_pixel_under_the_centre():
    pixels = np.arange(16).reshape(4, 4)
    assert nearest(pixels, 2, 2).tolist() == [[5, 7], [13, 15]]
    assert (nearest(nearest(pixels, 8, 12), 4, 4) == pixels).all()
    assert nearest(np.zeros((4, 6, 3)), 2, 3).shape == (2, 3, 3)


def test_rate_pools_items_and_widens_for_clusters():
    assert rate([1, 3], [2, 4]).mean == pytest.approx(4 / 6)
    assert rate([], []) is None
    assert rate([1.0, 1.0, 1.0], [1, 1, 1]) == rate([2.0, 2.0, 2.0], [2, 2, 2])
    single = rate([0, 1] * 50, [1] * 100)
    clustered = rate([0, 4] * 25, [4] * 50)
    # Mean 1/2 of n items that are 0 or 1: variance 1/4 n / (n - 1).
    assert single.high - single.mean == pytest.approx(1.96 * np.sqrt(0.25 / 99))
    assert clustered.high - clustered.mean == pytest.approx(1.96 * np.sqrt(0.25 / 49))


def test_scaled_delta1_forgives_one_factor_and_nothing_else():
    true = np.linspace(1, 3, 60).reshape(6, 10)
    far = depth_score(1.6 * true, true)
    assert far.delta1 == 0 and far.delta1_scaled == 1
    bent = depth_score(true**2, true)
    assert bent.delta1_scaled < 0.7
    assert depth_score(np.full_like(true, np.nan), true).delta1_scaled == 0
