"""The files of a report: complete, self-contained, escaped, and never a latency without its origin."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from report_pages import (
    CASES,
    Page,
    check_page,
    hostile,
    spoiled,
    two_sources,
    unpublished,
    written,
)
from report_samples import HIDDEN_STATE, sample_results, without_kernel_times

from tvmmobile.networks.models.published import PAPER
from tvmmobile.results.file import Results, read_results
from tvmmobile.results.report import write_report
from tvmmobile.results.report.markdown import markdown
from tvmmobile.results.report.view import view_of
from tvmmobile.system.errors import UserError

#: Attributes that hold coordinates or lengths.
_NUMERIC = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "data-latency-us", "data-macs", "data-ms", "data-top1"}


@pytest.fixture(params=CASES)
def results(request: pytest.FixtureRequest) -> Results:
    """Results of each kind a report may be asked for."""
    made: Results = CASES[request.param]()
    return made


def test_the_page_needs_nothing_and_runs_only_its_own_script(results: Results, tmp_path: Path) -> None:
    check_page(written(results, tmp_path)["html"])


def test_every_number_in_the_page_is_one(results: Results, tmp_path: Path) -> None:
    text = written(results, tmp_path)["html"]
    page = Page(text)
    for _, attributes in page.tags:
        for name in _NUMERIC & set(attributes):
            assert math.isfinite(float(attributes[name]))
        for value in re.findall(r"--\w+:(\S+)", attributes.get("style", "")):
            assert 0 <= float(value) <= 1
    for attributes in page.named("polyline"):
        assert all(math.isfinite(float(value)) for value in re.split(r"[ ,]", attributes["points"]))
    for attributes, cell in zip(page.named("td"), page.text["td"], strict=True):
        # A number, one with an exponent, or in the grid a latency, below it an accuracy and its source; words have cells of their own.
        if attributes.get("class") not in ("word", "causes"):
            assert re.fullmatch(r"–|[\d.]+(e-\d\d)?( \[\d\])?(not valid)?", cell.strip()), cell
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", re.sub(r"clamp\S*", "", text.replace(page.text["script"][0], "")))


def test_marks_stay_inside_the_plots(results: Results, tmp_path: Path) -> None:
    page = Page(written(results, tmp_path)["html"])
    for attributes in page.named("circle"):
        assert 0 <= float(attributes["cx"]) <= 440 and 0 <= float(attributes["cy"]) <= 360
    for attributes in page.named("text"):
        assert "x" not in attributes or 0 <= float(attributes["x"]) <= 440


@pytest.mark.parametrize("measured", [False, True])
def test_latencies_never_stand_without_their_origin(tmp_path: Path, measured: bool) -> None:
    results = sample_results(measured=measured)
    word, wrong = ("measured", "modelled") if measured else ("modelled", "measured")
    files = written(results, tmp_path)
    page = Page(files["html"])
    for heading in page.text["th"]:
        assert word in heading or not re.search(r"latency|time|GFLOP", heading)
    for text in [*page.text["h1"], *page.text["title"][:1], *page.text["summary"], *page.text["figcaption"]]:
        assert word in text or not re.search(r"latency|\bms\b", text, re.IGNORECASE)
    described = [text for text in page.text["title"] if re.search(r"\d ms", text)]
    assert len(described) == 48 and not [text for text in described if re.search(rf"\d ms(?! {word})", text)]
    shares = [attributes["title"] for attributes in page.named("span") if "of the time" in attributes.get("title", "")]
    assert len(shares) > 48 and all(word in text for text in shares)
    axes = [text for text in page.text["text"] if "latency" in text or "GFLOP" in text]
    assert len(axes) == 19 and all(word in text for text in axes)
    assert not [text for text in page.text["p"] + page.text["td"] + page.text["li"] if re.search(rf"\d ms(?! {word})", text)]
    assert all(word in text for text in page.text["h1"] + page.text["p"][:2] if "atency" in text)
    for name in ("html", "md"):
        assert wrong not in files[name]
        if measured:
            assert "measured on Raspberry Pi 4 Model B" in files[name]
        else:
            assert "modelled: Cortex-A72 at 1.8 GHz, core cycles and data cache misses; no TLB, no instruction fetches" in files[name]
    for line in files["md"].splitlines():
        assert word in line or not re.search(r"latency, ms", line)
    rows = list(csv.DictReader(io.StringIO(files["csv"])))
    assert {row["kind"] for row in rows} == {word} and {row["board"] for row in rows} == {"Raspberry Pi 4 Model B"}


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    files = written(hostile(), tmp_path)
    page = Page(files["html"])
    assert len(page.named("script")) == 1 and not page.named("img")
    assert "alert(" not in page.text["script"][0] and "\u202e" not in files["html"] and "\u202e" not in files["md"]
    squeezed = " ".join("".join(page.text["dd"]).split())
    assert "<script>alert('x')</script>&amp;<img src=x onerror=y>" in squeezed
    markdown = files["md"]
    assert not re.search(r"(?<!\\)<", markdown) and "](c)" not in markdown.replace(r"\](c)", "")
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3, 4, 12}


def _cell(text: str) -> str:
    """Return a value as a cell has it; an invisible one is a blank."""
    return text.replace("\n", " ").replace("\u202e", " ")


def test_csv_round_trip(results: Results, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(written(results, tmp_path)["csv"], newline="")))
    assert len(rows) == len(results.variants)
    for row, variant in zip(rows, results.variants, strict=True):
        assert (row["name"], row["weights"]) == (_cell(variant.name), _cell(variant.weights))
        assert row["library_sha256"] == variant.library_sha256
        assert (row["top1_source"] or None, float(row["top1_percent"]) if row["top1_percent"] else None) == (
            variant.top1_source and _cell(variant.top1_source),
            variant.top1,
        )
        assert float(row["latency_us"]) == variant.latency_us and float(row["alpha"]) == variant.alpha
        assert float(row["fma_peak_share"]) == variant.peak_share(results.context)
        assert int(row["macs"]) == variant.macs and row["cycles"] == ("" if variant.cycles is None else str(variant.cycles))
        assert (float(row["latency_min_us"]), int(row["samples"])) == (min(variant.samples_us), len(variant.samples_us))


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("=1+1", "'=1+1"),
        ("+49", "'+49"),
        ("-2", "'-2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=HYPERLINK(1)", "' =HYPERLINK(1)"),
        ("\r\n-1", "'  -1"),
        ("\uff1d1", "'\uff1d1"),
        ("a\x07b\x1b[31m\u202e", "a b [31m "),
        ("kaiming, seed 0", "kaiming, seed 0"),
    ],
)
def test_no_cell_is_a_formula(tmp_path: Path, text: str, cell: str) -> None:
    """A name or a path of somebody else's, opened in a spreadsheet; numbers stay numbers, negative ones too."""
    results = sample_results(1)
    (variant,) = results.variants
    kernels = (replace(variant.kernels[0], name=text, rank_correlation=-0.25), *variant.kernels[1:])
    files = written(replace(results, variants=(replace(variant, weights=text, kernels=kernels),)), tmp_path)
    (row,) = csv.DictReader(io.StringIO(files["csv"], newline=""))
    first, *_ = csv.DictReader(io.StringIO(files["kernels.csv"], newline=""))
    assert (row["weights"], first["name"], first["rank_correlation"]) == (cell, cell, "-0.25")
    assert float(row["latency_us"]) == variant.latency_us


