"""The files of a report: complete, self-contained, escaped, and never a latency without its origin."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from report_samples import sample_results

from tvmmobile.errors import UserError
from tvmmobile.models.published import PAPER, SLIM, paper_figures
from tvmmobile.report import write_report
from tvmmobile.results import Results, read_results

_VOID = {"meta", "br", "link", "img", "input", "hr"}
_URL_ATTRIBUTES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "formaction", "background", "ping"}
#: Attributes that hold coordinates or lengths.
_NUMERIC = {"x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "r", "width", "height", "data-latency-us", "data-macs", "data-alpha"}
_HOSTILE = """a"><script>alert('x')</script>&amp;<img src=x onerror=y>|`*_[b](c)\n\u202ex"""


class _Page(HTMLParser):
    """Checks nesting and collects what the tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: dict[str, list[str]] = {}
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self.text.setdefault(tag, []).append("")
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.text[tag][-1] += data

    def named(self, tag: str) -> list[dict[str, str]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def _report(results: Results, out: Path) -> dict[str, str]:
    paths = write_report(results, out)
    assert [path.name for path in paths] == ["report.json", "report.csv", "report.md", "report.html"]
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    return {path.suffix[1:]: path.read_text(encoding="utf-8") for path in paths}


def _hostile() -> Results:
    results = sample_results(2)
    variants = []
    for number, variant in enumerate(results.variants):
        kernels = tuple(replace(kernel, name=_HOSTILE, kind=_HOSTILE, schedule=_HOSTILE) for kernel in variant.kernels)
        variants.append(
            replace(
                variant, name=f"{_HOSTILE}{number}", model=_HOSTILE, dtype=_HOSTILE, weights=_HOSTILE, top1_source=_HOSTILE, kernels=kernels
            )
        )
    context = replace(
        results.context, device=_HOSTILE, board=_HOSTILE, cpu=_HOSTILE, modelled_terms=_HOSTILE, versions={_HOSTILE: _HOSTILE}
    )
    return Results(context, tuple(variants))


def _two_sources() -> Results:
    """Variants of which some have the paper's accuracy, some that of the retrained networks."""
    results = sample_results()
    found = [paper_figures(variant.model, variant.alpha, variant.resolution) for variant in results.variants]
    variants = [
        replace(variant, top1=paper.top1, top1_source=paper.source) if paper else variant
        for variant, paper in zip(results.variants, found, strict=True)
    ]
    return replace(results, variants=tuple(variants))


def _unpublished(count: int = 16) -> Results:
    results = sample_results(count)
    return replace(results, variants=tuple(replace(variant, top1=None, top1_source=None) for variant in results.variants))


def _untimed_kernels() -> Results:
    results = sample_results(3)
    variants = [
        replace(variant, kernels=tuple(replace(kernel, latency_us=latency, kind="") for kernel in variant.kernels))
        for variant, latency in zip(results.variants, (None, 0.0, None), strict=True)
    ]
    return replace(results, variants=tuple(variants))


def _equal_variants() -> Results:
    results = sample_results(1)
    return replace(results, variants=tuple(replace(results.variants[0], name=f"library {number}") for number in range(4)))


def _several_networks() -> Results:
    results = sample_results()
    others = [
        replace(variant, model="mobilenet_v2", name=variant.name.replace("v1", "v2"), alpha=0.1 * n + 0.1)
        for n, variant in enumerate(results.variants[:9])
    ]
    return replace(results, variants=(*results.variants, *others))


_CASES = {
    "sixteen": sample_results,
    "one": lambda: sample_results(1),
    "two": lambda: sample_results(2),
    "measured": lambda: sample_results(measured=True),
    "hostile": _hostile,
    "two sources": _two_sources,
    "unpublished": _unpublished,
    "one unpublished": lambda: _unpublished(1),
    "untimed kernels": _untimed_kernels,
    "several networks": _several_networks,
    "equal variants": _equal_variants,
}


