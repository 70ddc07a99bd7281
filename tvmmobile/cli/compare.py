"""`tvmmobile compare`: has anything become slower between two result files?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.gate_options import JsonFile, Junit, Markdown, Threshold, check_targets, present


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Older report.json.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Newer report.json.")],
    threshold: Threshold = 3.0,
    markdown: Markdown = None,
    json_file: JsonFile = None,
    junit: Junit = None,
) -> int:
    """Report for every variant whether it is slower, faster or the same.

    Exit code 0: nothing is slower. 1: the files are not comparable. 2: a
    variant is slower. 4: none is known to be slower, but at least one is too
    noisy to tell.
    """
    from tvmmobile.gate.comparison import check_threshold
    from tvmmobile.gate.comparison import compare as run

    check_threshold(threshold / 100)
    check_targets(markdown, json_file, junit)
    return present(run(base, new, threshold / 100), markdown, json_file, junit)
