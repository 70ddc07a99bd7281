"""Tests of a report's analysis: the front, the fit, axes, labels, kernels."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from report_samples import MODELLED, sample_results

from tvmmobile.results.report.beside import join, side_by_side
from tvmmobile.results.report.figures import Box, axis_of, place_labels, ticks
from tvmmobile.results.report.kernel_rows import Roof, kernel_table, kind_rows, limit_of
from tvmmobile.results.report.law import departures, fit_power_law
from tvmmobile.results.report.plots import course_plot, scaling_plot, search_course
from tvmmobile.results.report.view import pareto_front, view_of
from tvmmobile.results.report.wording import latency_ms
from tvmmobile.system.errors import UserError

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
    found = axis.ticks()
    assert 2 <= len(found) <= 8
    assert all(39.999 <= axis.at(tick) <= 400.001 for tick in found)


@pytest.mark.parametrize("logarithmic", [False, True])
@pytest.mark.parametrize("high", [math.nextafter(70.6, 99), 70.6001, 70.61])
def test_values_that_hardly_differ_have_an_axis(high: float, logarithmic: bool) -> None:
    """Ticks between them would all read alike."""
    axis = axis_of([70.6, high], 40.0, 400.0, logarithmic=logarithmic)
    texts = [tick.text for tick in ticks(axis)]
    assert 2 <= len(texts) == len(set(texts)) and 40 < axis.at(70.6) <= axis.at(high) < 400


def test_labels_avoid_one_another() -> None:
    frame = Box(0, 0, 400, 300)
    points = [(100.0, 100.0), (106.0, 102.0), (395.0, 5.0), (5.0, 295.0)]
    placed = place_labels(points, ["224"] * 4, 11, 4.5, frame)
    boxes = [Box(label.x - 9.9, label.y - 8.8, label.x + 9.9, label.y + 2.2) for label in placed]
    assert all(boxes[i].overlap(boxes[j]) == 0 for i in range(4) for j in range(i))
    assert all(frame.left <= box.left and box.right <= frame.right and frame.top <= box.top and box.bottom <= frame.bottom for box in boxes)


def test_kernels_share_the_time() -> None:
    variant = sample_results(1).variants[0]
    table = kernel_table(variant, MODELLED)
    assert [row.kernel for row in table.rows] == list(variant.kernels) and table.within
    assert math.fsum(row.time_share or 0 for row in table.rows) == pytest.approx(1)
    assert table.sum_share == pytest.approx(math.fsum(kernel.network_us or 0 for kernel in variant.kernels) / variant.latency_us)
    first = table.rows[0]
    assert first.latency_us == first.kernel.network_us
    assert first.latency_us and first.gflops == pytest.approx(2 * first.kernel.macs / first.latency_us / 1e3)
    assert first.peak_share == pytest.approx(first.gflops / 14.4)
    pooling = next(row for row in table.rows if not row.kernel.macs)
    assert pooling.gflops is None and pooling.peak_share is None and pooling.limit is None and pooling.time_share
    kinds = {row.kind: row for row in kind_rows(variant)}
    assert kinds["conv 1x1"].macs_share == pytest.approx(0.9486, abs=1e-4) and kinds["conv 1x1"].kernels == 13
    assert kinds["other"].time_share == pytest.approx(pooling.time_share)


def test_one_kernel_untimed_in_the_network_means_records_for_all() -> None:
    variant = sample_results(1).variants[0]
    kernels = (replace(variant.kernels[0], network_us=None), *variant.kernels[1:])
    table = kernel_table(replace(variant, kernels=kernels), MODELLED)
    assert not table.within and table.sum_share is None
    assert [row.latency_us for row in table.rows] == [kernel.latency_us for kernel in kernels]
    untimed = next(row for row in table.rows if row.kernel.latency_us is None)
    assert untimed.latency_us is None and untimed.time_share is None


def test_bytes_are_counted_for_all_kernels_or_none() -> None:
    variant = sample_results(1).variants[0]
    assert kernel_table(variant, MODELLED).moved == "dram"
    kernels = (replace(variant.kernels[0], dram_bytes=None), *variant.kernels[1:])
    table = kernel_table(replace(variant, kernels=kernels), MODELLED)
    assert table.moved == "least" and [row.moved_bytes for row in table.rows] == [kernel.least_bytes for kernel in kernels]
    nothing = tuple(replace(kernel, dram_bytes=None, least_bytes=None) for kernel in kernels)
    table = kernel_table(replace(variant, kernels=nothing), MODELLED)
    assert table.moved is None and not any(row.limit or row.intensity for row in table.rows)


def test_the_lower_roof_is_the_limit() -> None:
    roof = Roof(14.4, 3.6)
    assert roof.ridge == pytest.approx(4)
    assert [limit_of(roof, intensity) for intensity in (3.9, 4.1, None)] == ["memory", "compute", "compute"]
    assert [roof.attainable_gflops(intensity) for intensity in (1.0, 4.0, 9.0, None)] == pytest.approx([3.6, 14.4, 14.4, 14.4])
    blind = Roof(14.4, None)
    assert limit_of(blind, 0.1) is None and blind.attainable_gflops(0.1) == 14.4


def test_a_kernel_that_moved_nothing_is_limited_by_the_cores() -> None:
    variant = sample_results(1).variants[0]
    first = replace(variant.kernels[0], dram_bytes=0)
    row = kernel_table(replace(variant, kernels=(first, *variant.kernels[1:])), MODELLED).rows[0]
    assert (row.moved_bytes, row.intensity, row.limit) == (0, None, "compute") and row.limit_share == row.peak_share


def test_departures_multiply_and_name_their_causes() -> None:
    variants = sample_results().variants
    found = departures(variants, MODELLED)
    assert found[0].ratio == pytest.approx(1) and not found[0].departs and not (found[0].shares or found[0].terms or found[0].kinds)
    for variant, departure in zip(variants, found, strict=True):
        share = (variant.alpha * variant.resolution / 224) ** 2
        assert departure.law_us == pytest.approx(variants[0].latency_us * share)
        assert departure.ratio == pytest.approx(departure.macs_ratio * departure.time_ratio)
        assert departure.departs == (abs(departure.ratio - 1) > 0.05) == bool(departure.shares or departure.terms or departure.kinds)
        assert departure.peak_share == variant.peak_share(MODELLED)
    smallest = found[-1]
    # Depthwise and first layers shrink with α alone, and small layers pay the fixed cost of each kernel.
    assert smallest.macs_ratio == pytest.approx(1.17, abs=0.005) and list(smallest.shares) == ["depthwise 3x3", "conv 3x3"]
    assert smallest.shares["depthwise 3x3"] == pytest.approx((0.105, 0.031), abs=5e-4)
    assert (smallest.peak_share, found[0].peak_share) == pytest.approx((0.755, 0.882), abs=5e-4)
    assert smallest.terms == {"core cycles": pytest.approx(0.167, abs=5e-4)}
    assert smallest.kinds["depthwise 3x3"] > 0


def test_a_cause_is_read_off_the_numbers() -> None:
    """The same variants, with the last one's fully connected layer made slow: it, and nothing else, is what changes."""
    variants = list(sample_results().variants)
    slow = variants[-1]
    extra_us = 0.5 * slow.latency_us
    kernels = tuple(
        replace(kernel, network_us=(kernel.network_us or 0) + extra_us) if kernel.kind == "fully connected" else kernel
        for kernel in slow.kernels
    )
    terms = {"core": slow.term_ms["core"], "loads_from_memory": extra_us / 1e3}
    variants[-1] = replace(slow, kernels=kernels, samples_us=(slow.latency_us + extra_us,), term_ms=terms)
    variants[0] = replace(variants[0], term_ms={**variants[0].term_ms, "loads_from_memory": 0.0})
    found = departures(variants, MODELLED)[-1]
    assert found.time_ratio > found.macs_ratio
    assert list(found.terms.items()) == [
        ("loads from memory", pytest.approx(0.584, abs=5e-4)),
        ("core cycles", pytest.approx(0.167, abs=5e-4)),
    ]
    assert len(found.kinds) == 2 and next(iter(found.kinds)) == "fully connected"


