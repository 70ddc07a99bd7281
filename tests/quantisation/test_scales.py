"""Scales, zero points, and the ranges that a histogram suggests."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tvmmobile.quantisation.histogram import RANGES, Histogram
from tvmmobile.quantisation.scales import scale_of


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_scale_holds_its_range_and_zero_exactly(one: float, other: float) -> None:
    scale = scale_of(min(one, other), max(one, other))
    assert -128 <= scale.zero <= 127 and scale.rounded(np.zeros(1, np.float32))[0] == 0
    values = np.array([one, other], np.float32)
    assert np.abs(scale.rounded(values) - values).max() <= 1.01 * scale.step


def test_a_tensor_of_zeros_has_a_scale() -> None:
    assert scale_of(0.0, 0.0).rounded(np.zeros(3, np.float32)).tolist() == [0, 0, 0]
    histogram = Histogram()
    histogram.add(np.zeros((2, 3), np.float32))
    assert all(choose(histogram).step > 0 for choose in RANGES.values())


@pytest.mark.parametrize("least", [1e-43, 2e-38])
def test_a_tensor_of_next_to_nothing_has_a_scale(least: float) -> None:
    """Subnormal numbers count as zeros, until greater ones come."""
    histogram = Histogram()
    histogram.add(np.float32([least, 0, -least]))
    assert all(choose(histogram).step > 0 for choose in RANGES.values())
    histogram.add(np.float32([1, -1]))
    assert all(choose(histogram).high == pytest.approx(1, rel=0.1) for choose in RANGES.values())


def test_integers_come_back() -> None:
    scale = scale_of(-1.5, 4.0)
    integers = np.arange(-128, 128, dtype=np.int8)
    assert (scale.quantised(scale.real(integers)) == integers).all()


def test_a_histogram_grows_with_what_it_is_given() -> None:
    """Batches in any order leave the same range, in memory that does not grow."""
    generator = np.random.default_rng(0)
    batches = [generator.normal(0, 10.0**power, 2000).astype(np.float32) for power in (-2, 1, 0)]
    whole, parts = Histogram(), Histogram()
    whole.add(np.concatenate(batches))
    for batch in batches:
        parts.add(batch)
    assert (whole.low, whole.high) == (parts.low, parts.high) and parts._counts.sum() == 6000 and parts._counts.size == 2048
    for choose in RANGES.values():
        one, other = choose(whole), choose(parts)
        assert one.step == pytest.approx(other.step, rel=0.05)


def test_ranges_leave_out_what_is_rare() -> None:
    """One value in 100,000 is a hundred times as large: only the range of all values holds it, and least squares errs least."""
    values = np.abs(np.random.default_rng(1).normal(0, 1, 200_000)).astype(np.float32)
    values[:2] = 100
    histogram = Histogram()
    histogram.add(values)
    found = {name: choose(histogram) for name, choose in RANGES.items()}
    assert found["minimum and maximum"].high == pytest.approx(100) and found["percentile"].high < 6
    errors = {name: float(np.square(scale.rounded(values) - values).sum()) for name, scale in found.items()}
    assert errors["least squares"] == min(errors.values()) and all(scale.zero == -128 for scale in found.values())
