"""Results as a table for the terminal, 80 columns wide."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tvmmobile.results.file import Results
from tvmmobile.results.report.beside import side_by_side
from tvmmobile.results.report.fallback import fallback_lines, used_kernels
from tvmmobile.results.report.threads import thread_sentences
from tvmmobile.results.report.view import Grid, VariantRow, View, doubt_sentence, view_of
from tvmmobile.results.report.wording import UNKNOWN, clean, latency_ms, origin_caption, signed
from tvmmobile.results.report.zeros import zero_sentences

if TYPE_CHECKING:
    from rich.table import Table


def print_table(results: Results) -> None:
    """Print one table per network, dtype, thread count and format, and where the latencies come from. Prints nothing without a variant."""
    from tvmmobile.system.console import output

    if not results.variants:
        return
    view = view_of(results)
    console = output()
    for grid in view.grids:
        console.print(clean(grid.title))
        console.print(_table(view, grid))
    console.print(clean(f"Latency {origin_caption(view.context)}."))
    for sentence in (*thread_sentences(results), *zero_sentences(results)):
        console.print(clean(sentence))
    for variant in results.variants:
        if variant.invalid:
            console.print(clean(f"not valid: {variant.name}: {variant.invalid}."))
    if doubt := doubt_sentence(results):
        console.print(clean(doubt))
    for number, source in enumerate(view.sources, 1):
        console.print(clean(f"top-1 [{number}]: {source}"))
    if view.sources:
        console.print(view.accuracy_note)
        console.print("*: no variant is at least as fast and as accurate, and better in one.")
    console.print("peak: share of the multiply-adds the core could have done in that time.")
    for line in fallback_lines(used_kernels(results.variants)):
        console.print(clean(line))


def print_side_by_side(old: Results, new: Results) -> None:
    """Print each variant's latency in both results, its change, and the differences between the two."""
    from tvmmobile.system.console import output, table_of

    views = view_of(old), view_of(new)
    comparison = side_by_side(*views)
    change = ["change"] if comparison.compared else []
    table = table_of(("variant",), (*(clean(heading).replace(", ", "\n", 1) for heading in comparison.headings), *change))
    for pair in comparison.pairs:
        latencies = [UNKNOWN if one is None else latency_ms(one.latency_us) for one in (pair.old, pair.new)]
        table.add_row(clean(pair.name), *latencies, *([UNKNOWN if pair.change is None else signed(pair.change)] if change else []))
    console = output()
    console.print(table)
    for view in views if views[0].context.device != views[1].context.device else views[1:]:
        console.print(clean(f"Latency {origin_caption(view.context)}."))
    for remark in (*comparison.remarks, *(remark for view in views for remark in view.remarks)):
        console.print(clean(remark))


def _table(view: View, grid: Grid) -> Table:
    from tvmmobile.system.console import table_of

    tops = [f"top-1\n% [{number}]" for number in range(1, len(view.sources) + 1)]
    kind = view.context.kind
    table = table_of((), ("α", "side", f"{kind}\nms", "MACs\nM", "params\nM", *tops, "peak\n%", "memory\nMiB", "max\nerror"))
    for alpha, cells in grid.lines:
        rows = [row for row in cells if row]
        for row in rows:
            table.add_row(str(alpha), *_cells(view, row), end_section=row is rows[-1])
    return table


def _cells(view: View, row: VariantRow) -> list[str]:
    variant = row.variant
    return [
        variant.side,
        # A no-break space keeps the numbers below each other: Rich drops plain ones at the end of a cell.
        latency_ms(variant.latency_us) + ("*" if row.on_front else "\N{NO-BREAK SPACE}"),
        *view.figures_of(row, 0),
    ]
