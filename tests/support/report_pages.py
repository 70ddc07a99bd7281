"""Reports as files, the page read as HTML, and results of every kind that a report may be asked for."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

from report_samples import sample_results, without_kernel_times

import tvmmobile.results.report
from tvmmobile.networks.models.published import paper_figures
from tvmmobile.results.file import Results
from tvmmobile.results.report import write_report

_VOID = {"meta", "br", "link", "img", "input", "hr"}
_URL_ATTRIBUTES = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "formaction", "background", "ping"}
#: A name that tries to escape from HTML, Markdown, a table cell and a line.
HOSTILE = """a"><script>alert('x')</script>&amp;<img src=x onerror=y>|`*_[b](c)\n\u202ex"""


class Page(HTMLParser):
    """A page's elements and text; fails if tags are not nested."""

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
        """Return the attributes of every element of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def written(results: Results, out: Path) -> dict[str, str]:
    """Write a report; return its files as `texts_of` does."""
    paths = write_report(results, out)
    assert [path.name for path in paths] == ["report.json", "report.csv", "report-kernels.csv", "report.md", "report.html"]
    return texts_of(paths, out)


def texts_of(paths: list[Path], out: Path) -> dict[str, str]:
    """Return the written files by their last name: `json`, `csv`, `kernels.csv`, `md`, `html`."""
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in paths)
    return {re.split("[-.]", path.name, maxsplit=1)[1]: path.read_text(encoding="utf-8") for path in paths}


def check_page(text: str) -> None:
    """Check that the page is self-contained, runs only its own script, and that its links lead somewhere."""
    page = Page(text)
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert not [name for name in attributes if name.startswith("on")]
        for name in _URL_ATTRIBUTES & set(attributes):
            assert attributes[name].startswith("#")
    assert len(page.named("script")) == 1 and page.named("script") == [{}]
    (script,) = page.text["script"]
    assert script == (Path(tvmmobile.results.report.__file__).parent / "templates" / "page.js").read_text(encoding="utf-8")
    (policy,) = [attributes["content"] for attributes in page.named("meta") if "http-equiv" in attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == "'none'" and rules["script-src"] == f"'sha256-{digest}'" and rules["style-src"] == "'unsafe-inline'"
    assert set(rules) == {"default-src", "script-src", "style-src", "base-uri", "form-action"}
    assert not re.search(r"https?://|//\w+\.\w|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", script)
    styles = "".join(page.text["style"]) + "".join(attributes.get("style", "") for _, attributes in page.tags)
    assert "url(" not in styles and "@import" not in styles and "prefers-color-scheme: dark" in styles
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {attributes["href"][1:] for attributes in page.named("a")}
    targets |= {
        attributes[name] for _, attributes in page.tags for name in ("aria-labelledby", "aria-describedby", "for") if name in attributes
    }
    assert targets <= set(ids)


def hostile() -> Results:
    """Results whose every name is `HOSTILE`."""
    results = sample_results(2)
    variants = []
    for variant in results.variants:
        kernels = tuple(replace(kernel, name=HOSTILE, kind=HOSTILE, schedule=HOSTILE) for kernel in variant.kernels)
        names = dict.fromkeys(("model", "dtype", "weights", "top1_source"), HOSTILE)
        conditions = {"before": [{"governor": HOSTILE, "temperature_c": HOSTILE, "throttled": [HOSTILE]}, HOSTILE], "after": 3}
        reason = HOSTILE if variants else ""
        name = f"{HOSTILE}{len(variants)}"
        variants.append(replace(variant, name=name, kernels=kernels, conditions=conditions, invalid=reason, **names))
    names = dict.fromkeys(("device", "board", "cpu", "modelled_terms", "memory_source"), HOSTILE)
    context = replace(results.context, versions={HOSTILE: HOSTILE}, **names)
    return Results(context, tuple(variants))


def two_sources() -> Results:
    """Variants with accuracies from two sources: the paper and the retrained networks."""
    results = sample_results()
    found = [paper_figures(variant.model, variant.alpha, variant.resolution) for variant in results.variants]
    variants = [
        replace(variant, top1=paper.top1, top1_source=paper.source) if paper else variant
        for variant, paper in zip(results.variants, found, strict=True)
    ]
    return replace(results, variants=tuple(variants))


def unpublished(count: int = 16) -> Results:
    """Results without published accuracies."""
    results = sample_results(count)
    return replace(results, variants=tuple(replace(variant, top1=None, top1_source=None) for variant in results.variants))


def untimed_kernels() -> Results:
    """Results whose kernels have no time within the network."""
    results = sample_results(3)
    variants = [
        replace(
            variant, kernels=tuple(replace(kernel, latency_us=latency, network_us=None, kind="", course=()) for kernel in variant.kernels)
        )
        for variant, latency in zip(results.variants, (None, 0.0, None), strict=True)
    ]
    return replace(results, variants=tuple(variants))


def equal_variants() -> Results:
    """Four variants with the same figures."""
    results = sample_results(1)
    return replace(results, variants=tuple(replace(results.variants[0], name=f"library {number}") for number in range(4)))


def several_networks() -> Results:
    """Variants of two families."""
    results = sample_results()
    others = [
        replace(variant, model="mobilenet_v2", name=variant.name.replace("v1", "v2"), alpha=0.1 * n + 0.1)
        for n, variant in enumerate(results.variants[:9])
    ]
    return replace(results, variants=(*results.variants, *others))


def spoiled() -> Results:
    """Measured results of which one is not valid."""
    results = sample_results(6, measured=True)
    first, *others = results.variants
    return replace(results, variants=(replace(first, invalid="the board held its clock down: throttled"), *others))


#: By name: makes results.
CASES = {
    "sixteen": sample_results,
    "one": lambda: sample_results(1),
    "two": lambda: sample_results(2),
    "measured": lambda: sample_results(measured=True),
    "hostile": hostile,
    "two sources": two_sources,
    "unpublished": unpublished,
    "one unpublished": lambda: unpublished(1),
    "untimed kernels": untimed_kernels,
    "several networks": several_networks,
    "old format": lambda: without_kernel_times(sample_results()),
    "spoiled": spoiled,
    "equal variants": equal_variants,
}
