"""`tvmmobile compare` and `regress`: has anything become slower between two result files, or since the baselines?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.options import Commit, Device, HistoryFile, Libraries, Pin, RequireHardware
from tvmmobile.pipeline.options.compiled import ComparisonOptions, TimingOptions
from tvmmobile.pipeline.options.option import HelpOrder

if TYPE_CHECKING:
    from tvmmobile.gate.comparison import Comparison

_KeptResults = Annotated[
    Path | None,
    typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Output directory for the new results; default: not kept."),
    HelpOrder.OUT,
]
Markdown = Annotated[
    Path | None,
    typer.Option("--markdown", metavar="FILE", dir_okay=False, help="Write the table as Markdown, for a pull request."),
    HelpOrder.OUT,
]
JsonFile = Annotated[
    Path | None, typer.Option("--json", metavar="FILE", dir_okay=False, help="Write all results as JSON, unrounded."), HelpOrder.OUT
]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", dir_okay=False, help="Write JUnit XML for CI."), HelpOrder.OUT]
BaselineDir = Annotated[Path, typer.Option("--baselines", "--dir", metavar="DIR", file_okay=False, help="Directory of the baselines.")]


def check_targets(*files: Path | None, compared: tuple[Path, ...] = ()) -> None:
    """Raise `UserError`, before any work, unless the files can be written and replace neither each other nor the compared files."""
    from tvmmobile.system.errors import UserError
    from tvmmobile.system.files import check_file_writable, replaced_by

    taken = {replaced_by(file): f"{file}, which is compared" for file in compared if file.is_file()}
    for file, option in zip(files, ("--markdown", "--json", "--junit"), strict=True):
        if file is not None:
            check_file_writable(file, option)
            goal = replaced_by(file)
            if goal is not None and goal in taken:
                raise UserError(f"{option} {file} would replace {taken[goal]}.", f"Name another file with {option}.")
            taken[goal] = f"what {option} writes"


def present(comparison: Comparison, markdown: Path | None, json_file: Path | None, junit: Path | None) -> int:
    """Write the files, print the table; return the exit code."""
    from tvmmobile.gate.report import print_comparison, write_comparison

    write_comparison(comparison, markdown, json_file, junit)
    print_comparison(comparison)
    return comparison.exit_code


@with_cli_options(ComparisonOptions)
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Older report.json.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Newer report.json.")],
    markdown: Markdown = None,
    json_file: JsonFile = None,
    junit: Junit = None,
    **chosen: Any,
) -> int:
    """Find variants that became slower between two results.

    Every variant is reported as slower, faster or the same. Exit code 0: nothing is slower. 1: the files are not comparable. 2: a variant
    is slower. 4: none is known to be slower, but at least one is too noisy to tell.
    """
    from tvmmobile.gate.comparison import check_threshold
    from tvmmobile.gate.comparison import compare as run

    check_threshold(chosen["threshold"])
    check_targets(markdown, json_file, junit, compared=(base, new))
    return present(run(base, new, **chosen), markdown, json_file, junit)


@with_cli_options(ComparisonOptions, TimingOptions)
def regress(
    libraries: Libraries,
    device: Device = "pi4",
    baselines: BaselineDir = Path("baselines"),
    out: _KeptResults = None,
    history: HistoryFile = None,
    commit: Commit = None,
    markdown: Markdown = None,
    json_file: JsonFile = None,
    junit: Junit = None,
    require_hardware: RequireHardware = False,
    pin: Pin = False,
    **chosen: Any,
) -> int:
    """Time libraries and compare them with their baselines.

    On a board, a variant that may be slower is timed again, alternating with
    the baseline's library, before it is reported. Exit codes: see compare.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device
    from tvmmobile.history.recorder import recorder
    from tvmmobile.pipeline.regression import regress as run
    from tvmmobile.results.report import write_report
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.files import check_writable

    board = find_device(device, require_hardware, pin)
    found = find_libraries(libraries)
    if out is not None:
        check_writable(out, "--out")
    check_targets(markdown, json_file, junit)
    recorded = recorder(history, commit)
    done = run(found, board, baselines, **chosen, listener=Shown())
    if out is not None:
        write_report(done.results, out)
    recorded.add(done.results, "regress", {variant.name: variant.verdict for variant in done.comparison.variants})
    return present(done.comparison, markdown, json_file, junit)
