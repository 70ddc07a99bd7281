"""Reports of results: JSON, CSV, Markdown and one self-contained HTML page, and a table for the terminal.

Every shape is filled from one `view.View`, so that the same number reads the same everywhere.
"""

from tvmmobile.results.report.beside import join
from tvmmobile.results.report.measured import with_accuracies
from tvmmobile.results.report.render import write_report, write_side_by_side
from tvmmobile.results.report.terminal import print_side_by_side, print_table

__all__ = ["join", "print_side_by_side", "print_table", "with_accuracies", "write_report", "write_side_by_side"]