def test_json_is_the_results(results: Results, tmp_path: Path) -> None:
    written(results, tmp_path)
    assert read_results(tmp_path / "report.json") == results


def test_sources_of_accuracy_are_never_mixed(tmp_path: Path) -> None:
    files = written(two_sources(), tmp_path)
    page = Page(files["html"])
    headings = " ".join(page.text["th"])
    assert "top-1 [1]" in headings and "top-1 [2]" in headings
    captions = " ".join(page.text["figcaption"])
    assert f"top-1 [1]: {PAPER}" in captions and "top-1 [2]: tensorflow/models research/slim/nets/mobilenet_v1.md" in captions
    figures = [attributes["id"] for attributes in page.named("figure")]
    assert figures[:3] == ["plot-accuracy-1", "plot-accuracy-2", "plot-scaling"]
    assert "70.6 [1]" in " ".join(" ".join(page.text["small"]).split()) and "67.2 [2]" in " ".join(" ".join(page.text["small"]).split())


def test_nothing_published_nothing_claimed(tmp_path: Path) -> None:
    files = written(unpublished(), tmp_path)
    page = Page(files["html"])
    for text in (files["html"].replace(page.text["script"][0], ""), files["md"]):
        assert "op-1" not in text and "Pareto" not in text
    assert "front" not in page.text["section"][0]
    figures = [attributes["id"] for attributes in page.named("figure")]
    assert figures == ["plot-scaling", *(f"plot-roofline-{number}" for number in range(16)), "plot-course"]
    assert 'id="ms"' not in files["html"]


