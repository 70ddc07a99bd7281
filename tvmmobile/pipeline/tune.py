"""Tunes what the logs lack, then compiles, verifies and times: many networks at once, resumable at any time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Unpack

from tvmmobile.devices.protocol import Device
from tvmmobile.pipeline.checking import checked
from tvmmobile.pipeline.cluster.start import bench_of, started_workers
from tvmmobile.pipeline.compiled_library import CompiledLibrary
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.listener import QUIET, Listener, TuningPlan, missing_trials, tell
from tvmmobile.pipeline.needed_trials import NeededTrials
from tvmmobile.pipeline.options.call import with_options
from tvmmobile.pipeline.options.library import BEST, MOST_C_THREADS, LibraryOptions
from tvmmobile.pipeline.options.run import RunOptions
from tvmmobile.pipeline.options.search import SearchOptions, TuneArguments
from tvmmobile.pipeline.remeasure import doubted, measure_again
from tvmmobile.pipeline.request import Models, device_of, jobs_of
from tvmmobile.pipeline.sentences import float32_sentence
from tvmmobile.pipeline.stages.building import build_libraries
from tvmmobile.pipeline.stages.explaining import accept_roundings
from tvmmobile.pipeline.stages.preparing import collect_variants
from tvmmobile.pipeline.stages.timing import bench_libraries
from tvmmobile.pipeline.tuned import TunedResults
from tvmmobile.results.file import Results
from tvmmobile.results.threads import all_valid, fastest, spoiled_sentence, tried_counts
from tvmmobile.running.bench import Bench
from tvmmobile.running.formats import C
from tvmmobile.running.library import Library
from tvmmobile.running.manifest import note_check
from tvmmobile.system.errors import Disagreement
from tvmmobile.system.files import check_writable, set_aside
from tvmmobile.system.scratch import scratch
from tvmmobile.system.workers import WorkerPool, worker_count
from tvmmobile.tuning.logs.directories import LogDirs, log_dirs
from tvmmobile.tuning.logs.files import writing_all
from tvmmobile.tuning.regions import VariantTasks
from tvmmobile.tuning.search.tuner import BATCH, Search
from tvmmobile.tuning.search.tuner import tune as search

#: Timed runs of a finished library on a real board, and runs before them.
_REPEAT, _WARMUP = 10, 3
#: Most times that networks are compiled again because records were false. Each is replaced by the next best, which may be false as well.
_MOST_CORRECTIONS = 4


@with_options(LibraryOptions, RunOptions, SearchOptions)
def tune(models: Models, device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[TuneArguments]) -> TunedResults:
    """Find fast schedules for the kernels of networks on a device; compile, verify and time the networks.

    Interrupt it at any time: finished trials are kept, and the same call resumes from there. With `threads="best"`, 1, 2, 4, … and all
    cores are tried until more cores are slower; the results are those of the fastest count, with the latencies for the others.

    Args:
        models: one network, several, or what loads them once everything else has been checked.
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        options: see `LibraryOptions`, `RunOptions` and `SearchOptions`, which `help` lists.
        listener: is told of progress.

    Returns:
        The latencies, with the libraries that were timed as `libraries`.

    Raises:
        UserError: an argument is wrong, or a network cannot be built.
        DeviceUnavailable: the device went away and did not come back.
        Disagreement: a library does not compute what PyTorch computes.
    """
    library, run, asked = LibraryOptions.of(options), RunOptions.of(options), SearchOptions.of(options)
    board, out = device_of(device), run.folder()
    logs = log_dirs(run.logs, out if asked.fresh else None)
    if asked.trials != 0:
        check_writable(logs.target, "--logs")
    jobs = jobs_of(models, board.profile, library, out, logs, run.dump_ir)
    found: list[TunedResults] = []
    for same in _by_count(jobs, board):
        # A later count's run must not set aside what an earlier one logged.
        found.append(_run(same, board, logs, replace(asked, fresh=asked.fresh and not found), run.dask, listener))
        best = fastest(found)
        if best.context.threads != same[0].options.threads and all_valid(found[-1]):
            break
    if remark := spoiled_sentence(found):
        tell(listener, remark)
    return best


def _by_count(jobs: Sequence[VariantJob], board: Device) -> list[list[VariantJob]]:
    """Return the jobs for each thread count to try, the fewest threads first: those asked for, unless they are for the best count."""
    if jobs[0].options.threads != BEST:
        return [list(jobs)]
    cores = board.profile.cores
    counts = tried_counts(min(cores, MOST_C_THREADS) if jobs[0].options.format == C else cores)
    return [[replace(job, options=replace(job.options, threads=count)) for job in jobs] for count in counts]


def _run(
    jobs: Sequence[VariantJob], board: Device, logs: LogDirs, asked: SearchOptions, dask: str | None, listener: Listener
) -> TunedResults:
    """Tune, compile, verify and time."""
    with ExitStack() as held:
        workers = held.enter_context(_workers(jobs, board, asked, dask))
        # Each gets a separate folder, because a cluster's workers return whole folders.
        folder = held.enter_context(scratch("prepared"))
        jobs = [replace(job, prepared=folder / str(number) / "network.npz") for number, job in enumerate(jobs)]
        variants = _imported(workers, [replace(job, logs=()) for job in jobs] if asked.fresh else jobs, listener)
        if asked.fresh and logs.target.exists():
            with writing_all(logs.target, board.profile.name):  # not while another run writes there
                set_aside(logs.target)
        needs = NeededTrials(jobs, variants, logs, board.profile, asked.trials)
        if needs.pending:
            held.enter_context(needs.writing())
        listener.plan_ready(needs.plan)
        with bench_of(board, workers, dask, _REPEAT, _WARMUP) as bench:
            run_rounds(needs, bench, Search(asked.strategy, asked.seed, needs.twin, needs.similar), listener)
            results = _timed(workers, jobs, bench, listener)
            corrections = 0
            while asked.trials != 0 and corrections < _MOST_CORRECTIONS and _corrected(needs, results, bench, listener):
                corrections += 1
                results = _timed(workers, jobs, bench, listener)
        return TunedResults(results.context, results.variants, tuple(CompiledLibrary.of(job.library) for job in jobs))


def _corrected(needs: NeededTrials, results: Results, bench: Bench, listener: Listener) -> bool:
    """Measure again kernels whose time within their network contradicts their records; return whether a record was false."""
    records = doubted(results, needs.database, needs.tasks)
    # A run without trials has not acquired the right to write.
    with nullcontext() if needs.pending or not records else needs.writing():
        return measure_again(records, needs.database, needs.tasks, bench, partial(tell, listener))


def _timed(workers: WorkerPool, jobs: Sequence[VariantJob], bench: Bench, listener: Listener) -> Results:
    """Build, verify and time the libraries that the logs now lead to."""
    libraries = _compile(jobs, workers, listener)
    results = _verified(workers, jobs, libraries, bench, listener)
    for library, variant in zip(libraries, results.variants, strict=True):
        note_check(library.manifest_path, checked(variant.max_error, bench.profile.name))
    return results


def _verified(workers: WorkerPool, jobs: Sequence[VariantJob], libraries: Sequence[Library], bench: Bench, listener: Listener) -> Results:
    """Verify and time libraries, again where roundings explain a disagreement."""
    try:
        with listener.stage("verifying", len(jobs)) as done:
            return bench_libraries(bench, libraries, done)
    except Disagreement as error:
        accept_roundings(error, workers, jobs, partial(tell, listener))
    return _verified(workers, jobs, libraries, bench, listener)


def _compile(jobs: Sequence[VariantJob], workers: WorkerPool, listener: Listener) -> list[Library]:
    with listener.stage("compiling", len(jobs)) as done:
        return build_libraries(workers, jobs, done)


@with_options(LibraryOptions, RunOptions, SearchOptions)
def plan_tuning(
    models: Models, device: str | Device = "pi4", *, listener: Listener = QUIET, **options: Unpack[TuneArguments]
) -> TuningPlan:
    """Return what `tune` would do with the same arguments; raise what it would raise. Nothing is tried or written.

    Args:
        models: one network, several, or what loads them once everything else has been checked.
        device: its name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as `pi4`.
        listener: is told of progress.
        options: see `LibraryOptions`, `RunOptions` and `SearchOptions`, which `help` lists.
    """
    library, run, asked = LibraryOptions.of(options), RunOptions.of(options), SearchOptions.of(options)
    board = device_of(device)
    with scratch("plan") as empty:  # stands in for the log that `tune` would start with `fresh`, or for a folder that it would create
        logs = log_dirs(run.logs, empty if asked.fresh else None)
        runs = _by_count(jobs_of(models, board.profile, library, run.out or empty, logs, run.dump_ir), board)
        with _workers(runs[0], board, asked, run.dask) as workers:
            variants = [_imported(workers, [replace(job, dump_dir=None) for job in jobs], listener) for jobs in runs]
        plans = [NeededTrials(*each, logs, board.profile, asked.trials).plan for each in zip(runs, variants, strict=True)]
    plan = replace(plans[0], assignments=tuple(assignment for each in plans for assignment in each.assignments))
    listener.plan_ready(plan)
    return plan


def run_rounds(needs: NeededTrials, bench: Bench, settings: Search, listener: Listener) -> None:
    """Run the trials of every round; a later round's trials depend on the results of earlier ones.

    Later rounds are repeated while they have trials: the last one's results may have made other kernels worth trying, and the same
    command, run again, would otherwise begin with those.
    """
    rounds: tuple[tuple[int, float] | None, ...] = (None, *needs.later)
    while True:
        known = len(needs.database)
        for each in rounds:
            assignments = needs.plan.assignments if each is None else needs.further(*each)
            if missing_trials(assignments):
                with listener.search(assignments, bench.profile.origin.kind) as progress:
                    search(assignments, needs.database, bench, progress, settings)
        if len(needs.database) == known:
            return
        rounds = tuple(needs.later)


@contextmanager
def _workers(jobs: Sequence[VariantJob], board: Device, asked: SearchOptions, dask: str | None) -> Iterator[WorkerPool]:
    count = worker_count(max(len(jobs), 1 if asked.trials == 0 else BATCH), board.boards)
    with started_workers(count, board.boards, dask) as workers:
        yield workers


def _imported(workers: WorkerPool, jobs: Sequence[VariantJob], listener: Listener) -> list[VariantTasks]:
    with listener.stage("importing", len(jobs)) as done:
        variants = collect_variants(workers, jobs, done)
    for job, variant in zip(jobs, variants, strict=True):
        if variant.float32_layers:
            tell(listener, float32_sentence(job.spec.variant, variant.float32_layers))
    return variants
