"""`tvmmobile compare` and `regress`: has anything become slower between two result files, or since the baselines?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import Device, Pin, RequireHardware

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
    from tvmmobile.system.files import check_file_writable

    for file, option in zip(files, ("--markdown", "--json", "--junit"), strict=True):
        if file is not None:
            check_file_writable(file, option)


def present(comparison: Comparison, markdown: Path | None, json_file: Path | None, junit: Path | None) -> int:
    """Write the files, print the table; returns the exit code."""
    from tvmmobile.gate.report import print_comparison, write_comparison

    write_comparison(comparison, markdown, json_file, junit)
    print_comparison(comparison)
    return comparison.exit_code


def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="Older report.json.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Newer report.json.")],
    threshold: Threshold = 3.0,
    markdown: Markdown = None,
    json_file: JsonFile = None,
    junit: Junit = None,
) -> int:
    """Report for every variant whether it is slower, faster or the same.

    Exit code 0: nothing is slower. 1: the files are not comparable. 2: a variant is slower. 4: none is known to be slower, but at least one
    is too noisy to tell.
    """
    from tvmmobile.gate.comparison import check_threshold
    from tvmmobile.gate.comparison import compare as run

    check_threshold(threshold / 100)
    check_targets(markdown, json_file, junit)
    return present(run(base, new, threshold / 100), markdown, json_file, junit)


def regress(
    libraries: Annotated[list[Path], typer.Argument(metavar="LIBRARY…", help="Compiled libraries, or a directory that holds them.")],
    device: Device = "pi4",
    directory: BaselineDir = Path("baselines"),
    threshold: Threshold = 3.0,
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Timed runs on a board; a modelled latency takes one.")] = 30,
    warmup_runs: Annotated[int, typer.Option("--warmup-runs", metavar="N", min=0, help="Untimed runs first.")] = 5,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", metavar="DIR", file_okay=False, help="Output directory for the new results; default: not kept."),
    ] = None,
    markdown: Markdown = None,
    json_file: JsonFile = None,
    junit: Junit = None,
    require_hardware: RequireHardware = False,
    pin: Pin = False,
) -> int:
    """Time libraries and compare them with their baselines.

    On a board, a variant that may be slower is timed again, alternating with
    the baseline's library, before it is reported. Exit codes: see compare.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device
    from tvmmobile.pipeline.regression import regress as run
    from tvmmobile.results.report import write_report
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.files import check_writable

    board = find_device(device, require_hardware, pin)
    found = find_libraries(libraries)
    if out is not None:
        check_writable(out, "--out")
    check_targets(markdown, json_file, junit)
    results, comparison = run(found, board, directory, threshold=threshold / 100, repeat=repeat, warmup_runs=warmup_runs, listener=Shown())
    if out is not None:
        write_report(results, out)
    return present(comparison, markdown, json_file, junit)