def test_the_page_has_grid_variants_and_kernels(tmp_path: Path) -> None:
    results = sample_results()
    page = Page(written(results, tmp_path)["html"])
    assert len(page.named("details")) == 16 and all("29 kernels" in text for text in page.text["summary"])
    rows = [attributes for attributes in page.named("tr") if "data-macs" in attributes]
    assert [int(attributes["data-macs"]) for attributes in rows] == [variant.macs for variant in results.variants]
    assert len([attributes for attributes in page.named("td") if "data-variant" in attributes]) == 16
    marks = [attributes["class"].split() for attributes in page.named("g") if "data-variant" in attributes]
    # In the plots of accuracy, of multiply-adds, and of the search, where all are filled.
    assert len(marks) == 48
    assert sum("filled" in classes for classes in marks) == 44 and {classes[2] for classes in marks} == {"s0", "s1", "s2", "s3"}
    schedules = {kernel.schedule for variant in results.variants for kernel in variant.kernels}
    assert schedules <= set(page.text["code"])
    context = " ".join(page.text["dd"])
    for fact in ("pi4-virtual", "1.8 GHz", "3f1c9a7e2b40", "0.27.0.post1", "seeded kaiming, seed 0", "2026-11-20"):
        assert fact in context


def test_a_missing_variant_leaves_a_hole_in_the_grid(tmp_path: Path) -> None:
    results = sample_results()
    files = written(replace(results, variants=results.variants[:5] + results.variants[6:]), tmp_path)
    assert re.search(r"\| α 0\.75 \| \S+ \| – \| \S+ \| \S+ \|", files["md"])