@pytest.fixture(params=_CASES)
def results(request: pytest.FixtureRequest) -> Results:
    """Results of each kind a report may be asked for."""
    made: Results = _CASES[request.param]()
    return made


def test_the_page_needs_nothing_and_runs_nothing(results: Results, tmp_path: Path) -> None:
    text = _report(results, tmp_path)["html"]
    page = _Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in _URL_ATTRIBUTES & set(attributes):
            assert attributes[name].startswith("#")
    styles = "".join(page.text["style"]) + "".join(attributes.get("style", "") for _, attributes in page.tags)
    assert "url(" not in styles and "@import" not in styles and "prefers-color-scheme: dark" in styles
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in page.named("a")}
    targets |= {attributes["aria-labelledby"] for _, attributes in page.tags if "aria-labelledby" in attributes}
    assert targets <= set(ids)


def test_every_number_in_the_page_is_one(results: Results, tmp_path: Path) -> None:
    text = _report(results, tmp_path)["html"]
    page = _Page(text)
    for _, attributes in page.tags:
        for name in _NUMERIC & set(attributes):
            assert math.isfinite(float(attributes[name]))
        for value in re.findall(r"--\w+:(\S+)", attributes.get("style", "")):
            assert 0 <= float(value) <= 1
    for attributes in page.named("polyline"):
        assert all(math.isfinite(float(value)) for value in re.split(r"[ ,]", attributes["points"]))
    for cell in page.text["td"]:
        # A number, one with an exponent, or in the grid a latency, below it an accuracy and its source.
        assert re.fullmatch(r"–|[\d.]+(e-\d\d)?( \[\d\])?", cell.strip()), cell
    assert not re.search(r"\b(nan|inf|None|Undefined)\b", re.sub(r"clamp\S*", "", text))


def test_marks_stay_inside_the_plots(results: Results, tmp_path: Path) -> None:
    page = _Page(_report(results, tmp_path)["html"])
    for attributes in page.named("circle"):
        assert 0 <= float(attributes["cx"]) <= 440 and 0 <= float(attributes["cy"]) <= 360
    for attributes in page.named("text"):
        assert "x" not in attributes or 0 <= float(attributes["x"]) <= 440


@pytest.mark.parametrize("measured", [False, True])
def test_latencies_never_stand_without_their_origin(tmp_path: Path, measured: bool) -> None:
    results = sample_results(measured=measured)
    word, wrong = ("measured", "modelled") if measured else ("modelled", "measured")
    files = _report(results, tmp_path)
    page = _Page(files["html"])
    for heading in page.text["th"]:
        assert word in heading or not re.search(r"latency|time|GFLOP", heading)
    for text in [*page.text["h1"], *page.text["title"][:1], *page.text["summary"], *page.text["figcaption"]]:
        assert word in text or not re.search(r"latency|\bms\b", text, re.IGNORECASE)
    described = [text for text in page.text["title"] if re.search(r"\d ms", text)]
    assert len(described) == 32 and all(f" ms {word}" in text for text in described)
    axes = [text for text in page.text["text"] if "latency" in text]
    assert len(axes) == 2 and all(word in text for text in axes)
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
    files = _report(_hostile(), tmp_path)
    page = _Page(files["html"])
    assert not page.named("script") and not page.named("img")
    assert "\u202e" not in files["html"] and "\u202e" not in files["md"]
    squeezed = " ".join("".join(page.text["dd"]).split())
    assert "<script>alert('x')</script>&amp;<img src=x onerror=y>" in squeezed
    markdown = files["md"]
    assert not re.search(r"(?<!\\)<", markdown) and "](c)" not in markdown.replace(r"\](c)", "")
    tables = [line for line in markdown.splitlines() if line.startswith("|")]
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in tables} == {3, 4, 12}


