"""Tables on terminals of any width: nothing is cut off."""

from __future__ import annotations

import pytest
from rich.console import Console

from tvmmobile.system.console import table_of


def printed(width: int, left: tuple[str, ...], right: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    console = Console(width=width, highlight=False, markup=False, color_system=None)
    table = table_of(left, right)
    for row in rows:
        table.add_row(*row)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


ROWS = [("mobilenet_v1_0.25_128", "kept", "2.74*\N{NO-BREAK SPACE}", "–"), ("mobilenet_v1_shallow_1.0_224", "not kept", "50.38", "84.7")]
HEADINGS = (("variant", "library"), ("modelled\nms", "peak\n%"))


@pytest.mark.parametrize("width", [20, 30, 40, 52, 60, 80, 200])
def test_nothing_is_cut_off(width: int) -> None:
    text = printed(width, *HEADINGS, ROWS)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    assert all("".join(cell.split()) in joined for row in ROWS for cell in row if cell != "–" and " " not in cell)


def test_a_row_that_does_not_fit_is_a_paragraph() -> None:
    lines = [line.rstrip() for line in printed(40, *HEADINGS, ROWS).splitlines()]
    assert lines == [
        "mobilenet_v1_0.25_128",
        "  library: kept; modelled ms: 2.74*",
        "mobilenet_v1_shallow_1.0_224",
        "  library: not kept; modelled ms: 50.38;",
        "  peak %: 84.7",
    ]


def test_rows_of_numbers_alone_are_apart() -> None:
    lines = [
        line.rstrip() for line in printed(18, (), ("α", "side", "latency\nms"), [("1.0", "224", "88.39"), ("0.5", "160", "–")]).splitlines()
    ]
    assert lines == ["", "  α: 1.0; side:", "  224; latency ms:", "  88.39", "", "  α: 0.5; side:", "  160"]


def test_text_wraps_before_rows_become_paragraphs() -> None:
    lines = [
        line.split()
        for line in printed(40, ("needed", "for"), ("found",), [("qemu-aarch64", "runs AArch64 code here", "7.2")]).splitlines()
    ]
    assert ["needed", "for", "found"] in lines and ["qemu-aarch64", "runs", "AArch64", "code", "7.2"] in lines and ["here"] in lines
