"""What a report works out: the front, the fit, axes, labels, kernels."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import MODELLED, sample_results

from tvmmobile.report.analysis import fit_power_law, pareto_front
from tvmmobile.report.axes import axis_of
from tvmmobile.report.kernel_rows import kernel_rows, kind_rows
from tvmmobile.report.labels import Box, place_labels
from tvmmobile.report.view import view_of
from tvmmobile.report.wording import latency_ms

_POINTS = st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), max_size=12)


@settings(derandomize=True, max_examples=200)
@given(_POINTS)
def test_the_front_is_what_no_point_beats(points: list[tuple[int, int]]) -> None:
    def beaten(one: tuple[int, int]) -> bool:
        return any(other != one and other[0] <= one[0] and other[1] >= one[1] for other in points)

    found = pareto_front([cost for cost, _ in points], [gain for _, gain in points])
    assert sorted(found) == [index for index, point in enumerate(points) if not beaten(point)]
    assert [points[index][0] for index in found] == sorted(points[index][0] for index in found)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.3])
def test_the_fit_finds_the_exponent(exponent: float) -> None:
    macs = [1e6, 3e6, 1e7, 5e8]
    fit = fit_power_law(macs, [7e-3 * count**exponent for count in macs])
    assert fit and fit.exponent == pytest.approx(exponent) and fit.factor == pytest.approx(7e-3) and fit.r_squared == pytest.approx(1)
    assert fit.latency_us(2e6) == pytest.approx(7e-3 * 2e6**exponent)


def test_no_fit_without_enough_points() -> None:
    assert fit_power_law([1.0, 2.0], [1.0, 2.0]) is None
    assert fit_power_law([1.0, 1.0, 2.0, 2.0], [1.0, 2.0, 3.0, 4.0]) is None
    assert fit_power_law([0.0, 1.0, 2.0], [1.0, 2.0, 3.0]) is None
    same = fit_power_law([1.0, 2.0, 3.0], [5.0, 5.0, 5.0])
    assert same and same.exponent == pytest.approx(0) and same.r_squared == 1.0


@settings(derandomize=True, max_examples=200)
@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=20), st.booleans())
def test_axes_hold_their_values_and_have_few_ticks(values: list[float], logarithmic: bool) -> None:
    axis = axis_of(values, 40.0, 400.0, logarithmic=logarithmic)
    assert all(40 <= axis.at(value) <= 400 for value in values)
    ticks = axis.ticks()
    assert 2 <= len(ticks) <= 8 or max(values) / min(values) < 1.000001
    assert all(39.999 <= axis.at(tick) <= 400.001 for tick in ticks)


def test_labels_avoid_one_another() -> None:
    frame = Box(0, 0, 400, 300)
    points = [(100.0, 100.0), (106.0, 102.0), (395.0, 5.0), (5.0, 295.0)]
    placed = place_labels(points, ["224"] * 4, 11, 4.5, frame)
    boxes = [Box(label.x - 9.9, label.y - 8.8, label.x + 9.9, label.y + 2.2) for label in placed]
    assert all(boxes[i].overlap(boxes[j]) == 0 for i in range(4) for j in range(i))
    assert all(frame.left <= box.left and box.right <= frame.right and frame.top <= box.top and box.bottom <= frame.bottom for box in boxes)


def test_kernels_share_the_time() -> None:
    variant = sample_results(1).variants[0]
    rows = kernel_rows(variant, MODELLED)
    assert [row.kernel for row in rows] == list(variant.kernels)
    assert math.fsum(row.time_share or 0 for row in rows) == pytest.approx(1)
    first = rows[0]
    assert first.latency_us and first.gflops == pytest.approx(2 * first.kernel.macs / first.latency_us / 1e3)
    assert first.peak_share == pytest.approx(first.gflops / 14.4)
    untimed = next(row for row in rows if row.kernel.latency_us is None)
    assert untimed.gflops is None and untimed.peak_share is None and untimed.time_share is None
    kinds = {row.kind: row for row in kind_rows(variant)}
    assert kinds["conv 1x1"].macs_share == pytest.approx(0.9486, abs=1e-4) and kinds["conv 1x1"].kernels == 13
    assert kinds["other"].time_share is None


def test_the_fronts_of_two_sources_do_not_compete() -> None:
    view = view_of(sample_results())
    assert view.sources and sum(row.on_front for row in view.rows) == 14
    assert not next(row for row in view.rows if (row.variant.alpha, row.variant.resolution) == (1.0, 128)).on_front


@pytest.mark.parametrize(("latency", "text"), [(89608.2, "89.61"), (100.0, "0.10"), (12.34, "0.0123"), (None, "–"), (math.nan, "–")])
def test_latency_in_words(latency: float | None, text: str) -> None:
    assert latency_ms(latency) == text
