"""Options that `compare` and `regress` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from tvmmobile.gate.comparison import Comparison

Threshold = Annotated[
    float,
    typer.Option(
        "--threshold", metavar="PERCENT", min=0, help="Smallest change that counts, in percent; modelled results need no other evidence."
    ),
]
Markdown = Annotated[
    Path | None, typer.Option("--markdown", metavar="FILE", dir_okay=False, help="Write the table as Markdown, for a pull request.")
]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Write all results as JSON, unrounded.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", dir_okay=False, help="Write JUnit XML for CI.")]
BaselineDir = Annotated[Path, typer.Option("--dir", metavar="DIR", file_okay=False, help="Directory of the baselines.")]


def check_targets(*files: Path | None) -> None:
    """Raises `UserError` unless the files can be written; before any work."""
    from tvmmobile.system.files import check_writable

    for file, option in zip(files, ("--markdown", "--json", "--junit"), strict=True):
        if file is not None:
            check_writable(file.parent, option)


def present(comparison: Comparison, markdown: Path | None, json_file: Path | None, junit: Path | None) -> int:
    """Write the files, print the table; returns the exit code."""
    from tvmmobile.gate.report import print_comparison, write_comparison

    write_comparison(comparison, markdown, json_file, junit)
    print_comparison(comparison)
    return comparison.exit_code
