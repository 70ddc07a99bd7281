"""`tvmmobile report`: result files as tables, Markdown and a page to look at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.options import Out
from tvmmobile.system.errors import UserError


def report(
    files: Annotated[list[Path], typer.Argument(metavar="RESULTS", help="One or more report.json files.")],
    out: Out = Path("out"),
    join: Annotated[bool, typer.Option("--join", help="Merge all files into one result.")] = False,
    accuracy: Annotated[
        list[Path] | None,
        typer.Option("--accuracy", metavar="FILE", help="An evaluation.json, whose top-1 takes the place of the published one."),
    ] = None,
) -> None:
    """Write tables, Markdown and an HTML page from result files.

    One file: its report. Two: old and new side by side, and the full report of the new one.

    With --join, any number of files become one result. They must share one context: device, clock, threads, timing model. Of a variant in
    several files, the latest result counts.

    --accuracy, which may be repeated, plots what evaluate measured of the libraries against their latency.
    """
    from tvmmobile.accuracy.measured import read_accuracy
    from tvmmobile.cli.progress import errors
    from tvmmobile.results.file import read_results
    from tvmmobile.results.report import join as joined_of
    from tvmmobile.results.report import print_side_by_side, print_table, with_accuracies, write_report, write_side_by_side
    from tvmmobile.system.console import output
    from tvmmobile.system.files import check_writable

    if len(files) > 2 and not join:
        raise UserError(f"{len(files)} results cannot be shown side by side.", "Name two, or merge them with --join.")
    results = [read_results(file) for file in files]
    check_writable(out, "--out")
    measured = list(map(read_accuracy, accuracy or ()))
    if len(results) == 2 and not join:
        if measured:
            raise UserError("--accuracy is for one result.", "Merge the files with --join, or name one.")
        paths = write_side_by_side(results[0], results[1], out)
        print_side_by_side(results[0], results[1])
    else:
        joined = joined_of(results)
        if len(files) > 1:
            _check_kept(files, out)
        result = with_accuracies(joined.results, measured)
        paths = write_report(result, out, joined.remarks)
        print_table(result)
        for remark in joined.remarks:
            errors().print(remark, soft_wrap=True)
    output().print(f"Written to {out}: {', '.join(path.name for path in paths)}", soft_wrap=True)


def _check_kept(files: list[Path], out: Path) -> None:
    """Raise `UserError` if the joined result would replace one of its sources."""
    target = out / "report.json"
    if target.exists() and any(file.samefile(target) for file in files):
        raise UserError(f"{target} is one of the results to join and would be replaced.", "Name another folder with --out.")
