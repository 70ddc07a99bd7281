"""Results as Markdown, for a pull request or an issue. The kernels are left to the HTML page."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tvmmobile.report.facts import facts, fit_sentence
from tvmmobile.report.view import Grid, Row, View
from tvmmobile.report.wording import UNKNOWN, clean, latency_ms, mebibytes, millions, origin, origin_caption, percent, scientific

#: What Markdown gives a meaning inside a line; an underscore within a word has none, nor has a bracket that no link follows.
_SPECIAL = re.compile(r"([\\`*|<>&~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[]))")


def markdown(view: View) -> str:
    """The text of `report.md` (GitHub's dialect)."""
    parts = [f"# {_escape(view.title)}", f"Latency {_escape(origin_caption(view.context))}."]
    for grid in view.grids:
        parts += [f"## {_escape(grid.title)}: latency, ms ({_escape(origin(view.context))})", _grid(grid)]
    parts += [f"## Variants: {_escape(origin(view.context))}", _variants(view)]
    sources = [f"top-1 [{number}]: {source}" for number, source in enumerate(view.sources, 1)]
    marks = ["**bold**: on the front of accuracy against latency; no variant is at least as fast and as accurate, and better in one."]
    parts.append("\n".join(f"- {line}" for line in [*map(_escape, sources), *(marks if view.sources else []), *map(_escape, view.notes)]))
    if view.fit:
        parts += ["## Latency against multiply-adds", _escape(fit_sentence(view.fit, view.context))]
    parts += ["## Where and how", _table(("", ""), [(name, value) for name, value in facts(view)])]
    return "\n\n".join(parts) + "\n"


def _escape(text: str) -> str:
    return _SPECIAL.sub(r"\\\1", clean(text))


def _table(headings: Sequence[str], lines: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """A table of escaped cells; columns from `right_from` on are flushed right. A cell in `**` stays bold."""
    columns = len(headings)
    rule = ["---:" if right_from is not None and place >= right_from else "---" for place in range(columns)]
    rows = [[_escape(heading) for heading in headings], rule, *([_cell(cell) for cell in line] for line in lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**") and len(text) > 4
    return f"**{_escape(text[2:-2])}**" if bold else _escape(text)


def _grid(grid: Grid) -> str:
    lines = [(f"α {alpha}", *(_latency(cell) if cell else UNKNOWN for cell in cells)) for alpha, cells in grid.lines]
    return _table(("", *map(str, grid.resolutions)), lines, right_from=1)


def _latency(row: Row) -> str:
    text = latency_ms(row.variant.latency_us)
    return f"**{text}**" if row.on_front else text


def _variants(view: View) -> str:
    tops = [f"top-1, % [{number}]" for number in range(1, len(view.sources) + 1)]
    spread = ["IQR, %"] if view.sampled else []
    counts = ["core cycles, M", "L1D misses, M", "DRAM, MB"] if view.counted else []
    kind = view.context.kind
    sizes = ["MACs, M", "params, M"]
    headings = ["variant", f"latency, ms, {kind}", *spread, *counts, *sizes, *tops, "FMA peak, %", "memory, MiB", "max error"]
    return _table(headings, [_line(view, row) for row in view.rows], right_from=1)


def _line(view: View, row: Row) -> list[str]:
    variant = row.variant
    return [
        variant.name,
        _latency(row),
        *([percent(row.spread)] if view.sampled else []),
        *(map(millions, (variant.cycles, variant.l1d_misses, variant.dram_bytes)) if view.counted else ()),
        millions(variant.macs),
        millions(variant.parameters),
        *(f"{variant.top1:.1f}" if row.source == number else UNKNOWN for number in range(1, len(view.sources) + 1)),
        percent(row.peak_share),
        mebibytes(variant.peak_memory_bytes),
        scientific(variant.max_error),
    ]
