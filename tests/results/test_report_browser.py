"""The report's page in a real browser: it asks for nothing, complains of nothing, and its interactive parts do what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import NAMES, Browser, find_browser, started_browser
from report_samples import sample_results

from tvmmobile.results.file import Results
from tvmmobile.results.report import write_report, write_side_by_side

pytestmark = pytest.mark.skipif(find_browser() is None, reason=f"none of {', '.join(NAMES)} is installed")

_TIP = "document.getElementById('tip')"
#: The first variant's mark in the plot of accuracy against latency.
_MARK = "#plot-accuracy-1 g.mark[data-variant='0']"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        yield started


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the paper's grid."""
    return write_report(sample_results(), tmp_path_factory.mktemp("page"))[-1]


@pytest.fixture(autouse=True)
def _desktop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A desktop's window before each test; nothing complained of and asked for after it."""
    opened: Browser = request.getfixturevalue("browser")
    opened.size(1280, 900)
    yield
    opened.settle()
    assert opened.problems == [] and opened.requests == []


def _marked(browser: Browser, within: str) -> list[str]:
    """Return the variants marked as best in a part of the page."""
    found: list[str] = browser.run(f"[...document.querySelectorAll('{within} .best[data-variant]')].map(e => e.dataset.variant)")
    return sorted(set(found))


def _fits(browser: Browser) -> str:
    return str(browser.run("document.getElementById('fits').textContent"))


def _best(results: Results, limit_ms: float) -> str | None:
    """Return the number of the most accurate variant that takes so long or less, worked out anew."""
    fitting = [(one.top1 or 0.0, -one.latency_us, place) for place, one in enumerate(results.variants) if one.latency_us <= 1e3 * limit_ms]
    return str(max(fitting)[2]) if fitting else None


def test_a_page_that_misbehaves_is_noticed(browser: Browser, tmp_path: Path) -> None:
    """The checks after each test can fail."""
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src='http://127.0.0.1:9/x.png'><script>console.error('no'); throw new Error('no')</script>")
    browser.open(bad)
    browser.settle()
    assert browser.requests == ["http://127.0.0.1:9/x.png"] and len(browser.problems) >= 2
    browser.open(bad.with_name("bad.html"), "#again")
    browser.problems.clear()
    browser.requests.clear()
    (tmp_path / "good.html").write_text("<!doctype html><p>nothing")
    browser.open(tmp_path / "good.html")


def test_its_own_policy_lets_no_other_script_run(browser: Browser, page: Path, tmp_path: Path) -> None:
    text = page.read_text(encoding="utf-8")
    changed = tmp_path / "changed.html"
    changed.write_text(
        text.replace("<h1>", "<script>document.title = 'run'</script><h1 onclick=\"document.title = 'run'\">", 1), encoding="utf-8"
    )
    browser.open(changed)
    browser.click("h1")
    assert browser.run("document.title") != "run"
    assert any("Content Security Policy" in problem for problem in browser.problems)
    browser.problems.clear()


@pytest.mark.parametrize("limit", ["1", "2.5", "2.51", "7.19", "13", "20,5", "50", "1e3"])
def test_i_have_n_ms_marks_the_best_that_fits(browser: Browser, page: Path, limit: str) -> None:
    results = sample_results()
    browser.open(page)
    browser.type("#ms", limit)
    # As shown: 2.50 ms fits into 2.5.
    rounded = replace(
        results, variants=tuple(replace(variant, samples_us=(round(variant.latency_us, -1),)) for variant in results.variants)
    )
    best = _best(rounded, float(limit.replace(",", ".")))
    expected = [] if best is None else [best]
    for part in ("#plot-accuracy-1", "#plot-scaling", "table.grid", "table.variants"):
        assert _marked(browser, part) == expected, part
    words = _fits(browser)
    if best is None:
        assert words == "none fits: the fastest, mobilenet_v1 0.25-128, takes 2.50 ms modelled."
    else:
        one = results.variants[int(best)]
        shown = f"{one.latency_us / 1e3:.2f} ms modelled, top-1 {one.top1} %."
        assert words == f"mobilenet_v1 {one.alpha}-{one.resolution} is the most accurate that fits: {shown}"
    slower = sum(variant.latency_us > 1e3 * float(limit.replace(",", ".")) for variant in rounded.variants)
    assert browser.run("document.querySelectorAll('table.grid td.over').length") == slower
    browser.type("#ms", "")
    assert _marked(browser, "body") == [] and _fits(browser) == "" and browser.run("location.hash") == ""


@pytest.mark.parametrize("text", ["-3", "0", "soon", "1e999", "0x"])
def test_what_is_no_time_is_said_to_be_none(browser: Browser, page: Path, text: str) -> None:
    browser.open(page)
    browser.type("#ms", text)
    assert _fits(browser) == "Give a number of milliseconds, such as 15." and _marked(browser, "body") == []


def test_tables_fit_a_page_of_1280_pixels(browser: Browser, page: Path) -> None:
    browser.open(page)
    for table in ("table.variants", "table.departures"):
        assert browser.run(f"(e => e.scrollWidth <= e.clientWidth)(document.querySelector('{table}').parentElement)"), table
    browser.size(700, 900)
    assert not browser.run("(e => e.scrollWidth <= e.clientWidth)(document.querySelector('table.variants').parentElement)")


def test_the_address_remembers(browser: Browser, page: Path) -> None:
    browser.open(page, "#ms=13")
    assert browser.run("document.getElementById('ms').value") == "13" and _marked(browser, "table.grid") == ["10"]
    browser.type("#ms", "20")
    assert browser.run("location.hash") == "#ms=20"
    # Also after a link within the page was followed, which opens the kernels.
    browser.click("#variants tr[data-variant='3'] a")
    assert browser.run("location.hash") == "#ms=20"
    assert browser.run("document.getElementById('kernels-3').closest('details').open") is True
    browser.run("location.hash = '#ms=2'")
    browser.settle()
    assert _fits(browser).startswith("none fits")


