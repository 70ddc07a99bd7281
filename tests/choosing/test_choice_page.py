"""The page of a choice: all candidates, and what its script does in a real browser."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from browser import NAMES, Browser, find_browser, started_browser

from tvmmobile.choosing.answer import NetworkChoice, PricedCandidate
from tvmmobile.choosing.budget import Budget
from tvmmobile.choosing.candidates import Candidate, KnownAccuracy
from tvmmobile.choosing.pricing import PlannedLatency
from tvmmobile.choosing.report.entries import csv_of
from tvmmobile.choosing.report.files import write_choice
from tvmmobile.devices.registry import find_device
from tvmmobile.networks.model import Model
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.pipeline.options.library import LibraryOptions

BROWSER = pytest.mark.skipif(find_browser() is None, reason=f"none of {', '.join(NAMES)} is installed")


def candidate(side: int, latency_us: float, top1: float, estimated_us: float = 0.0) -> PricedCandidate:
    latency = PlannedLatency(latency_us, 28, 0, 1_000_000, 2_000_000, estimated_us)
    network = Candidate(Model(ModelSpec("mobilenet_v1", 0.5, side)), LibraryOptions(), KnownAccuracy(top1, "by hand"))
    return PricedCandidate(network, {"pi4-virtual": latency})


@pytest.fixture
def choice() -> NetworkChoice:
    """A front of four, two of whose latencies are partly estimated, and one that another beats."""
    front = (candidate(128, 9_000, 56), candidate(160, 13_000, 59, 500), candidate(192, 100_000, 62), candidate(224, 120_000, 64, 9_000))
    beaten = (candidate(96, 14_000, 50),)
    return NetworkChoice(Budget(), (find_device("pi4-virtual").profile,), None, front, beaten, (), 0, ())


@BROWSER
def test_the_table_is_sorted_by_numbers_and_by_names(choice: NetworkChoice, tmp_path: Path, browser: Browser) -> None:
    """Also where a ~ marks estimated latencies."""
    write_choice(choice, tmp_path)
    browser.open(tmp_path / "choice.html")
    sides = "[...document.querySelectorAll('#variants tbody tr')].map(row => Number(row.dataset.name.split('_')[3].split(' ')[0]))"
    orders = {4: [128, 160, 96, 192, 224], 5: [96, 128, 160, 192, 224], 1: [128, 160, 192, 224, 96]}
    for column, order in orders.items():
        browser.click(f"#variants thead th:nth-child({column}) button")
        assert browser.run(sides) == order
        browser.click(f"#variants thead th:nth-child({column}) button")
        assert browser.run(sides) == order[::-1]
    browser.type("#filter input[type=search]", "192")
    assert browser.run("document.getElementById('count').textContent") == "1 of 5 shown"
    assert browser.problems == [] and browser.requests == []


def test_the_spreadsheet_has_a_line_for_every_candidate(choice: NetworkChoice) -> None:
    """Candidates that need too much memory are included."""
    large = candidate(256, 200_000, 70)
    lines = list(csv.DictReader(io.StringIO(csv_of(replace(choice, oversized=(large,))))))
    assert [line["place"] for line in lines] == ["front"] * 4 + ["beaten", "oversized"]
    assert lines[-1]["variant"] == "mobilenet_v1_0.5_256"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for all tests here."""
    with started_browser(tmp_path_factory.mktemp("browser")) as started:
        started.size(1280, 900)
        yield started
