"""`tvmmobile regress`: time libraries now, and compare them with their baselines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.gate_options import BaselineDir, JsonFile, Junit, Markdown, Threshold, check_targets, present
from tvmmobile.cli.options import Device, Pin, RequireHardware


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

    On a board, a variant that looks slower is timed again, alternating with
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
