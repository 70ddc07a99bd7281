"""Where verbs print: a Rich console that leaves closed pipes to `tvmmobile.cli.main`."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.table import Table


class _Output(Console):
    def on_broken_pipe(self) -> None:
        """Hand the error on; Rich would end the process with 1, which here means a wrong command line."""
        raise BrokenPipeError


def output() -> Console:
    """The console for results, on stdout. Colour only on a terminal; text is printed as it is, without markup."""
    return _Output(highlight=False, markup=False, emoji=False)


def table_of(left: Sequence[str], right: Sequence[str]) -> Table:
    """An empty table for the terminal: columns of text with the headings `left`, then columns of numbers with the headings `right`.

    Only the text after the first column wraps when the terminal is narrow.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for number, heading in enumerate(left):
        table.add_column(heading, no_wrap=number == 0)
    for heading in right:
        # Rich has no bottom alignment of headings: an empty first line does it.
        lines = heading if "\n" in heading or not any("\n" in other for other in right) else f"\n{heading}"
        table.add_column(lines, justify="right", no_wrap=True)
    return table
