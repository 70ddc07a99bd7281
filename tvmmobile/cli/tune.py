"""`tvmmobile tune`: tune what the logs lack, then compile, verify, time and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.options import Activation, Alphas, Classes, Device, Model, Out, Resolutions, Target, Threads
from tvmmobile.cli.work import (
    Checkpoint,
    Dask,
    DumpIr,
    Logs,
    Pin,
    Request,
    RequireHardware,
    Seed,
    check_writable,
    log_dirs,
    set_aside,
    started_bench,
    started_workers,
    worker_count,
)
from tvmmobile.system.environment import SHIPPED_LOGS

if TYPE_CHECKING:
    from tvmmobile.devices.protocol import Device as Board
    from tvmmobile.devices.protocol import DeviceProfile
    from tvmmobile.graph.tasks import Task
    from tvmmobile.results.file import Results
    from tvmmobile.tuning.search.tuner import Assignment

#: Trials a second on two cores of a desktop, for the estimate of --dry-run; a real run shows the time that is left.
_TRIALS_PER_SECOND = 2.5
#: The templates prune so much that 8 trials, from nothing, come within 1.5 % of 24 (MobileNet v1 1.0-224: 102.5 against 101.1 ms modelled).
DEFAULT_TRIALS = 8
#: Timed runs of a finished library on a real board, and runs before them.
_REPEAT, _WARMUP = 10, 3


def tune(
    target: Target = "arm",
    device: Device = "pi4",
    model: Model = "mobilenet_v1",
    alpha: Alphas = None,
    resolution: Resolutions = None,
    activation: Activation = None,
    classes: Classes = 1000,
    trials: Annotated[
        int | None,
        typer.Option(
            "--trials",
            metavar="N",
            min=0,
            help="Trials per kernel, logged ones included; above 4, promising kernels only. Default: 8; 0 where shipped logs have any.",
        ),
    ] = None,
    threads: Threads = 1,
    out: Out = Path("out"),
    checkpoint: Checkpoint = None,
    seed: Seed = 0,
    logs: Logs = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Ignore all logs; start an empty one under --out.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print kernels, trials and a time estimate, then exit.")] = False,
    require_hardware: RequireHardware = False,
    pin: Pin = False,
    dask: Dask = None,
    dump_ir: DumpIr = None,
    strategy: Annotated[str, typer.Option("--strategy", metavar="NAME", help="Search strategy: evolution, climb or random.")] = "evolution",
) -> None:
    """Find fast schedules for a network's kernels on a device, and compile, verify, time and report the network.

    Without --alpha and --resolution: the published variants (MobileNet v1: the paper's 16). Interrupt it at any time: finished trials are
    kept, and the same command resumes from there.
    """
    from tvmmobile.devices.registry import find_device

    board = find_device(device, require_hardware, pin)
    check_strategy(strategy)
    directories = log_dirs(logs, fresh, out)
    request = Request(target, model, alpha, resolution, activation, classes, threads, out, checkpoint, seed, directories, dump_ir)
    _run(board, request, trials, strategy, dask, fresh=fresh, dry_run=dry_run)


def _run(board: Board, request: Request, asked: int | None, strategy: str, dask: str | None, *, fresh: bool, dry_run: bool) -> None:
    from tvmmobile.cli.progress import TuningProgress, counting
    from tvmmobile.pipeline.stages import bench_libraries, build_libraries, collect_variants, distinct_tasks
    from tvmmobile.results.report.wording import fallback_sentence
    from tvmmobile.tuning.database import Database, writing
    from tvmmobile.tuning.search.rounds import FIRST_TRIALS, later_rounds, promising
    from tvmmobile.tuning.search.tuner import BATCH, Search, assign
    from tvmmobile.tuning.search.tuner import tune as run_search
    from tvmmobile.tuning.search.twin import FIRST_FROM_TWIN, twin_database

    profile = board.profile
    trials = DEFAULT_TRIALS if asked is None else asked
    if trials and not dry_run:
        check_writable(request.logs.target, "--logs")
    jobs = request.jobs(profile)
    with ExitStack() as held:
        count = worker_count(max(len(jobs), BATCH if trials else 1), board.boards)
        workers = held.enter_context(started_workers(count, board.boards, dask))
        with counting("importing", len(jobs)) as done:
            variants = collect_variants(workers, jobs, done)
        if fresh and not dry_run and request.logs.target.exists():
            with writing(request.logs.target, profile.name):  # not from under a run that writes there
                set_aside(request.logs.target)
        database = Database(jobs[0].identity, request.logs.sources, request.logs.target)
        tasks = distinct_tasks(variants)
        twin = twin_database(profile, request.logs.all)
        first = min(trials, FIRST_TRIALS if twin is None else FIRST_FROM_TWIN)
        shipped = Database(jobs[0].identity, {SHIPPED_LOGS} & set(request.logs.sources), None)

        def lacking(wanted: Mapping[Task, str | None], most: int) -> list[Assignment]:
            """What kernels lack; unless a number was asked for, what the shipped logs know of one is enough."""
            found = assign(wanted, database, most, profile.target)
            return [replace(each, missing=0) if asked is None and shipped.best(each.task) else each for each in found]

        def further(most: int, may_gain: float) -> list[Assignment]:
            return lacking(promising(variants, database, tasks, may_gain), most)

        assignments, later = lacking(tasks, first), later_rounds(first, trials)
        pending = bool(_missing(assignments)) or any(_missing(further(*each)) for each in later)
        if pending and not dry_run:
            held.enter_context(database.writing())
            known = len(database)
            database = Database(jobs[0].identity, request.logs.sources, request.logs.target)
            if len(database) > known:  # another run wrote them before it let go
                assignments = lacking(tasks, first)
        _announce(profile, len(jobs), assignments, first, trials if pending else first, database.outdated)
        if dry_run:
            _print_assignments(
                assignments, fallback_sentence([task.name for task, source in tasks.items() if source is not None], len(tasks))
            )
            return
        with started_bench(board, workers, dask, _REPEAT, _WARMUP) as bench:

            def search(assignments: Sequence[Assignment]) -> None:
                if _missing(assignments):
                    with TuningProgress(assignments, profile.kind) as progress:
                        run_search(assignments, database, bench, progress, Search(strategy, request.seed, twin))

            search(assignments)
            for each in later:
                search(further(*each))
            with counting("compiling", len(jobs)) as done:
                libraries = build_libraries(workers, jobs, done)
            with counting("verifying", len(jobs)) as done:
                results = bench_libraries(bench, libraries, done)
    _report(results, request.out)


def _missing(assignments: Sequence[Assignment]) -> int:
    """Trials to run."""
    return sum(assignment.missing for assignment in assignments)


def _report(results: Results, out: Path) -> None:
    from tvmmobile.results.report import print_table, write_report
    from tvmmobile.system.console import output

    paths = write_report(results, out)
    print_table(results)
    output().print(f"Written to {out}: {len(results.variants)} libraries, {', '.join(path.name for path in paths)}", soft_wrap=True)


def check_strategy(name: str) -> None:
    """Raises `UserError` for a strategy that is not known."""
    from tvmmobile.system.errors import UserError

    if name not in ("evolution", "climb", "random"):
        raise UserError(f"strategy {name!r} is not known.", "Give --strategy evolution, climb or random.")


def _announce(profile: DeviceProfile, variants: int, assignments: Sequence[Assignment], first: int, trials: int, outdated: int) -> None:
    from tvmmobile.cli.progress import errors

    face = f"the virtual {profile.board} (latencies are modelled)" if profile.kind == "modelled" else f"{profile.board} ({profile.kind})"
    missing = _missing(assignments)
    errors().print(
        f"{profile.name}: {face}\n{variants} variants, {len({assignment.task for assignment in assignments})} distinct kernels, "
        f"{sum(assignment.done for assignment in assignments)} records, {missing} trials to run"
        + (f", then up to {trials} for each kernel a plan may use" if trials > first else ""),
        soft_wrap=True,
    )
    if outdated:
        errors().print(
            f"{outdated} records rest on another timing model and do not count: see tvmmobile logs rescore --help", soft_wrap=True
        )


def _print_assignments(assignments: Sequence[Assignment], remark: str) -> None:
    from tvmmobile.system.console import output, table_of

    table = table_of(("kernel",), ("records", "trials"))
    for assignment in assignments:
        name = assignment.title.replace("+", " +\n  ")  # of several layers: one a line, or it would not fit
        table.add_row(name, str(assignment.done), str(assignment.missing))
    output().print(table)
    if remark:
        output().print(remark)
    minutes = _missing(assignments) / _TRIALS_PER_SECOND / 60
    output().print(f"About {minutes:.0f} minutes of tuning on two cores of a desktop; nothing was done.")
