"""Libraries on disk → verified and timed on a device."""

from __future__ import annotations

from collections.abc import Sequence

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.pipeline.cluster.start import bench_of, started_workers
from tvmmobile.pipeline.listener import QUIET, Listener
from tvmmobile.pipeline.options.library import check_threads
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.stages.timing import bench_libraries
from tvmmobile.results.file import Results
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import differences
from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import worker_count


def bench(
    libraries: Library | Sequence[Library],
    device: str | Device = "pi4",
    *,
    repeat: int = 30,
    warmup_runs: int = 5,
    dask: str | None = None,
    listener: Listener = QUIET,
) -> Results:
    """Check compiled libraries against PyTorch on a device, and time them.

    Args:
        libraries: one or several, all for one thread count; see `open_libraries`.
        device: its name, or what `find_device` returns.
        repeat: timed runs on a board; a modelled latency takes one.
        warmup_runs: untimed runs first.
        dask: address of a Dask scheduler whose workers run virtual boards.
        listener: is told of progress.

    Raises:
        UserError: an argument is wrong.
        DeviceUnavailable: the device cannot be reached.
        Disagreement: a library does not compute what PyTorch computes; nothing is timed then.
    """
    board, found = device_of(device), [libraries] if isinstance(libraries, Library) else list(libraries)
    check_libraries(found, board)
    say_differences(found, board.profile, listener)
    if board.boards is not None:
        dask = None  # there is nothing to build
    with (
        started_workers(worker_count(len(found)), board.boards, dask) as workers,
        bench_of(board, workers, dask, repeat, warmup_runs) as started,
        listener.stage("verifying", len(found)) as done,
    ):
        return bench_libraries(started, found, done)


def check_libraries(libraries: Sequence[Library], board: Device) -> None:
    """Raises `UserError` unless there are some, all for one thread count that the device has."""
    threads = {library.threads for library in libraries}
    if not threads:
        raise UserError("no library was given.", "Give one that tvmmobile.compile returns, or several.")
    if len(threads) > 1:
        raise UserError(f"libraries for {sorted(threads)} threads cannot share a report.", "Time them one thread count at a time.")
    check_threads(threads.pop(), board.profile)


def say_differences(libraries: Sequence[Library], profile: DeviceProfile, listener: Listener) -> None:
    """Tell the listener what sets libraries apart from those compiled for the device."""
    for library in libraries:
        if remark := differences(library.path.name, library.manifest(), profile):
            listener.said(remark)
