"""`tvmmobile history`: results of many commits in one file, and the steps in their latencies."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.options import ONE_DEVICE, Commit, Out
from tvmmobile.pipeline.options.option import HelpOrder, Options, option

if TYPE_CHECKING:
    from tvmmobile.history.file import History
    from tvmmobile.history.series import CommitHistory

history = typer.Typer(add_completion=False, rich_markup_mode=None)

_File = Annotated[Path, typer.Argument(metavar="FILE", help="A history, such as history.sqlite.")]
_Since = Annotated[int, typer.Option("--since", metavar="N", min=1, help="Show the change over N commits."), HelpOrder.NUMBERS]


class HistoryFormat(StrEnum):
    """Output format of `history show`."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


@dataclass(frozen=True)
class FilterOptions(Options):
    """Options that choose the latencies and steps of a history."""

    network: str | None = option(None, "--network NAME", "Only variants with NAME in theirs, such as 'v1 1.0-224'.")
    device: str | None = option(None, "--device NAME", ONE_DEVICE)
    dtype: str | None = option(None, "--dtype NAME", "Only results in this precision, such as float32.")
    threads: int | None = option(None, "--threads N", "Only results of this thread count.", typer_settings={"min": 1})
    least: float = option(
        0.01,
        "--least PERCENT",
        "Smallest step to show, in percent.",
        cli_default=1.0,
        typer_settings={"min": 0},
        from_cli=lambda percent: percent / 100,
    )

    def over_commits(self, history: History) -> CommitHistory:
        """Return a history's chosen series; raise `UserError` without any."""
        from tvmmobile.history.series import SeriesFilter, over_commits

        return over_commits(history, SeriesFilter(self.network, self.device, self.dtype, self.threads), self.least)


@history.callback()
def _group() -> None:
    """Keep results of all commits; find the steps, draw a page."""


@history.command("add")
def add(
    file: _File,
    results: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="One or more report.json files, or baselines.")],
    commit: Commit = None,
) -> None:
    """Add result files to a history; a result that is there already is not added again.

    bench, tune, regress and baseline save add their results themselves with --history.
    """
    from tvmmobile.history.commits import commit_of
    from tvmmobile.history.file import open_history
    from tvmmobile.results.file import read_results
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    found = [read_results(path) for path in results]
    known = commit_of(commit)
    with open_history(file, add=True) as opened:
        added = [
            opened.add(one, known, "baseline" if path.name.endswith(".result.json") else "add")
            for path, one in zip(results, found, strict=True)
        ]
    count = sum(len(one.variants) for one in found)
    repeated = count - sum(added)
    output().print(
        f"{file}: {plural(sum(added), 'result')} added"
        + (f", {repeated} {'was' if repeated == 1 else 'were'} there already." if repeated else "."),
        soft_wrap=True,
    )


@history.command("show")
@with_cli_options(wanted=FilterOptions)
def show(
    file: _File,
    since: _Since = 20,
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=0, help="List at most N steps."), HelpOrder.NUMBERS] = 20,
    form: Annotated[
        HistoryFormat, typer.Option("--format", help="What to print: tables, or all numbers as JSON or CSV."), HelpOrder.NUMBERS
    ] = HistoryFormat.TABLE,
    *,
    wanted: FilterOptions,
) -> None:
    """Show the latest latencies, and the commits at which they changed.

    A step of measured latencies is shown if it is significant and not smaller than --least; each change of a modelled one is exact.
    """
    from tvmmobile.history.file import open_history
    from tvmmobile.history.tables import history_csv, history_json
    from tvmmobile.history.terminal import print_history

    with open_history(file, add=False) as opened:
        over = wanted.over_commits(opened)
    if form is HistoryFormat.TABLE:
        print_history(over, since, steps)
    else:
        typer.echo((history_json if form is HistoryFormat.JSON else history_csv)(over), nl=False)


@history.command("page")
@with_cli_options(wanted=FilterOptions)
def page(file: _File, out: Out = Path("out"), since: _Since = 20, *, wanted: FilterOptions) -> None:
    """Write history.html, a page of all latencies over commits, and the same numbers as history.json and history.csv."""
    from tvmmobile.history.file import open_history
    from tvmmobile.history.page import history_page
    from tvmmobile.history.tables import history_csv, history_json
    from tvmmobile.system.console import output
    from tvmmobile.system.files import check_writable, write_text

    check_writable(out, "--out")
    with open_history(file, add=False) as opened:
        over = wanted.over_commits(opened)
    contents = {"history.html": history_page(over, since), "history.json": history_json(over), "history.csv": history_csv(over)}
    for name, content in contents.items():
        write_text(out / name, content)
    output().print(f"Written to {out}: {', '.join(contents)}", soft_wrap=True)


@history.command("bisect")
@with_cli_options(wanted=FilterOptions)
def bisect(
    file: _File,
    command: Annotated[list[str], typer.Argument(metavar="COMMAND", help="Command that builds and times a commit, after --.")],
    good: Annotated[
        str | None, typer.Option("--good", metavar="COMMIT", help="Older commit; default: the last one before the last step.")
    ] = None,
    bad: Annotated[str | None, typer.Option("--bad", metavar="COMMIT", help="Newer commit; default: the first one after it.")] = None,
    result: Annotated[
        str, typer.Option("--result", metavar="FILE", help="Result file that COMMAND writes in a commit's folder."), HelpOrder.NUMBERS
    ] = "out/report.json",
    *,
    wanted: FilterOptions,
) -> None:
    """Name the commit at which a latency changed, by timing commits between two results.

    Run it in the checkout. Commits are checked out in a temporary worktree, in which COMMAND runs; it exits with 0 if it wrote the result
    file. Commits where it fails are skipped; the exit code is 1 if it fails in all. All results are added to the history.
    """
    from tvmmobile.cli.progress import errors
    from tvmmobile.history.bisect import bisect as run
    from tvmmobile.history.file import open_history
    from tvmmobile.results.report.wording import clean, plural
    from tvmmobile.system.console import output

    console = errors()
    with open_history(file, add=False) as opened:
        over = wanted.over_commits(opened)
        found = run(opened, over, good, bad, command, result, lambda text: console.print(clean(text), soft_wrap=True))
    skipped = f"; {plural(found.skipped, 'commit')} between could not be timed" if found.skipped else ""
    name = clean(f"{found.first.name} {found.first.subject}")
    output().print(f"{name}\nis the first with the new latency, after {found.before.name[:10]}{skipped}.", soft_wrap=True)