def test_csv_round_trip(results: Results, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(_report(results, tmp_path)["csv"], newline="")))
    assert len(rows) == len(results.variants)
    for row, variant in zip(rows, results.variants, strict=True):
        assert (row["name"], row["weights"], row["library_sha256"]) == (variant.name, variant.weights, variant.library_sha256)
        assert (row["top1_source"] or None, float(row["top1_percent"]) if row["top1_percent"] else None) == (
            variant.top1_source,
            variant.top1,
        )
        assert float(row["latency_us"]) == variant.latency_us and float(row["alpha"]) == variant.alpha
        assert float(row["fma_peak_share"]) == variant.peak_share(results.context)
        assert int(row["macs"]) == variant.macs and row["cycles"] == ("" if variant.cycles is None else str(variant.cycles))
        assert (float(row["latency_min_us"]), int(row["samples"])) == (min(variant.samples_us), len(variant.samples_us))


def test_json_is_the_results(results: Results, tmp_path: Path) -> None:
    _report(results, tmp_path)
    assert read_results(tmp_path / "report.json") == results


def test_sources_of_accuracy_are_never_mixed(tmp_path: Path) -> None:
    files = _report(_two_sources(), tmp_path)
    page = _Page(files["html"])
    headings = " ".join(page.text["th"])
    assert "top-1 [1]" in headings and "top-1 [2]" in headings
    captions = " ".join(page.text["figcaption"])
    assert f"top-1 [1]: {PAPER}" in captions and f"top-1 [2]: {SLIM}" in captions
    figures = [attributes["id"] for attributes in page.named("figure")]
    assert figures == ["plot-accuracy-1", "plot-accuracy-2", "plot-scaling"]
    assert "70.6 [1]" in " ".join(" ".join(page.text["small"]).split()) and "67.2 [2]" in " ".join(" ".join(page.text["small"]).split())


def test_nothing_published_nothing_claimed(tmp_path: Path) -> None:
    files = _report(_unpublished(), tmp_path)
    for name in ("html", "md"):
        assert "op-1" not in files[name] and "Pareto" not in files[name] and "front" not in _Page(files["html"]).text["section"][0]
    assert [attributes["id"] for attributes in _Page(files["html"]).named("figure")] == ["plot-scaling"]


def test_the_page_has_grid_variants_and_kernels(tmp_path: Path) -> None:
    results = sample_results()
    page = _Page(_report(results, tmp_path)["html"])
    assert len(page.named("details")) == 16 and all("29 kernels" in text for text in page.text["summary"])
    rows = [attributes for attributes in page.named("tr") if "data-macs" in attributes]
    assert [int(attributes["data-macs"]) for attributes in rows] == [variant.macs for variant in results.variants]
    assert len([attributes for attributes in page.named("td") if "data-variant" in attributes]) == 16
    assert len([attributes for attributes in page.named("g") if "data-variant" in attributes]) == 32
    marks = [attributes["class"].split() for attributes in page.named("g") if "data-variant" in attributes]
    assert sum("on-front" in classes for classes in marks) == 28 and {classes[1] for classes in marks} == {"s0", "s1", "s2", "s3"}
    schedules = {kernel.schedule for variant in results.variants for kernel in variant.kernels}
    assert schedules <= set(page.text["code"])
    context = " ".join(page.text["dd"])
    for fact in ("pi4-virtual", "1.8 GHz", "3f1c9a7e2b40", "0.27.0.post1", "seeded kaiming, seed 0", "2026-11-20"):
        assert fact in context


def test_a_missing_variant_leaves_a_hole_in_the_grid(tmp_path: Path) -> None:
    results = sample_results()
    files = _report(replace(results, variants=results.variants[:5] + results.variants[6:]), tmp_path)
    assert re.search(r"\| α 0\.75 \| \S+ \| – \| \S+ \| \S+ \|", files["md"])


def test_no_variant_no_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to report"):
        write_report(replace(sample_results(1), variants=()), tmp_path)
    assert not list(tmp_path.iterdir())


def test_sixteen_variants_take_less_than_two_seconds(tmp_path: Path) -> None:
    results = sample_results()
    begin = time.perf_counter()
    write_report(results, tmp_path)
    assert time.perf_counter() - begin < 2
