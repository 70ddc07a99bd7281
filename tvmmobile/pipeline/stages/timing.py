"""Verifies and times libraries on a device."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from tvmmobile.devices.protocol import Watch
from tvmmobile.pipeline.agreement import LEAST_SESSION_S, agreement, device_gone, failure_of, session_timeout_s
from tvmmobile.pipeline.outcome import context_of, result_of
from tvmmobile.pipeline.stages.jobs import Progress, succeeded
from tvmmobile.results.file import Results, VariantResult
from tvmmobile.running.bench import Bench
from tvmmobile.running.library import Library
from tvmmobile.running.measure import Agents, MeasureError, Timing
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.workers import WorkerPool
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.calibration.fit import memory_bytes_per_s

Value = TypeVar("Value")

#: Most attempts to time a library whose runs are spoiled by the board's state, or cut off.
MOST_ATTEMPTS = 3


def bench_libraries(bench: Bench, libraries: Sequence[Library], progress: Progress) -> Results:
    """Check every library against PyTorch on the device, and time it.

    On a board that is watched, libraries are timed one after another, each when the board is cool, and again where a run was spoiled.

    Raises:
        Disagreement: a library does not compute what PyTorch computes; nothing is timed then.
        DeviceUnavailable: the device went away.
    """
    threads = libraries[0].threads
    timing = bench.agents.network_timing(threads, bench.repeat, bench.warmup)
    jobs = [BenchJob(library, bench.agents, timing) for library in libraries]
    timeout_s = bench.agents.endpoint.stretch * 2 * max(session_timeout_s(library) for library in libraries)
    found: dict[Path, VariantResult] = {}
    if bench.watch is not None:
        for job in jobs:
            found[job.library.path] = _watched(bench.workers, job, bench.watch, timeout_s)
            progress(job.library.spec.variant)
    else:
        for job, result in bench.workers.run(bench_library, jobs, timeout_s):
            found[job.library.path] = succeeded(result, f"running {job.library.path.name}")
            progress(job.library.spec.variant)
    rate, source = _memory(bench.agents, threads)
    context = replace(context_of(bench.profile, threads), memory_bytes_per_s=rate, memory_source=source)
    return Results(context, tuple(found[job.library.path] for job in jobs))


@dataclass(frozen=True)
class BenchJob:
    """The input of a worker that verifies and times one library."""

    library: Library
    agents: Agents
    timing: Timing

    def reads(self) -> Mapping[str, Path]:
        """Return the library's files, by path below the folder that `moved` is given."""
        library = self.library
        return {f"out/{path.name}": path for path in (library.path, library.manifest_path, library.reference_path)}

    def writes(self) -> Mapping[str, Path]:
        """Return no folder: nothing is written."""
        return {}

    def moved(self, folder: Path) -> BenchJob:
        """Return this job with the library below `folder`."""
        return replace(self, library=replace(self.library, path=folder / "out" / self.library.path.name))


def bench_library(job: BenchJob) -> VariantResult:
    """Run one library on the reference inputs, compare, and time it."""
    library, device = job.library, job.agents.profile
    inputs, expected = library.reference()
    try:
        run = job.agents.measure_network(library.path, inputs, session_timeout_s(library), job.timing)
    except MeasureError as error:
        raise failure_of(library, device, error) from error
    difference = agreement(library, run.outputs, expected, device.name)
    return result_of(library, run, difference, device)


def _memory(agents: Agents, threads: int) -> tuple[float, str]:
    """Return memory bandwidth in bytes per second, and the source of that figure."""
    profile = agents.profile
    if profile.origin.modelled:
        return memory_bytes_per_s(load_board(profile.board_file), threads), "the virtual board's, docs/virtual-boards.md"
    try:
        return agents.copy_rate(LEAST_SESSION_S), "a copy of 32 MiB by one core, measured with the networks"
    except MeasureError as error:
        raise device_gone(profile, error) from error


def _watched(workers: WorkerPool, job: BenchJob, watch: Watch, timeout_s: float) -> VariantResult:
    """Time a library, see `undisturbed`."""

    def once() -> VariantResult:
        ((_, answer),) = workers.run(bench_library, [job], timeout_s)
        result: VariantResult = succeeded(answer, f"running {job.library.path.name}")
        return result

    result, reason, states = undisturbed(watch, once)
    return replace(result, invalid=reason, conditions={**result.conditions, **states})


def undisturbed(watch: Watch | None, run: Callable[[], Value]) -> tuple[Value, str, dict[str, Any]]:
    """Run something again while the board's state spoils it or the link breaks; the last attempt counts as it is.

    Returns:
        The result, the reason why it does not count ("" if it does), and the boards' states `before` and `after`.
    """
    for attempt in range(1, MOST_ATTEMPTS + 1):
        before = watch.wait_until_cool() if watch else ()
        try:
            found = run()
        except DeviceUnavailable:
            if attempt == MOST_ATTEMPTS:
                raise
            continue
        after = watch.read() if watch else ()
        reason = watch.spoiled(before, after) if watch else ""
        if not reason:
            break
    return found, reason, {"before": [asdict(state) for state in before], "after": [asdict(state) for state in after]}
