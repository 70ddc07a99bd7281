"""Two results side by side."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

from report_pages import (
    Page,
    check_page,
    hostile,
    texts_of,
)
from report_samples import sample_results

from tvmmobile.results.file import Results
from tvmmobile.results.report import write_side_by_side


def _slower(results: Results, factor: float, **context: object) -> Results:
    variants = tuple(replace(variant, samples_us=tuple(sample * factor for sample in variant.samples_us)) for variant in results.variants)
    return Results(replace(results.context, **context), variants)


def test_two_results_side_by_side(tmp_path: Path) -> None:
    old = sample_results()
    new = replace(_slower(old, 1.25, date="2026-11-21T08:00:00+00:00"), variants=_slower(old, 1.25).variants[1:])
    files = texts_of(write_side_by_side(old, new, tmp_path), tmp_path)
    check_page(files["html"])
    page = Page(files["html"])
    section = page.text["section"][0]
    assert "old, ms modelled" in section and "new, ms modelled" in section and section.count("+25.0%") == 15
    assert "What follows is the new result, of 2026-11-21" in section
    # The largest variant is only in the old result: it comes last, without a change.
    assert files["md"].splitlines().count("| mobilenet_v1 1.0-224 float32 t1 vm | 89.61 | – | – |") == 1
    assert "| mobilenet_v1 0.25-128 float32 t1 vm | 2.50 | 3.12 | +25.0% |" in files["md"]
    assert [len(list(csv.DictReader(io.StringIO(files[name])))) for name in ("csv", "kernels.csv")] == [31, 31 * 29]


def test_modelled_and_measured_stay_apart_side_by_side(tmp_path: Path) -> None:
    files = texts_of(write_side_by_side(sample_results(3), sample_results(3, measured=True), tmp_path), tmp_path)
    section = Page(files["html"]).text["section"][0]
    assert "pi4-virtual, ms modelled" in section and "pi4, ms measured" in section
    assert (
        "change" not in Page(files["html"]).text["th"] and "Modelled and measured latencies are not compared with one another." in section
    )
    assert "kind of latency modelled and measured" in files["md"]


def test_hostile_names_stay_text_side_by_side(tmp_path: Path) -> None:
    files = texts_of(write_side_by_side(hostile(), replace(hostile(), context=sample_results(1).context), tmp_path), tmp_path)
    check_page(files["html"])
    assert not Page(files["html"]).named("img") and not re.search(r"(?<!\\)<", files["md"])
