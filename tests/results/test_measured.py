"""Accuracies that were measured: several precisions of a network in one plot, each with its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import written
from report_samples import sample_results

from tvmmobile.results.file import Results
from tvmmobile.results.report.measured import MeasuredAccuracy, with_accuracies
from tvmmobile.results.report.plots import accuracy_plots
from tvmmobile.results.report.view import view_of
from tvmmobile.system.errors import UserError

VAL = "500 images of val"


def results_of_two_precisions() -> Results:
    """Return a few variants in float32, and the same in int8, of which nothing is published."""
    results = sample_results(4)
    floats = [replace(one, library_sha256=f"{place:064x}") for place, one in enumerate(results.variants)]
    integers = [
        replace(
            one,
            name=one.name.replace("float32", "int8"),
            dtype="int8",
            samples_us=(one.latency_us / 2,),
            top1=None,
            top1_source=None,
            library_sha256=f"{place:064x}",
        )
        for place, one in enumerate(results.variants, 16)
    ]
    return replace(results, variants=(*floats, *integers))


def measured_of(results: Results) -> list[MeasuredAccuracy]:
    """Return an accuracy of each library: larger ones are better, and int8 is a point worse."""
    return [
        MeasuredAccuracy(f"{variant.name}.so", variant.library_sha256, variant.resolution / 4 - (variant.dtype == "int8"), VAL)
        for variant in results.variants
    ]


def test_each_precision_is_a_series_with_its_own_accuracy() -> None:
    results = results_of_two_precisions()
    view = view_of(with_accuracies(results, measured_of(results)))
    (plot,) = accuracy_plots(view)
    assert view.sources == (f"measured on {VAL}",) and plot.title == "Measured accuracy against latency, modelled"
    assert [name for name, _ in plot.series] == ["float32, α 1.0", "int8, α 1.0"]
    styles = dict(plot.series)
    heights = {name: [mark.y for mark in plot.marks if mark.style == style] for name, style in styles.items()}
    pairs = list(zip(heights["float32, α 1.0"], heights["int8, α 1.0"], strict=True))
    assert len(pairs) == 4 and all(lower > higher for higher, lower in pairs)  # down the page
    assert any(row.on_front for row in view.rows if row.variant.dtype == "int8")


def test_integers_do_not_share_what_is_published() -> None:
    view = view_of(results_of_two_precisions())
    (plot,) = accuracy_plots(view)
    assert [name for name, _ in plot.series] == ["float32, α 1.0"] and plot.title.startswith("Published accuracy")
    assert view.accuracy_note == "Top-1 is as published, not that of the weights timed here."


def test_measured_and_published_accuracies_are_two_plots(tmp_path: Path) -> None:
    results = results_of_two_precisions()
    mixed = with_accuracies(results, measured_of(results)[4:])
    view = view_of(mixed)
    assert [plot.title.split()[0] for plot in accuracy_plots(view)] == ["Published", "Measured"]
    files = written(mixed, tmp_path)
    for text in (files["html"], files["md"]):
        assert f"measured on {VAL}" in text and "is that of the librar" in text


def test_an_accuracy_of_another_library_is_refused() -> None:
    with pytest.raises(UserError, match=r"none of the results is of other.so, whose accuracy was measured") as caught:
        with_accuracies(sample_results(1), [MeasuredAccuracy("other.so", "f" * 64, 70.0, VAL)])
    assert caught.value.remedy


def test_series_are_called_what_they_differ_in() -> None:
    """One grid by α; several by what is not the same in all."""
    results = sample_results(2)
    assert [name for name, _ in accuracy_plots(view_of(results))[0].series] == ["α 1.0"]
    threads = [replace(variant, name=f"{variant.name}x", threads=4, format="c") for variant in results.variants]
    view = view_of(replace(results, variants=(*results.variants, *threads)))
    assert [name for name, _ in accuracy_plots(view)[0].series] == ["1 thread, VM library, α 1.0", "4 threads, C library, α 1.0"]


def test_a_library_has_one_accuracy() -> None:
    results = results_of_two_precisions()
    first, *others = measured_of(results)
    with pytest.raises(UserError, match=f"two accuracies of {first.library} are given"):
        with_accuracies(results, [first, *others, replace(first, top1=1.0)])
