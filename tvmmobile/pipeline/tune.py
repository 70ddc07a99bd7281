"""Tunes what the logs lack, then compiles, verifies and times: many networks at once, resumable at any time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from tvmmobile.devices.protocol import Device
from tvmmobile.graph.network import kept_sentence
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.networks.preprocessing import Normalisation
from tvmmobile.pipeline.checking import checked, note
from tvmmobile.pipeline.cluster.start import bench_of, started_workers
from tvmmobile.pipeline.doubts import doubted, measure_again
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.listener import QUIET, Listener, TuningPlan, missing_trials
from tvmmobile.pipeline.needed import DEFAULT_TRIALS, NeededTrials
from tvmmobile.pipeline.request import Models, Request, device_of, request_of
from tvmmobile.pipeline.stages import bench_libraries, build_libraries, collect_variants, explained
from tvmmobile.results.file import Results
from tvmmobile.running.bench import Bench
from tvmmobile.running.formats import C
from tvmmobile.running.library import Library
from tvmmobile.system.errors import Disagreement, UserError
from tvmmobile.system.files import check_writable, set_aside
from tvmmobile.system.scratch import scratch_folder
from tvmmobile.system.workers import WorkerPool, worker_count
from tvmmobile.tuning.database import Database, writing
from tvmmobile.tuning.plan import VariantTasks
from tvmmobile.tuning.search.tuner import BATCH, Search
from tvmmobile.tuning.search.tuner import tune as search

STRATEGIES = ("evolution", "climb", "random")
#: Timed runs of a finished library on a real board, and runs before them.
_REPEAT, _WARMUP = 10, 3
#: How often networks are compiled again because records were false. Each is replaced by the next best, which may be false as well.
_MOST_CORRECTIONS = 4


def tune(
    models: Models,
    device: str | Device = "pi4",
    *,
    trials: int | None = None,
    threads: int = 1,
    dtype: str = FLOAT32.name,
    io_dtype: str = FLOAT32.name,
    max_error: float | None = None,
    calibrate: str | Path | None = None,
    keep: Sequence[str] = (),
    max_drop: str | None = None,
    out: str | Path | None = None,
    logs: str | Path | None = None,
    fresh: bool = False,
    strategy: str = "evolution",
    seed: int = 0,
    dump_ir: str | Path | None = None,
    format: str = C,  # noqa: A002
    archive: bool = False,
    image: Normalisation | None = None,
    dask: str | None = None,
    listener: Listener = QUIET,
) -> Results:
    """Find fast schedules for the kernels of networks on a device; compile, verify and time the networks.

    Interrupt it at any time: finished trials are kept, and the same call resumes from there.

    Args:
        models: one network, several, or what loads them once everything else has been checked.
        device: its name, or what `find_device` returns.
        trials: per kernel, logged ones included; above 2 for promising kernels alone. Without it 8, and 0 for kernels in the shipped logs.
        threads: of the libraries.
        dtype: what kernels compute in, `float32`, `float16` or `int8`.
        io_dtype: what the libraries take and return, `float32` or the same.
        max_error: keep layers in float32 until an estimate of the output's error is no more than this share of its largest magnitude.
        calibrate: images or inputs that give `int8` its scales, see `compile_models`.
        keep, max_drop: which layers stay in float32 beside `int8`, see `compile_models`.
        out: where the libraries go; without it, a folder that lasts as long as this process.
        logs: read and write this directory alone; without it, read the shipped logs, and read and write the user's own.
        fresh: begin with an empty log below `out`; an older one is set aside.
        strategy: `evolution`, `climb` or `random`.
        seed: of the search.
        dump_ir: where to write the module after each graph pass.
        format: of the libraries, see `compile_models`.
        archive: write static libraries as well.
        image: let libraries take images too, with pixels normalised like this.
        dask: address of a Dask scheduler whose workers do everything that needs no board of this machine.
        listener: is told of progress.

    Raises:
        UserError: an argument is wrong, or a network cannot be built.
        DeviceUnavailable: the device went away and did not come back.
        Disagreement: a library does not compute what PyTorch computes.
    """
    board = device_of(device)
    check_strategy(strategy)
    folder = scratch_folder("libraries") if out is None else Path(out)
    request = request_of(
        threads=threads,
        dtype=dtype,
        io_dtype=io_dtype,
        max_error=max_error,
        calibrate=calibrate,
        keep=keep,
        max_drop=max_drop,
        out=folder,
        logs=logs,
        fresh=fresh,
        dump_ir=dump_ir,
        form=format,
        archive=archive,
        image=image,
    )
    if trials != 0:
        check_writable(request.logs.target, "--logs")
    jobs = request.jobs(models, board.profile)
    return _run(request, jobs, board, trials, fresh, partial(Search, strategy, seed), dask, listener)


def _run(
    request: Request,
    jobs: Sequence[VariantJob],
    board: Device,
    trials: int | None,
    fresh: bool,
    search_from: Callable[[Database | None, Database | None], Search],
    dask: str | None,
    listener: Listener,
) -> Results:
    """Tune, compile, verify and time; `search_from` makes the search from a twin's and a similar core's records."""
    most = DEFAULT_TRIALS if trials is None else trials
    with ExitStack() as held:
        workers = held.enter_context(_workers(jobs, board, most, dask))
        variants = _imported(workers, jobs, listener)
        jobs = [replace(job, decision=variant.decision) for job, variant in zip(jobs, variants, strict=True)]
        if fresh and request.logs.target.exists():
            with writing(request.logs.target, board.profile.name):  # not from under a run that writes there
                set_aside(request.logs.target)
        needs = NeededTrials(jobs, variants, request.logs, board.profile, trials)
        if needs.pending:
            held.enter_context(needs.writing())
        listener.planned(needs.plan)
        with bench_of(board, workers, dask, _REPEAT, _WARMUP) as bench:
            _try(needs, bench, search_from(needs.twin, needs.kin), listener)
            results = _timed(workers, jobs, bench, listener)
            corrections = 0
            while most and corrections < _MOST_CORRECTIONS and _corrected(needs, results, bench, listener):
                corrections += 1
                results = _timed(workers, jobs, bench, listener)
        return results


def _corrected(needs: NeededTrials, results: Results, bench: Bench, listener: Listener) -> bool:
    """Measure again kernels whose time within their network contradicts their records; returns whether a record was false."""
    records = doubted(results, needs.database, needs.tasks)
    # A run that had nothing to try has not asked for the right to write.
    with nullcontext() if needs.pending or not records else needs.writing():
        return measure_again(records, needs.database, needs.tasks, bench, listener.said)


def _timed(workers: WorkerPool, jobs: Sequence[VariantJob], bench: Bench, listener: Listener) -> Results:
    """The libraries that the logs now lead to, verified and timed."""
    libraries = _compile(jobs, workers, listener)
    try:
        with listener.stage("verifying", len(jobs)) as done:
            results = bench_libraries(bench, libraries, done)
    except Disagreement as error:
        raise explained(error, workers, jobs) from None
    for library, variant in zip(libraries, results.variants, strict=True):
        note(library, checked(variant.max_error, bench.profile.name))
    return results


def _compile(jobs: Sequence[VariantJob], workers: WorkerPool, listener: Listener) -> list[Library]:
    with listener.stage("compiling", len(jobs)) as done:
        return build_libraries(workers, jobs, done)


def plan_tuning(
    models: Models,
    device: str | Device = "pi4",
    *,
    trials: int | None = None,
    threads: int = 1,
    dtype: str = FLOAT32.name,
    io_dtype: str = FLOAT32.name,
    max_error: float | None = None,
    calibrate: str | Path | None = None,
    keep: Sequence[str] = (),
    max_drop: str | None = None,
    out: str | Path = "out",
    logs: str | Path | None = None,
    fresh: bool = False,
    dump_ir: str | Path | None = None,
    format: str = C,  # noqa: A002
    archive: bool = False,
    image: Normalisation | None = None,
    dask: str | None = None,
    listener: Listener = QUIET,
) -> TuningPlan:
    """What `tune` would do with the same arguments; raises what it would raise. Nothing is tried or written."""
    board = device_of(device)
    request = request_of(
        threads=threads,
        dtype=dtype,
        io_dtype=io_dtype,
        max_error=max_error,
        calibrate=calibrate,
        keep=keep,
        max_drop=max_drop,
        out=Path(out),
        logs=logs,
        fresh=fresh,
        dump_ir=dump_ir,
        form=format,
        archive=archive,
        image=image,
    )
    jobs = request.jobs(models, board.profile)
    with _workers(jobs, board, DEFAULT_TRIALS if trials is None else trials, dask) as workers:
        variants = _imported(workers, jobs, listener)
    plan = NeededTrials(jobs, variants, request.logs, board.profile, trials).plan
    listener.planned(plan)
    return plan


def _try(needs: NeededTrials, bench: Bench, how: Search, listener: Listener) -> None:
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
                with listener.searching(assignments, bench.profile.origin.kind) as progress:
                    search(assignments, needs.database, bench, progress, how)
        if len(needs.database) == known:
            return
        rounds = tuple(needs.later)


def check_strategy(name: str) -> None:
    """Raises `UserError` for a strategy that is not known."""
    if name not in STRATEGIES:
        raise UserError(f"strategy {name!r} is not known.", "Give --strategy evolution, climb or random.")


@contextmanager
def _workers(jobs: Sequence[VariantJob], board: Device, trials: int, dask: str | None) -> Iterator[WorkerPool]:
    count = worker_count(max(len(jobs), BATCH if trials else 1), board.boards)
    with started_workers(count, board.boards, dask) as workers:
        yield workers


def _imported(workers: WorkerPool, jobs: Sequence[VariantJob], listener: Listener) -> list[VariantTasks]:
    with listener.stage("importing", len(jobs)) as done:
        variants = collect_variants(workers, jobs, done)
    for job, variant in zip(jobs, variants, strict=True):
        if variant.kept:
            listener.said(kept_sentence(job.spec.variant, variant.kept))
    return variants
