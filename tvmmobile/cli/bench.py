"""`tvmmobile bench`: verify and time compiled libraries on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tvmmobile.cli.options import Device, Out
from tvmmobile.cli.work import Dask, Pin, RequireHardware, check_threads, check_writable, started_bench, started_workers, worker_count


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
    from tvmmobile.devices.registry import find_device
    from tvmmobile.running.library import find_libraries

    board = find_device(device, require_hardware, pin)
    found = find_libraries(libraries)
    for library in found:
        check_threads(library.threads, board.profile)
    check_writable(out, "--out")

    from tvmmobile.cli.progress import counting
    from tvmmobile.pipeline.stages import bench_libraries
    from tvmmobile.results.report import print_table, write_report

    if board.boards is not None:
        dask = None  # there is nothing to build
    with (
        started_workers(worker_count(len(found)), board.boards, dask) as workers,
        started_bench(board, workers, dask, repeat, warmup_runs) as started,
        counting("verifying", len(found)) as done,
    ):
        results = bench_libraries(started, found, done)
    write_report(results, out)
    print_table(results)
