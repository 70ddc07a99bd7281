"""Tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> list[str]:
    """Return the lines of a Markdown table; the columns after the first `texts` are flushed right."""
    rule = ["---"] * texts + ["---:"] * (len(headings) - texts)
    return [f"| {' | '.join(map(str, cells))} |" for cells in (headings, rule, *rows)]
