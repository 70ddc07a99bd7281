"""The verbs' output: a Rich console that leaves closed pipes to `tvmmobile.cli.main`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table
from rich.text import Text


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Raise the error again; Rich would exit with 1, which here means a wrong command line."""
        raise BrokenPipeError


def output() -> Console:
    """Return the console for results, on stdout. Colour only on a terminal; text is printed as it is, without markup."""
    return _Output(highlight=False, markup=False, emoji=False)


class _Rows(Table):
    """A table whose numbers are never cut off."""

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render a table where it fits, otherwise row by row."""
        if self._least_width(console, options) <= options.max_width:
            yield from super().__rich_console__(console, options)
            return
        headings = [" ".join(str(column.header).split()) for column in self.columns]
        for row in zip(*([str(cell) for cell in column.cells] for column in self.columns), strict=True):
            named = self.columns[0].justify != "right"  # the subject of a row needs no heading
            yield Text("".join(row[0].split("\n  ")), overflow="fold") if named else Text("")
            cells = [(heading, " ".join(cell.split())) for heading, cell in zip(headings, row, strict=True)][named:]
            line = "; ".join(f"{heading}: {text}" for heading, text in cells if text not in ("", "–"))
            yield Padding(Text(line, overflow="fold"), (0, 0, 0, 2))

    def _least_width(self, console: Console, options: ConsoleOptions) -> int:
        """Return the width of the table with every cell that may wrap broken at each blank."""
        width = Measurement.get(console, options.update_width(10_000), self).maximum
        for column in self.columns:
            if not column.no_wrap:
                sizes = [Measurement.get(console, options.update_width(10_000), str(text)) for text in (column.header, *column.cells)]
                width -= max(size.maximum for size in sizes) - max(size.minimum for size in sizes)
        return width


def table_of(left: Sequence[str], right: Sequence[str]) -> Table:
    """Return an empty table for the terminal: columns of text with the headings `left`, then columns of numbers with the headings `right`.

    Only the text after the first column wraps when the terminal is narrow. Where that is not enough, each row is a paragraph.
    """
    table = _Rows(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(left):
        table.add_column(heading, no_wrap=number == 0)
    for heading in right:
        # Rich has no bottom alignment of headings: an empty first line does it.
        lines = heading if "\n" in heading or not any("\n" in other for other in right) else f"\n{heading}"
        table.add_column(lines, justify="right", no_wrap=True)
    return table
