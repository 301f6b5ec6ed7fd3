"""Generated depth takes a sensor's scale, whatever is wrong with a part of either."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cooper_model.alignment import fit_alignment, fuse
from cooper_model.types import DepthMap

SIZE = (48, 64)


def plane(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] / SIZE[0]
    return (1.5 + rows + 0.5 * columns + 0.01 * rng.standard_normal(SIZE)).astype(np.float32)


def drawn(metres: np.ndarray | None, relative: np.ndarray) -> DepthMap:
    return DepthMap(relative, metres, np.zeros((*relative.shape, 3), np.uint8))


@settings(max_examples=25, deadline=None)
@given(scale=st.floats(0.3, 3), shift=st.floats(-0.2, 0.5), wrong=st.floats(0, 0.3), holes=st.floats(0, 0.6))
def test_scale_and_shift_are_found_despite_outliers_and_holes(scale, shift, wrong, holes):
    generated, rng = plane(), np.random.default_rng(1)
    measured = scale * generated + shift
    measured[rng.random(SIZE) < wrong] *= 3
    measured[rng.random(SIZE) < holes] = np.nan
    found = fit_alignment(generated, measured)
    assert found is not None
    assert scale * generated + shift == pytest.approx(found.scale * generated + found.shift, rel=0.02)
    assert found.share == pytest.approx(np.isfinite(measured).mean())


def test_holes_are_filled_and_measured_pixels_kept():
    truth = plane()
    measured = truth.copy()
    measured[10:20, 10:30] = 0
    measured[30:, 40:] = np.nan
    fused = fuse(drawn(truth * 0.7, truth / 5), measured)
    known = np.isfinite(measured) & (measured > 0)
    np.testing.assert_array_equal(fused.metres[known], measured[known])
    np.testing.assert_allclose(fused.metres[~known], truth[~known], rtol=1e-3)
    assert fused.alignment.scale == pytest.approx(1 / 0.7, rel=1e-3)
    np.testing.assert_array_equal(fused.relative, truth / 5)


def test_relative_depth_becomes_metres():
    truth = plane()
    fused = fuse(drawn(None, (truth - 1) / 3), np.where(np.arange(SIZE[1]) % 3 == 0, truth, np.nan).astype(np.float32))
    np.testing.assert_allclose(fused.metres, truth, rtol=1e-3)


@pytest.mark.parametrize('measured', [np.full(SIZE, np.nan), np.zeros(SIZE), np.where(np.eye(*SIZE) > 0, np.nan, -1.0)])
def test_without_measurements_a_map_stays_as_it_was(measured):
    depth = drawn(plane(), plane() / 5)
    assert fuse(depth, measured.astype(np.float32)) is depth


def test_depth_that_contradicts_the_sensor_is_not_bent_into_it():
    depth = drawn(plane(), plane() / 5)
    assert fuse(depth, 5 - plane()) is depth


def test_sizes_must_agree():
    with pytest.raises(ValueError, match='does not match'):
        fuse(drawn(plane(), plane()), np.ones((3, 4), np.float32))
