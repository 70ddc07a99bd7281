"""The page of a history: self-contained, small, safe against what names hold; and what its script does in a real browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import NAMES, Browser, find_browser, started_browser
from conftest import CommandLine
from histories import commit, results, stepped
from report_pages import HOSTILE, Page, hostile

from tvmmobile.history import page as page_module
from tvmmobile.history.file import open_history
from tvmmobile.history.page import history_page
from tvmmobile.history.series import CommitHistory, LatencyLine, Point, Series, SeriesFilter, over_commits
from tvmmobile.history.series import MeasuredCommit as Known
from tvmmobile.history.steps import find_steps

BROWSER = pytest.mark.skipif(find_browser() is None, reason=f"none of {', '.join(NAMES)} is installed")


def read(path: Path) -> CommitHistory:
    with open_history(path, add=False) as history:
        return over_commits(history, SeriesFilter(), 0.01)


def check(text: str) -> Page:
    """Check that the page is self-contained, and that it runs only its own script."""
    found = Page(text)
    for tag, attributes in found.tags:
        assert tag not in ("link", "iframe", "object", "embed", "img", "base", "form")
        assert not [name for name in attributes if name.startswith("on") or name == "src"]
        assert attributes.get("href", "#").startswith("#")
    assert found.named("script") == [{"id": "data", "type": "application/json"}, {}]
    data, script = found.text["script"]
    assert script == (Path(page_module.__file__).parent / "templates" / "history.js").read_text(encoding="utf-8")
    (policy,) = [attributes["content"] for attributes in found.named("meta") if "http-equiv" in attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy and "default-src 'none'" in policy
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|XMLHttpRequest|import\(|eval\(|innerHTML", script)
    assert "url(" not in "".join(found.text["style"]) and "<" not in data
    json.loads(data)
    return found


def large(commits: int, series: int) -> CommitHistory:
    """Return a history as it is read, of measured latencies with some steps, but without kernels."""
    random = np.random.default_rng(0)
    known = tuple(Known(commit(number).name, False, 1_790_000_000 + 3600 * number, f"Change number {number}") for number in range(commits))
    made = []
    for number in range(series):
        levels = np.cumsum((random.random(commits) < 0.02) * random.normal(0, 0.05, commits))
        latencies = [float(one) for one in 1e4 * np.exp(levels + random.normal(0, 0.01, commits))]
        points = tuple(Point(place, us, 0.99 * us, 0.01, (place,), "", False) for place, us in enumerate(latencies))
        line = LatencyLine("Raspberry Pi 4", "Cortex-A72", "", points, find_steps(latencies, [1] * commits, exact=False))
        made.append(Series("mobilenet_v1", 1.0, str(32 * number + 32), "float32", "c", 1, "pi4", "measured", 1.8e9, (line,), 0))
    return CommitHistory(known, tuple(made), (), 0)


def test_the_page_is_self_contained_and_shows_the_step(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    stepped(path)
    outcome = cli("history", "page", str(path), "--out", str(tmp_path / "page"))
    assert outcome.out == f"Written to {tmp_path / 'page'}: history.html, history.json, history.csv\n"
    assert {one.name for one in (tmp_path / "page").iterdir()} == {"history.html", "history.json", "history.csv"}
    found = check((tmp_path / "page" / "history.html").read_text(encoding="utf-8"))
    (step,) = [text for text in found.text["ol"] if "Change number 25" in text]
    assert "+4.9%" in step and "measured" in step and "@1 → conv@1" in step and "95 % sure" in step


def test_names_cannot_leave_their_place(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    odd = hostile()
    with open_history(path, add=True) as history:
        for number in range(2):
            variants = tuple(replace(variant, samples_us=(variant.latency_us * (1 + number),), invalid="") for variant in odd.variants)
            context = replace(odd.context, date=f"2026-11-2{number}T00:00:00+00:00")
            history.add(
                replace(odd, context=context, variants=variants), replace(commit(number), name=f"{HOSTILE}{number}", subject=HOSTILE), "add"
            )
    text = history_page(read(path), 20)
    check(text)
    assert "<script>alert" not in text and "<img" not in text and "\u202e" not in text


def test_a_large_page_is_small() -> None:
    text = history_page(large(500, 64), 20)
    assert len(text.encode()) < 1_000_000
    check(text)


def test_a_single_commit_has_a_page(tmp_path: Path) -> None:
    with open_history(tmp_path / "history.sqlite", add=True) as history:
        history.add(results(1), commit(1), "bench")
    found = check(history_page(read(tmp_path / "history.sqlite"), 20))
    assert "No latency has changed beyond its noise." in "".join(found.text["p"])


def test_steps_that_are_too_small_to_be_listed_are_counted(cli: CommandLine, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    with open_history(path, add=True) as history:
        for number in (1, 2, 3):
            history.add(results(number, [1 + 0.005 * number], measured=False), commit(number), "bench")
    found = check(history_page(read(path), 20))
    (text,) = [text for text in found.text["p"] if "--least" in text]
    assert text == "2 steps too small to be listed (--least)."
    assert json.loads(found.text["script"][0])["series"][0]["smaller"] == 2
    assert cli("history", "show", str(path)).out.endswith("3 commits, 1 series, 0 steps; 2 smaller steps left out (--least).\n")
    shown = cli("history", "show", str(path), "--least", "0").out
    assert shown.endswith("3 commits, 1 series, 2 steps.\n")
    assert cli("history", "show", str(path), "--least", "0", "--device", "pi4").out == shown  # as `bench --device pi4` timed it


def test_a_history_without_valid_results_has_a_page(tmp_path: Path) -> None:
    with open_history(tmp_path / "history.sqlite", add=True) as history:
        history.add(results(1), replace(commit(1), dirty=True), "bench")
    found = check(history_page(read(tmp_path / "history.sqlite"), 20))
    assert "0 series" in found.text["p"][0] and "1 result of dirty trees, or not valid, left out" in found.text["p"][0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a history of a measured and a modelled device."""
    folder = tmp_path_factory.mktemp("page")
    for measured in (True, False):
        stepped(folder / "history.sqlite", measured=measured)
    (folder / "history.html").write_text(history_page(read(folder / "history.sqlite"), 20))
    return folder / "history.html"


