"""`tvmmobile bench`: verify and time compiled libraries on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.options import Dask, Device, Out, Pin, RequireHardware


def bench(
    libraries: Annotated[list[Path], typer.Argument(metavar="LIBRARY…", help="Compiled libraries, or a directory that holds them.")],
    device: Device = "pi4",
    out: Out = Path("out"),
    repeat: Annotated[int, typer.Option("--repeat", metavar="N", min=1, help="Timed runs on a board; a modelled latency takes one.")] = 30,
    warmup_runs: Annotated[int, typer.Option("--warmup-runs", metavar="N", min=0, help="Untimed runs first.")] = 5,
    require_hardware: RequireHardware = False,
    pin: Pin = False,
    dask: Dask = None,
) -> None:
    """Check compiled libraries against PyTorch on a device, and time them."""
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device
    from tvmmobile.pipeline.bench import bench as run
    from tvmmobile.pipeline.bench import check_libraries
    from tvmmobile.results.report import print_table, write_report
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.files import check_writable

    board = find_device(device, require_hardware, pin)
    found = find_libraries(libraries)
    check_libraries(found, board)
    check_writable(out, "--out")
    results = run(found, board, repeat=repeat, warmup_runs=warmup_runs, dask=dask, listener=Shown())
    write_report(results, out)
    print_table(results)
