"""`tvmmobile bench`: verify and time compiled libraries on a device."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tvmmobile.cli.generated import with_cli_options
from tvmmobile.cli.options import Commit, Device, HistoryFile, Libraries, Out, Pin, RequireHardware
from tvmmobile.pipeline.options.compiled import BenchOptions


@with_cli_options(BenchOptions)
def bench(
    libraries: Libraries,
    device: Device = "pi4",
    out: Out = Path("out"),
    history: HistoryFile = None,
    commit: Commit = None,
    require_hardware: RequireHardware = False,
    pin: Pin = False,
    **chosen: Any,
) -> None:
    """Verify and time compiled libraries on a device.

    Their outputs are compared with PyTorch's before anything is timed.
    """
    from tvmmobile.cli.progress import Shown
    from tvmmobile.devices.registry import find_device
    from tvmmobile.history.recorder import recorder
    from tvmmobile.pipeline.bench import bench as run
    from tvmmobile.results.report import print_table, write_report
    from tvmmobile.running.library import find_libraries
    from tvmmobile.system.files import check_writable

    board = find_device(device, require_hardware, pin)
    found = find_libraries(libraries)
    check_writable(out, "--out")
    recorded = recorder(history, commit)
    results = run(found, board, **chosen, listener=Shown())
    write_report(results, out)
    recorded.add(results, "bench")
    print_table(results)
