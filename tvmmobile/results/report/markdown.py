"""Results as Markdown, for a pull request or an issue. The kernels are left to the HTML page and the spreadsheet."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tvmmobile.results.report.beside import SideBySide
from tvmmobile.results.report.facts import facts, fit_sentence, law_sentence, sums_sentence
from tvmmobile.results.report.view import Grid, VariantRow, View
from tvmmobile.results.report.wording import UNKNOWN, clean, latency_ms, millions, origin, origin_caption, percent, plural, signed
from tvmmobile.system.markdown import markdown_table

#: GitHub takes comments of up to 65,536 characters; some are left for what a workflow puts around the report.
MOST_CHARACTERS = 65_000
#: Characters that Markdown interprets within a line; not underscores within words, nor brackets without a link.
_SPECIAL = re.compile(r"([\\`*|<>&~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|\](?=[(\[]))")


def markdown(view: View, beside: SideBySide | None = None, most: int = MOST_CHARACTERS) -> str:
    """Return the text of `report.md` (GitHub's dialect), within a number of characters.

    What does not fit is left out from the end, a section or the last lines of a table at a time, and the text says so.
    """
    parts = [f"# {escape(view.title)}", f"Latency {escape(origin_caption(view.context))}."]
    if view.remarks:
        parts.append(bullets(view.remarks))
    parts += _beside(beside) if beside else []
    for grid in view.grids:
        parts += [f"## {escape(grid.title)}: latency, ms ({escape(origin(view.context))})", _grid(grid)]
    parts += [f"## Variants: {escape(origin(view.context))}", _variants(view)]
    sources = [f"top-1 [{number}]: {source}" for number, source in enumerate(view.sources, 1)]
    marks = ["**bold**: on the front of accuracy against latency; no variant is at least as fast and as accurate, and better in one."]
    parts.append("\n".join(f"- {line}" for line in [*map(escape, sources), *(marks if view.sources else []), *map(escape, view.notes)]))
    if view.fit:
        parts += ["## Latency against multiply-adds", escape(fit_sentence(view.fit, view.context))]
        parts += filter(None, [escape(law_sentence(view))])
    parts += filter(None, [escape(sums_sentence(view))])
    parts += ["## Where and how", table(("", ""), [(name, value) for name, value in facts(view)])]
    return _fitted(parts, most)


def _fitted(parts: Sequence[str], most: int) -> str:
    text = "\n\n".join(parts) + "\n"
    if len(text) <= most:
        return text
    room = most - 200  # room for the note about it
    kept: list[str] = []
    for part in parts:
        left = room - sum(len(one) + 2 for one in kept)
        if len(part) <= left:
            kept.append(part)
            continue
        lines = part.split("\n")
        whole = [line for place, line in enumerate(lines) if sum(len(earlier) + 1 for earlier in lines[: place + 1]) <= left]
        # A table needs its two lines of headings to be one.
        if part.startswith("|") and len(whole) > 2:
            more = plural(len(lines) - len(whole), "more line")
            kept += ["\n".join(whole), f"{more} of this table, and what follows it, did not fit: see report.html and report.csv."]
        else:
            kept.append("The rest did not fit: see report.html and report.csv.")
        break
    return "\n\n".join(kept)[:most] + "\n"


def escape(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\1", clean(text))


def bullets(lines: Sequence[str]) -> str:
    """Return a list of escaped lines."""
    return "\n".join(f"- {escape(line)}" for line in lines)


def table(headings: Sequence[str], lines: Sequence[Sequence[str]], right_from: int | None = None) -> str:
    """Return a table of escaped cells; columns from `right_from` on are flushed right. A cell in `**` stays bold."""
    texts = len(headings) if right_from is None else right_from
    return "\n".join(markdown_table([*map(escape, headings)], ([*map(_cell, line)] for line in lines), texts))


def _cell(text: str) -> str:
    bold = text.startswith("**") and text.endswith("**") and len(text) > 4
    return f"**{escape(text[2:-2])}**" if bold else escape(text)


def _beside(beside: SideBySide) -> list[str]:
    change = ["change"] if beside.compared else []
    lines = [
        (
            pair.name,
            *(UNKNOWN if one is None else latency_ms(one.latency_us) for one in (pair.old, pair.new)),
            *([UNKNOWN if pair.change is None else signed(pair.change)] if change else []),
        )
        for pair in beside.pairs
    ]
    parts = ["## Side by side", table(("variant", *beside.headings, *change), lines, right_from=1)]
    parts += [bullets(beside.remarks)] if beside.remarks else []
    return [*parts, f"What follows is {escape(beside.new_name)}."]


def _grid(grid: Grid) -> str:
    lines = [(f"α {alpha}", *(_latency(cell) if cell else UNKNOWN for cell in cells)) for alpha, cells in grid.lines]
    return table(("", *grid.sides), lines, right_from=1)


def _latency(row: VariantRow) -> str:
    text = latency_ms(row.variant.latency_us) + ("" if row.valid else " (not valid)")
    return f"**{text}**" if row.on_front else text


def _variants(view: View) -> str:
    tops = [f"top-1, % [{number}]" for number in range(1, len(view.sources) + 1)]
    spread = ["IQR, %"] if view.sampled else []
    counts = ["core cycles, M", "L1D misses, M", "DRAM, MB"] if view.counted else []
    kind = view.context.kind
    sizes = ["MACs, M", "params, M"]
    headings = ["variant", f"latency, ms, {kind}", *spread, *counts, *sizes, *tops, "FMA peak, %", "memory, MiB", "max error"]
    return table(headings, [_line(view, row) for row in view.rows], right_from=1)


def _line(view: View, row: VariantRow) -> list[str]:
    variant = row.variant
    return [
        variant.name,
        _latency(row),
        *([percent(row.spread)] if view.sampled else []),
        *(map(millions, (variant.cycles, variant.l1d_misses, variant.dram_bytes)) if view.counted else ()),
        *view.figures_of(row, 1),
    ]