def test_layers_fused_in_one_variant_alone_are_not_told_apart() -> None:
    variants = list(sample_results().variants)
    small = variants[-1]
    kernels = tuple(replace(kernel, kind="depthwise 3x3 + conv 1x1") if "wise" in kernel.name else kernel for kernel in small.kernels)
    variants[-1] = replace(small, kernels=kernels)
    found = departures(variants, MODELLED)[-1]
    text = ", ".join([*found.shares, *found.kinds])
    # Together they are a smaller share than in the largest variant, and hardly slower; so neither is a cause.
    assert "depthwise" not in text and "conv 1x1" not in text and "fully connected" in text


@pytest.mark.parametrize(("factor", "kind", "words"), [(0.5, "conv 1x1", "Strassen"), (0.35, "fully connected", "what memory allows")])
def test_a_kernel_beyond_its_roof_is_explained(factor: float, kind: str, words: str) -> None:
    results = sample_results(1)
    assert not [note for note in view_of(results).notes if "Above 100 %" in note]
    (variant,) = results.variants
    kernels = tuple(
        replace(kernel, network_us=factor * (kernel.network_us or 0)) if kernel.kind == kind else kernel for kernel in variant.kernels
    )
    notes = [note for note in view_of(replace(results, variants=(replace(variant, kernels=kernels),))).notes if "Above 100 %" in note]
    assert len(notes) == 1 and words in notes[0]


