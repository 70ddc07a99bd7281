"""The table for the terminal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from report_samples import sample_results

from tvmmobile.results.file import Results
from tvmmobile.results.report import print_table
from tvmmobile.results.report.wording import plural

Printed = Callable[[Results], str]


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Return the output of `print_table`; no line is longer than 80 columns or cut off."""

    def show(results: Results) -> str:
        print_table(results)
        out = capsys.readouterr().out
        assert max(map(len, out.splitlines()), default=0) <= 80 and "…" not in out
        return out

    return show


def test_sixteen_variants(printed: Printed) -> None:
    out = printed(sample_results())
    rows = [line.split() for line in out.splitlines()]
    assert ["1.0", "224", "89.61*", "568.7", "4.23", "70.9", "88.2", "23.8", "3e-07"] in rows
    assert sum(row[:1] in (["1.0"], ["0.75"], ["0.5"], ["0.25"]) for row in rows) == 16
    words = " ".join(out.split())
    assert "Latency modelled: Cortex-A72 at 1.8 GHz, core cycles and data cache misses; no TLB, no instruction fetches." in words
    assert "top-1 [1]: tensorflow/models" in words and "measured" not in words
    assert any("modelled" in line and "MACs" in line for line in out.splitlines())


def test_measured_says_where(printed: Printed) -> None:
    words = " ".join(printed(sample_results(3, measured=True)).split())
    assert "measured on Raspberry Pi 4 Model B (pi4)" in words and "modelled" not in words


@pytest.mark.parametrize("sources", [0, 2, 3])
def test_a_column_for_each_source(printed: Printed, sources: int) -> None:
    results = sample_results()
    variants = [
        replace(variant, top1_source=f"source {place % sources}" if sources else None, top1=variant.top1 if sources else None)
        for place, variant in enumerate(results.variants)
    ]
    out = printed(replace(results, variants=tuple(variants)))
    assert all(f"top-1 [{number}]: source {number - 1}" in out for number in range(1, sources + 1))
    assert sources or ("top-1" not in out and "*" not in out)


def test_hostile_names_are_printed_as_they_are(printed: Printed) -> None:
    results = sample_results(1)
    variant = replace(results.variants[0], model="[bold]x[/]:smile: \x1b[31m\u202e", top1_source="[red]y")
    out = printed(replace(results, variants=(variant,)))
    assert "[bold]x[/]:smile:" in out and "[red]y" in out and "\x1b" not in out and "\u202e" not in out


def test_nothing_to_print(printed: Printed) -> None:
    assert printed(replace(sample_results(1), variants=())) == ""


@pytest.mark.parametrize(("count", "thing", "text"), [(1, "library", "1 library"), (2, "library", "2 libraries"), (0, "trial", "0 trials")])
def test_one_thing_and_several(count: int, thing: str, text: str) -> None:
    assert plural(count, thing) == text