def test_the_limit_is_drawn_where_it_is(browser: Browser, page: Path) -> None:
    browser.open(page, "#ms=12.67")  # what 0.5-160 takes
    line, mark = (
        browser.run(f'(() => {{ const r = document.querySelector("{selector}").getBoundingClientRect(); return r.x + r.width / 2; }})()')
        for selector in ("#plot-accuracy-1 line.limit", "#plot-accuracy-1 g.mark[data-variant='10']")
    )
    assert line == pytest.approx(mark, abs=1)
    browser.type("#ms", "100000")
    assert browser.run("document.querySelector('line.limit').hasAttribute('hidden')") is True


def test_two_sources_have_a_sentence_each_and_spoiled_runs_none(browser: Browser, tmp_path: Path) -> None:
    results = sample_results()
    first, second, *others = results.variants
    variants = (replace(first, invalid="throttled"), replace(second, top1=72.5, top1_source="another training"), *others)
    browser.open(write_report(replace(results, variants=variants), tmp_path)[-1], "#ms=1000")
    words = _fits(browser)
    assert words.startswith("top-1 [1]: mobilenet_v1 0.75-224 is the most accurate") and " top-1 [2]: mobilenet_v1 1.0-192 is" in words
    assert _marked(browser, "table.grid") == ["1", "4"]


def test_hovering_shows_the_variant(browser: Browser, page: Path) -> None:
    browser.open(page)
    assert browser.run(f"{_TIP}.hidden") is True
    browser.hover(_MARK)
    assert browser.run(f"{_TIP}.textContent") == "mobilenet_v1 1.0-224: 89.61 ms modelled, 568.7 M multiply-adds, top-1 70.9 % [1]"
    assert browser.run("document.querySelectorAll('.hot[data-variant=\"0\"]').length") >= 4
    box = browser.run(
        f"(() => {{ const r = {_TIP}.getBoundingClientRect(); return [r.left, r.top, innerWidth - r.right, innerHeight - r.bottom]; }})()"
    )
    assert min(box) >= 0
    browser.hover("h1")
    assert browser.run(f"{_TIP}.hidden") is True and browser.run("document.querySelectorAll('.hot').length") == 0


def test_the_keyboard_reaches_every_mark(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run("document.getElementById('ms').focus()")
    seen = []
    for _ in range(3):
        browser.press("Tab")
        seen.append(browser.run("document.activeElement.getAttribute('class')"))
    assert "mark hint s0 filled hot" in seen
    assert browser.run(f"{_TIP}.textContent").startswith("mobilenet_v1 1.0-224")
    browser.press("ArrowRight")
    assert browser.run(f"{_TIP}.textContent").startswith("mobilenet_v1 1.0-192")
    browser.press("ArrowLeft")
    browser.press("ArrowLeft")
    assert browser.run(f"{_TIP}.textContent").startswith("mobilenet_v1 0.25-128")
    browser.press("Escape")
    assert browser.run(f"{_TIP}.hidden") is True


def test_a_finger_shows_the_variant(browser: Browser, page: Path) -> None:
    browser.size(390, 844, touch=True)
    browser.open(page)
    browser.tap(_MARK)
    assert browser.run(f"{_TIP}.hidden") is False and browser.run(f"{_TIP}.textContent").startswith("mobilenet_v1 1.0-224")
    browser.tap("h1")
    assert browser.run(f"{_TIP}.hidden") is True


def test_bars_and_kernels_say_what_they_are(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.hover(".bar.time .hint")
    assert browser.run(f"{_TIP}.textContent") == "1.0-224, conv 1x1: 90.9 % of the time, modelled"
    browser.click("#kernels details summary")
    browser.hover("#plot-roofline-0 .mark")
    assert "operations a byte; compute limits it" in browser.run(f"{_TIP}.textContent")
    browser.hover("#plot-course .mark")
    assert "ms modelled after 1 trial each" in browser.run(f"{_TIP}.textContent")


@pytest.mark.parametrize("width", [320, 390, 1280])
@pytest.mark.parametrize("shape", ["one", "side by side", "measured"])
def test_the_body_never_scrolls_sideways(browser: Browser, tmp_path: Path, width: int, shape: str) -> None:
    results = sample_results(measured=shape == "measured")
    spoiled = replace(results.variants[5], invalid="the board held its clock down: throttled, soft temperature limit")
    results = replace(results, variants=(*results.variants[:5], spoiled, *results.variants[6:]))
    made = write_side_by_side(results, sample_results(9), tmp_path) if shape == "side by side" else write_report(results, tmp_path)
    browser.size(width, 844, touch=width < 1000)
    browser.open(made[-1], "#ms=15")
    browser.run("document.querySelectorAll('details').forEach(one => one.open = true)")
    browser.settle()
    assert browser.run("document.documentElement.scrollWidth") <= width


def test_dark_and_light_differ_and_can_be_read(browser: Browser, page: Path) -> None:
    contrasts = []
    for dark in (False, True):
        browser.size(1280, 900, dark=dark)
        browser.open(page)
        ink, surface = browser.run("(() => { const s = getComputedStyle(document.body); return [s.color, s.backgroundColor]; })()")
        light = [sum(int(part) for part in colour.removeprefix("rgb(").removesuffix(")").split(",")) for colour in (ink, surface)]
        contrasts.append(light[0] - light[1])
    assert contrasts[0] < -500 and contrasts[1] > 500