def test_no_law_for_one_variant() -> None:
    assert departures(sample_results(1).variants, MODELLED) == []


def test_the_laws_line_begins_at_the_largest_square_image() -> None:
    """The law is of square images; the numbers beside the plot start there, too."""
    results = sample_results(3)
    wide = replace(results.variants[0], name="wide", input="224x672", macs=3 * results.variants[0].macs)
    assert "α²ρ² law from 1.0-224: exponent 1" in [
        line.text for line in scaling_plot(view_of(replace(results, variants=(wide, *results.variants)))).lines
    ]


@pytest.mark.parametrize("course", [((0, 5.0), (3, 2.0)), ((1, 0.0), (3, 0.0))])
def test_a_course_without_a_logarithm_is_not_plotted(course: tuple[tuple[int, float], ...]) -> None:
    results = sample_results(1)
    (variant,) = results.variants
    odd = replace(variant, kernels=(replace(variant.kernels[0], course=course),))
    assert course_plot(view_of(replace(results, variants=(odd,)))) is None


def test_the_course_sums_the_best_so_far() -> None:
    variant = sample_results(1).variants[0]
    first, second, third = variant.kernels[:3]
    kernels = (
        replace(first, course=((1, 50.0), (4, 20.0), (8, 20.0))),
        replace(second, course=((2, 30.0), (4, 10.0), (16, 10.0))),
        replace(third, course=(), latency_us=5.0),
    )
    assert search_course(replace(variant, kernels=kernels)) == [(2, 85.0), (4, 35.0), (16, 35.0)]
    assert search_course(replace(variant, kernels=(kernels[2],))) == []
    assert search_course(replace(variant, kernels=(*kernels, replace(third, course=(), latency_us=None)))) == []


def test_joining_keeps_the_latest_and_says_so() -> None:
    results = sample_results(3)
    later = replace(results.context, date="2026-11-21T08:00:00+00:00", versions={"tvmmobile": "0.2.0"})
    again = replace(results.variants[0], samples_us=(1234.0,))
    for order in ((0, 1), (1, 0)):
        both = (replace(results, variants=results.variants[:2]), replace(results, context=later, variants=(again, results.variants[2])))
        joined = join([both[place] for place in order])
        assert [variant.latency_us for variant in joined.results.variants] == [
            1234.0,
            *(variant.latency_us for variant in results.variants[1:]),
        ]
        assert joined.results.context.date == later.date and joined.results.context.versions["tvmmobile"] == "0.1.0, 0.2.0"
        twice, versions = joined.remarks
        assert twice.startswith("mobilenet_v1_1.0_224_float32_t1 appears 2 times") and "the latest counts" in twice
        assert versions == "The version of tvmmobile differs: 0.1.0, 0.2.0."


def test_a_library_with_small_weights_is_another_variant() -> None:
    results = sample_results(1)
    small = replace(results.variants[0], name="small", weights_dtype="int8", samples_us=(1234.0,))
    both = replace(results, variants=(*results.variants, small))
    joined = join([both])
    assert joined.results == both and joined.remarks == ()
    assert [(grid.title.split(", ")[1], len(grid.rows)) for grid in view_of(both).grids] == [("float32", 1), ("float32_int8weights", 1)]
    assert len(side_by_side(view_of(both), view_of(results)).pairs) == 2


@pytest.mark.parametrize(
    "change",
    [{"device": "pi5"}, {"kind": "measured"}, {"clock_hz": 1.5e9}, {"threads": 4}, {"timing_model": "another"}, {"cpu": "Cortex-A76"}],
)
def test_two_contexts_are_not_joined(change: dict[str, Any]) -> None:
    results = sample_results(2)
    with pytest.raises(UserError, match=str(next(iter(change.values()))).replace("1500000000.0", "1.5 GHz")):
        join([results, replace(results, context=replace(results.context, **change))])


def test_a_latency_that_does_not_count_is_on_no_front() -> None:
    results = sample_results()
    spoiled = replace(results.variants[-1], invalid="throttled")
    view = view_of(replace(results, variants=(*results.variants[:-1], spoiled)))
    last = view.rows[-1]
    assert not last.on_front and not last.valid and last.departure is None and view.fit and view.fit.points == 15


def test_the_fronts_of_two_sources_do_not_compete() -> None:
    view = view_of(sample_results())
    assert view.sources and sum(row.on_front for row in view.rows) == 14
    assert not next(row for row in view.rows if (row.variant.alpha, row.variant.resolution) == (1.0, 128)).on_front


@pytest.mark.parametrize(("latency", "text"), [(89608.2, "89.61"), (100.0, "0.10"), (12.34, "0.0123"), (None, "–"), (math.nan, "–")])
def test_latency_in_words(latency: float | None, text: str) -> None:
    assert latency_ms(latency) == text
