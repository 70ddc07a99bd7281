"""One run's results → the four files of a report."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.errors import UserError
from tvmmobile.files import write_text
from tvmmobile.report.markdown import markdown
from tvmmobile.report.page import page
from tvmmobile.report.spreadsheet import spreadsheet
from tvmmobile.report.view import view_of
from tvmmobile.results import Results, write_results


def write_report(results: Results, out: Path) -> list[Path]:
    """Write `report.json`, `report.csv`, `report.md` and `report.html` into `out`, each whole; returns their paths in this order.

    Raises:
        UserError: there is no variant to report.
    """
    if not results.variants:
        raise UserError("no variant was timed, so there is nothing to report.", "Time one with tvmmobile tune, for example --alpha 0.25.")
    view = view_of(results)
    # All text before any file: a failure leaves an older report as it was.
    contents = {"report.csv": spreadsheet(results), "report.md": markdown(view), "report.html": page(view)}
    paths = [out / "report.json", *(out / name for name in contents)]
    write_results(results, paths[0])
    for name, content in contents.items():
        write_text(out / name, content)
    return paths
