"""Checks libraries on disk on a device, and times them there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.pipeline.cluster.start import bench_of, started_workers
from tvmmobile.pipeline.listener import QUIET, Listener, tell
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.compiled import BenchArguments, BenchOptions
from tvmmobile.pipeline.options.library import check_threads
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.sentences import differences
from tvmmobile.pipeline.stages.timing import bench_libraries
from tvmmobile.results.file import Results
from tvmmobile.results.threads import check_counts, fastest, spoiled_sentence
from tvmmobile.running.library import Library, checked_library, stem_of
from tvmmobile.system.arguments import one_or_several
from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import worker_count


@with_options(BenchOptions)
def bench(
    libraries: Library | Sequence[Library], device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[BenchArguments]
) -> Results:
    """Check compiled libraries against PyTorch on a device, and time them.

    For libraries for several thread counts, the results are those of the fastest count, with the latencies for the others.

    Args:
        libraries: one or several, from `compile`, `tune` or `open_libraries`; where they are for several thread counts, one of each network
            for each count.
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        options: see `BenchOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        The latencies of the libraries, as many variants as there are networks, in the order of `libraries`.

    Raises:
        UserError: an argument is wrong.
        DeviceUnavailable: the device cannot be reached.
        Disagreement: a library does not compute what PyTorch computes; nothing is timed then.
    """
    settings, board = BenchOptions.of(options), device_of(device)
    found = [checked_library(library) for library in one_or_several(libraries)]
    check_libraries(found, board.profile, listener)
    groups = [[library for library in found if library.threads == count] for count in sorted({library.threads for library in found})]
    check_counts({group[0].threads: [(library.spec, library.precision, library.format) for library in group] for group in groups})
    dask = settings.dask if board.boards is None else None  # for a board there is nothing to build
    with (
        started_workers(worker_count(len(found)), board.boards, dask) as workers,
        bench_of(board, workers, dask, settings.repeat, settings.warmup_runs) as started,
        listener.stage("verifying", len(found)) as done,
    ):
        by_count = [bench_libraries(started, group, done) for group in groups]
    if remark := spoiled_sentence(by_count):
        tell(listener, remark)
    return fastest(by_count)


def check_libraries(libraries: Sequence[Library], profile: DeviceProfile, listener: Listener) -> None:
    """Raise `UserError` for no libraries, two of one variant, or too many threads; tell the listener of other differences."""
    if not libraries:
        raise UserError("no library was given.", "Give one that tvmmobile.compile returns, or several.")
    for library in libraries:
        check_threads(library.threads, profile, act="Compile it with")
    _check_apart(libraries)
    for library in libraries:
        if remark := differences(library.path.name, library.facts, profile):
            tell(listener, remark)


def _check_apart(libraries: Sequence[Library]) -> None:
    """Raise `UserError` for two libraries that tables and baselines could not tell apart, such as a renamed copy."""
    known: dict[tuple[str, str], Library] = {}
    for library in libraries:
        other = known.setdefault((stem_of(library.spec.variant, library.precision, library.threads), library.format), library)
        if other is not library:
            raise UserError(
                f"{other.path} and {library.path} have the same network, precision and number of threads.",
                "Time each with an --out of its own, and compare the results: tvmmobile compare",
            )
