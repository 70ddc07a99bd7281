"""Kernels that leave zeros out: what each shape of a report says of them, and that others say nothing."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import Page, check_page, texts_of
from report_samples import sample_results

from tvmmobile.results.file import OMITTED_IF_NONE, Results, read_results
from tvmmobile.results.report import print_table, write_report
from tvmmobile.results.report.view import view_of
from tvmmobile.results.report.zeros import zero_sentences


def pruned_results(*, measured: bool = False) -> Results:
    """One variant whose 1×1 layers have four fifths of zeros and take a third of the time, but the first, with none, in a sparse kernel."""
    results = sample_results(1, measured=measured)
    (variant,) = results.variants
    kernels = [replace(kernel, latency_us=kernel.latency_us or 9.5) for kernel in variant.kernels]
    pointwise = [place for place, kernel in enumerate(kernels) if kernel.kind == "conv 1x1"]
    for place in pointwise:
        alone_us, within_us = (time or 0.0 for time in (kernels[place].latency_us, kernels[place].network_us))
        faster = replace(kernels[place], latency_us=alone_us / 3, network_us=within_us / 3, zeros=0.8)
        kernels[place] = replace(kernels[place], zeros=0.0) if place == pointwise[0] else faster
    dense_us = math.fsum(kernel.latency_us or 9.5 for kernel in variant.kernels)
    latency_us = math.fsum(kernel.network_us or 0.0 for kernel in kernels) / 0.97
    samples_us = (latency_us,) * len(variant.samples_us)
    return replace(results, variants=(replace(variant, kernels=tuple(kernels), samples_us=samples_us, dense_us=dense_us),))


def report_of(results: Results, folder: Path) -> dict[str, str]:
    return texts_of(write_report(results, folder), folder)


@pytest.mark.parametrize("measured", [False, True])
def test_sums_of_records_are_compared(measured: bool) -> None:
    """Not the latency of the network with a sum."""
    results = pruned_results(measured=measured)
    word = "measured" if measured else "modelled"
    (variant,) = results.variants
    records_ms = math.fsum(kernel.latency_us or 0.0 for kernel in variant.kernels) / 1e3
    (sentence,) = zero_sentences(results)
    assert sentence == (
        f"{variant.name}: 12 of 29 kernels leave zeros out (80.0 % of their multiply-adds). Tuning records of its kernels add up to "
        f"{records_ms:.2f} ms {word}; of the best that leave none out, to {(variant.dense_us or 0.0) / 1e3:.2f} ms {word}."
    )
    assert sentence in view_of(results).remarks


def test_without_records_nothing_is_compared() -> None:
    results = pruned_results()
    (variant,) = results.variants
    unmeasured = (*variant.kernels[:-1], replace(variant.kernels[-1], latency_us=None))
    for without in (replace(variant, dense_us=None), replace(variant, kernels=unmeasured)):
        (sentence,) = zero_sentences(replace(results, variants=(without,)))
        assert sentence.endswith("12 of 29 kernels leave zeros out (80.0 % of their multiply-adds).")
    one = replace(variant.kernels[0], zeros=1.0)
    (sentence,) = zero_sentences(replace(results, variants=(replace(variant, kernels=(one, variant.kernels[1])),)))
    assert "1 of 2 kernels leaves zeros out (100.0 % of their" in sentence


def test_every_shape_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = pruned_results()
    (sentence,) = zero_sentences(results)
    files = report_of(results, tmp_path)
    check_page(files["html"])
    page = Page(files["html"])
    assert sentence in page.text["li"] and sentence in files["md"]
    assert sum("· 80.0 % zeros left out" in text for text in page.text["small"]) == 12
    (row,) = csv.DictReader(io.StringIO(files["csv"]))
    assert float(row["dense_us"]) == results.variants[0].dense_us
    cells = [row["zeros"] for row in csv.DictReader(io.StringIO(files["kernels.csv"]))]
    assert cells == ["" if kernel.zeros is None else str(kernel.zeros) for kernel in results.variants[0].kernels]
    assert read_results(tmp_path / "report.json") == results
    print_table(results)
    out = capsys.readouterr().out
    assert sentence in " ".join(out.split()) and max(map(len, out.splitlines())) <= 80


def test_the_peak_is_of_counted_multiply_adds() -> None:
    """A kernel that leaves most of them out may be above the peak."""
    notes = view_of(pruned_results()).notes
    assert any("algorithms, and kernels that leave zeros out, need fewer multiply-adds" in note for note in notes)


def test_other_results_are_written_as_before(tmp_path: Path) -> None:
    files = report_of(sample_results(2), tmp_path)
    benchmark, *_ = json.loads(files["json"])["benchmarks"]
    assert not OMITTED_IF_NONE & (benchmark.keys() | benchmark["kernels"][0].keys())
    assert not any("zeros" in text or "dense_us" in text for text in files.values())