def text_of(browser: Browser, selector: str) -> Any:
    return browser.run(f"document.querySelector({json.dumps(selector)}).textContent")


@BROWSER
def test_the_chart_of_a_series(browser: Browser, written: Path) -> None:
    browser.size(1280, 900)
    browser.open(written)
    assert text_of(browser, "#title") == "mobilenet_v1 1.0-224 float32, 1 thread"
    assert browser.run("document.querySelectorAll('#plot .dot').length") == 40
    assert browser.run("document.querySelectorAll('#series td.course path.level').length") == 4
    browser.click("#series tbody tr:nth-child(2)")
    assert text_of(browser, "#title") == "mobilenet_v1 1.0-192 float32, 1 thread" and "No step" in text_of(browser, "#told")
    chosen = browser.run("location.hash")
    browser.open(written, chosen)
    assert text_of(browser, "#title") == "mobilenet_v1 1.0-192 float32, 1 thread"
    browser.click("#series tbody tr:nth-child(3)")
    assert "modelled" in text_of(browser, "#where") and "exact" in text_of(browser, "#told") and "+5.0%" in text_of(browser, "#told")
    browser.run("document.getElementById('plot').focus()")
    browser.press("ArrowLeft")
    assert "ms modelled" in text_of(browser, "#tip") and "Change number 39" in text_of(browser, "#tip")
    browser.press("ArrowLeft")
    assert "Change number 38" in text_of(browser, "#tip")
    assert browser.problems == [] and browser.requests == []


@BROWSER
def test_filter_and_order(browser: Browser, written: Path) -> None:
    browser.size(1280, 900)
    browser.open(written)
    shown = "[...document.querySelectorAll('#series tbody tr')].filter(row => !row.hidden).map(row => Number(row.dataset.series))"
    browser.type("#filter", "1.0-192 MODELLED")
    assert browser.run(shown) == [3]
    browser.type("#filter", "int8")
    assert browser.run(shown) == [] and not browser.run("document.getElementById('none').hidden")
    browser.type("#filter", "")
    browser.click("#series thead th:nth-child(3) button")
    assert browser.run("document.querySelector('#series thead th:nth-child(3)').getAttribute('aria-sort')") == "descending"
    latencies = browser.run("[...document.querySelectorAll('#series tbody tr')].map(row => Number(row.dataset.keys.split(' ')[1]))")
    assert latencies == sorted(latencies, reverse=True)
    assert browser.problems == []


@BROWSER
def test_a_phone(browser: Browser, written: Path) -> None:
    browser.size(390, 844, touch=True)
    browser.open(written)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    browser.tap(".told .name")
    assert browser.run("document.querySelectorAll('#plot .step').length") == 1
    assert browser.problems == []


@BROWSER
def test_a_large_page_opens_at_once(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "history.html").write_text(history_page(large(500, 64), 20))
    browser.size(1280, 900)
    times = []
    for _ in range(3):
        browser.open(tmp_path / "history.html")
        times.append(browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    assert min(times) < 1000
    assert browser.run("document.querySelectorAll('#series tbody tr').length") == 64


@BROWSER
def test_a_page_without_valid_results_has_no_errors(browser: Browser, tmp_path: Path) -> None:
    with open_history(tmp_path / "history.sqlite", add=True) as history:
        history.add(results(1), replace(commit(1), dirty=True), "bench")
    (tmp_path / "history.html").write_text(history_page(read(tmp_path / "history.sqlite"), 20))
    browser.size(1280, 900)
    browser.open(tmp_path / "history.html")
    assert browser.run("document.getElementById('chart').hidden") and browser.problems == []
