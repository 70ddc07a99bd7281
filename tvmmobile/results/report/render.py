"""Writes the files of a report from results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tvmmobile.results.file import Results, write_results
from tvmmobile.results.report.beside import join, side_by_side
from tvmmobile.results.report.markdown import markdown
from tvmmobile.results.report.page import page
from tvmmobile.results.report.spreadsheet import kernel_spreadsheet, spreadsheet
from tvmmobile.results.report.view import view_of
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import write_text


def write_report(results: Results, out: Path, remarks: Sequence[str] = ()) -> list[Path]:
    """Write `report.json`, `report.csv`, `report-kernels.csv`, `report.md` and `report.html` into `out`, each whole.

    Returns their paths in this order; `remarks` are sentences to print. Raises `UserError` if there is no variant to report.
    """
    _check(results)
    view = view_of(results, remarks)
    # All text before any file: a failure leaves an older report as it was.
    contents = _tables([results]) | {"report.md": markdown(view), "report.html": page(view)}
    write_results(results, out / "report.json")
    return [out / "report.json", *_written(contents, out)]


def report(results: Results | Sequence[Results], out: str | Path) -> list[Path]:
    """Write the report of `results` into the folder `out`; several results of one device become one report.

    Returns:
        The paths of `report.json`, `report.csv`, `report-kernels.csv`, `report.md` and `report.html`.

    Raises:
        UserError: there is nothing to report, or the results are of different devices, clocks, thread counts or timing models.
    """
    joined = join(one_or_several(results))
    return write_report(joined.results, Path(out), joined.remarks)


def write_side_by_side(old: Results, new: Results, out: Path) -> list[Path]:
    """Write `report.csv`, `report-kernels.csv` (lines of both results), `report.md` and `report.html` into `out`, each whole.

    Returns their paths in this order; each result has a `report.json` of its own. Raises `UserError` if one of them has no variant.
    """
    for one in (old, new):
        _check(one)
    view = view_of(new)
    pair = side_by_side(view_of(old), view)
    return _written(_tables([old, new]) | {"report.md": markdown(view, pair), "report.html": page(view, pair)}, out)


def _check(results: Results) -> None:
    if not results.variants:
        raise UserError("no variant was timed, so there is nothing to report.", "Time one with tvmmobile tune, for example --alpha 0.25.")


def _tables(results: Sequence[Results]) -> dict[str, str]:
    return {"report.csv": spreadsheet(results), "report-kernels.csv": kernel_spreadsheet(results)}


def _written(contents: dict[str, str], out: Path) -> list[Path]:
    for name, content in contents.items():
        write_text(out / name, content)
    return [out / name for name in contents]
