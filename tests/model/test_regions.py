"""Neighbours become one region where that costs the picture less than their border is worth."""

from __future__ import annotations

import numpy as np

from cooper_model.regions import JoinRule, connected, dissolve, join_alike, thin

RULE = JoinRule(limit=2.0, same=0.5, min_area=4)


def picture(*columns: tuple[int, float]) -> np.ndarray:
    """Return stripes of the given widths and colours, 20 px high."""
    return np.repeat([value for _, value in columns], [width for width, _ in columns])[None].repeat(20, 0)[..., None]


def joined(colours: np.ndarray, firm: bool = False) -> np.ndarray:
    regions = connected((colours[..., 0] * 100).astype(int), colours)
    return join_alike(regions, np.full(len(regions.area), firm), RULE).of_pixel


def test_the_cost_of_joining_is_that_of_the_formula():
    # Two stripes 6 px wide: 120 * 120 / 240 * d^2 / 20 = 3 d^2 a pixel of border, so 2 is reached at d = 0.816.
    assert len(np.unique(joined(picture((6, 0.0), (6, 0.81))))) == 1
    assert len(np.unique(joined(picture((6, 0.0), (6, 0.83))))) == 2


def test_the_cheapest_join_first():
    # The middle stripe goes to the side that it resembles, and then no longer resembles the other.
    found = joined(picture((10, 0.0), (4, 0.7), (10, 1.1)))[0]
    assert found[0] != found[12] == found[20]


def test_nearly_equal_neighbours_join_whatever_their_size():
    assert len(np.unique(joined(picture((100, 0.0), (100, 0.49))))) == 1
    assert len(np.unique(joined(picture((100, 0.0), (100, 0.51))))) == 2


def test_firm_regions_stay_apart_unless_too_small_to_stand_alone():
    colours = picture((6, 0.0), (6, 0.3))
    assert len(np.unique(joined(colours, firm=True))) == 2
    colours = np.zeros((20, 20, 1))
    colours[5, 5:8] = 9.0
    assert len(np.unique(joined(colours, firm=True))) == 1
    colours[6, 5:8] = 9.0
    assert len(np.unique(joined(colours, firm=True))) == 2


def test_means_and_areas_are_those_of_the_pixels():
    colours = np.random.default_rng(0).random((12, 16, 3))
    regions = connected((colours[..., 0] * 3).astype(int), colours)
    found = join_alike(regions, np.zeros(len(regions.area), bool), RULE)
    for n, (area, mean) in enumerate(zip(found.area, found.means, strict=True)):
        assert area == (found.of_pixel == n).sum()
        np.testing.assert_allclose(mean, colours[found.of_pixel == n].mean(0))


def test_a_rim_falls_to_both_sides_by_colour():
    colours = picture((8, 0.0), (1, 0.4), (1, 0.6), (8, 1.0))
    keys = np.repeat([0, 1, 2], [8, 2, 8])[None].repeat(20, 0)
    regions = connected(keys, colours)
    rims = thin(regions)
    assert rims.tolist() == [False, True, False]
    np.testing.assert_array_equal(dissolve(regions, rims, colours).of_pixel[0], np.repeat([0, 1], [9, 9]))