def test_no_variant_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report"):
        write_report(replace(sample_results(1), variants=()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_sixteen_variants_take_less_than_two_seconds_and_megabytes(tmp_path: Path) -> None:
    results = sample_results()
    begin = time.perf_counter()
    files = written(results, tmp_path)
    assert time.perf_counter() - begin < 2
    assert len(files["html"].encode()) < 2_000_000 and len(files["md"]) < 65_536


def test_the_format_is_said(tmp_path: Path) -> None:
    """In headings, lines of tables for programs, and what kernels add up to."""
    results = sample_results(2)
    for form, title, rest in (("vm", "VM library", "the virtual machine"), ("c", "C library", "what lies")):
        files = written(replace(results, variants=tuple(replace(variant, format=form) for variant in results.variants)), tmp_path / form)
        for text in (files["md"].replace("\\", ""), files["html"]):
            assert f"float32, 1 thread, {title}: latency" in text
        assert f"the rest is {rest} between them" in files["html"]
        for name in ("csv", "kernels.csv"):
            assert {line["format"] for line in csv.DictReader(io.StringIO(files[name]))} == {form}


def test_the_page_says_where_kernels_stand(tmp_path: Path) -> None:
    page = Page(written(sample_results(2), tmp_path)["html"])
    (sums, *_) = [text for text in page.text["p"] if "add up to" in text]
    assert (
        "Within the network (modelled) the kernels add up to 97.0 % of its latency; the rest is the virtual machine between them." in sums
    )
    figures = dict(zip([attributes["id"] for attributes in page.named("figure")], page.text["figcaption"], strict=True))
    assert "bytes that memory gave and took" in figures["plot-roofline-0"]
    words = [cell for attributes, cell in zip(page.named("td"), page.text["td"], strict=True) if attributes.get("class") == "word"]
    assert set(words) == {"compute", "memory", "–"}
    legends = " ".join(page.text["li"])
    assert "FMA peak, 14.4 GFLOP/s" in legends and "memory, 3.9 GB/s" in legends


def test_the_page_says_which_variants_depart_and_why(tmp_path: Path) -> None:
    files = written(sample_results(), tmp_path)
    page = Page(files["html"])
    cells = list(zip(page.named("td"), page.text["td"], strict=True))
    causes = [text for attributes, text in cells if attributes.get("class") == "causes"]
    assert "9 of 16 variants depart from the α²ρ² law" in " ".join(page.text["p"]) and len(causes) == 2 * 9
    last = max(index for index, (attributes, _) in enumerate(cells) if attributes.get("class") == "causes")
    figures, (shares, added) = [text for _, text in cells[last - 6 : last - 1]], causes[-2:]
    assert figures[:4] == ["2.50", "1.36", "1.17", "1.17"] and float(figures[4]) == pytest.approx(75.5, abs=0.05)
    assert shares.startswith("depthwise 3x3 10.5 (3.1), conv 3x3") and added.startswith("core cycles +16.7 %; depthwise 3x3 +")
    assert "9 of 16 variants depart from the α²ρ² law" in files["md"] and "each takes 1.17 times as long" in files["md"]


def test_measured_kernels_are_held_against_the_least_bytes(tmp_path: Path) -> None:
    page = Page(written(sample_results(1, measured=True), tmp_path)["html"])
    captions = " ".join(page.text["figcaption"])
    assert "least bytes: input, weights and output once" in captions and "gave and took" not in captions


def test_without_times_in_the_network_it_says_so(tmp_path: Path) -> None:
    files = written(without_kernel_times(sample_results()), tmp_path)
    page = Page(files["html"])
    assert sum("They were not timed within the network." in text for text in page.text["p"]) == 16
    assert "add up to" not in files["html"] and "plot-roofline" not in files["html"] and 'id="course"' not in files["html"]


def test_what_spoiled_a_run_stands_at_the_variant(tmp_path: Path) -> None:
    files = written(spoiled(), tmp_path)
    page = Page(files["html"])
    reason = "the board held its clock down: throttled"
    first = next(text for text in page.text["tr"] if "mobilenet_v1_1.0_224_float32_t1" in text)
    assert f"not valid: {reason}" in first
    assert f"mobilenet_v1_1.0_224_float32_t1 is not valid: {reason}." in files["md"] and "(not valid)" in files["md"]
    (row,) = [row for row in csv.DictReader(io.StringIO(files["csv"])) if row["invalid"]]
    assert row["invalid"] == reason
    # Nothing is concluded from it.
    rows = {attributes["data-variant"]: attributes for attributes in page.named("tr") if "data-macs" in attributes}
    assert "data-ms" not in rows["0"] and all("data-ms" in rows[str(number)] for number in range(1, 6))
    facts = dict(zip(page.text["dt"], page.text["dd"], strict=True))
    assert facts["valid"] == "5 of 6 variants" and facts["temperature"] == "47 °C before, 58 °C after the runs"
    assert facts["governor"] == "performance" and facts["held down"] == "nothing" and facts["clocks"] == "1.8 GHz"


def test_every_kernel_has_a_line(results: Results, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(written(results, tmp_path)["kernels.csv"], newline="")))
    kernels = [(variant, kernel) for variant in results.variants for kernel in variant.kernels]
    assert len(rows) == len(kernels)
    for row, (variant, kernel) in zip(rows, kernels, strict=True):
        assert (row["variant"], row["name"], row["layer_type"], row["kind"]) == (
            _cell(variant.name),
            _cell(kernel.name),
            _cell(kernel.kind),
            results.context.kind,
        )
        assert row["macs"] == str(kernel.macs) and row["schedule"] == _cell(kernel.schedule)
        for name, value in (("network_us", kernel.network_us), ("record_us", kernel.latency_us), ("least_bytes", kernel.least_bytes)):
            assert row[name] == ("" if value is None else str(value))
        assert not row["course"] or [tuple(point) for point in json.loads(row["course"])] == list(kernel.course)


def test_markdown_leaves_out_what_a_comment_does_not_hold() -> None:
    results = sample_results()
    many = [
        replace(variant, name=f"{variant.name}_{copy}", alpha=variant.alpha + copy / 1000)
        for variant in results.variants
        for copy in range(60)
    ]
    text = markdown(view_of(replace(results, variants=tuple(many))))
    assert 60_000 < len(text) < 65_536
    remark = re.search(r"(\d+) more lines of this table, and what follows it, did not fit: see report.html and report.csv.", text)
    shown = len(re.findall(r"^\| mobilenet_v1_", text, re.MULTILINE))
    assert remark and shown + int(remark[1]) == len(many)


def test_what_a_machine_hides_is_called_unknown(tmp_path: Path) -> None:
    """A hypervisor that tells no clock, governor or temperature: shares of the peak are unknown too, and nothing is invented."""
    base = sample_results(4, measured=True)
    variants = tuple(
        replace(variant, conditions={"before": [HIDDEN_STATE], "after": [HIDDEN_STATE], "steady": True}) for variant in base.variants
    )
    results = replace(base, context=replace(base.context, clock_hz=0.0), variants=variants)
    texts = written(results, tmp_path)
    assert read_results(tmp_path / "report.json") == results
    assert {entry["fma_peak_share"] for entry in json.loads(texts["json"])["benchmarks"]} == {None}
    rows = list(csv.DictReader(io.StringIO(texts["csv"])))
    assert {row["fma_peak_share"] for row in rows} == {""} and {row["clock_hz"] for row in rows} == {"0.0"}
    for text in (texts["md"], texts["html"]):
        assert "Cortex-A72 at an unknown clock" in text and "clocks, governor, temperature" in text and "0 GHz" not in text
    check_page(texts["html"])
