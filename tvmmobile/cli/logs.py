"""`tvmmobile logs`: tuning logs, and what to do after the timing model has changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tvmmobile.cli.log_files import merge, show, verify
from tvmmobile.cli.options import Device

if TYPE_CHECKING:
    from tvmmobile.devices.protocol import DeviceProfile
    from tvmmobile.graph.tasks import Task
    from tvmmobile.pipeline.build import VariantJob
    from tvmmobile.system.workers import Workers
    from tvmmobile.tuning.search.rescore import Ranking, Rescored

logs = typer.Typer(add_completion=False, rich_markup_mode=None)


@logs.callback()
def _group() -> None:
    """Manage tuning logs."""


logs.command("show")(show)
logs.command("verify")(verify)
logs.command("merge")(merge)


@logs.command("rescore")
def rescore(
    device: Device = "pi4",
    directory: Annotated[
        Path | None, typer.Option("--logs", metavar="DIR", file_okay=False, help="Log directory to rewrite; default: your own.")
    ] = None,
    keep: Annotated[int, typer.Option("--keep", metavar="N", min=1, help="Schedules to score per kernel, best old scores first.")] = 8,
    jobs: Annotated[
        int | None, typer.Option("--jobs", metavar="N", min=1, help="Number of worker processes; default: one per core.")
    ] = None,
) -> None:
    """Score the best schedules of every kernel again with the current timing model.

    The logs then hold only the new records; the old ones are kept beside them
    as .bak. Interrupt it at any time: finished scores are kept, and the same
    command resumes from there.
    """
    from tvmmobile.cli.progress import TuningProgress, errors
    from tvmmobile.devices.registry import find_device
    from tvmmobile.results.report.wording import plural
    from tvmmobile.running.bench import started_bench
    from tvmmobile.system.files import check_writable
    from tvmmobile.system.workers import Workers, worker_count
    from tvmmobile.tuning.database import Database, Identity, writing
    from tvmmobile.tuning.logs.directories import own_logs
    from tvmmobile.tuning.search.rescore import rankings, replace_logs, unmeasured
    from tvmmobile.tuning.search.rescore import rescore as run
    from tvmmobile.tuning.search.tuner import BATCH

    board = find_device(device)
    profile = board.profile
    directory = directory or own_logs()
    identity = Identity.of(profile)
    ranked = _ranked(rankings(directory, identity, keep), profile, directory)
    check_writable(directory, "--logs")
    with writing(directory, profile.name), Workers(jobs or worker_count(BATCH)) as workers:
        database = Database(identity, (), directory)
        sources = _sources(workers, [ranking.task for ranking in ranked], profile)
        found = [ranking for ranking in ranked if not _is_opaque(ranking.task) or ranking.task in sources]
        assignments = unmeasured(found, database, sources)
        missing = sum(assignment.missing for assignment in assignments)
        errors().print(
            f"{profile.name}: timing model {profile.origin.model}\n"
            f"{plural(len(found), 'kernel')}, {plural(missing, 'schedule')} to measure",
            soft_wrap=True,
        )
        if missing:
            with started_bench(board, workers) as bench, TuningProgress(assignments, profile.origin.kind) as progress:
                run(found, assignments, database, bench, progress)
        rescored, backups = replace_logs(found, database)
    _report(rescored, [ranking.task for ranking in ranked if ranking not in found], backups)


def _ranked(ranked: list[Ranking], profile: DeviceProfile, directory: Path) -> list[Ranking]:
    from tvmmobile.system.errors import UserError

    if not profile.origin.modelled:
        raise UserError(f"{profile.name} is a real board: its logs rest on no timing model.", "Tune it again: tvmmobile tune")
    if not ranked:
        raise UserError(
            f"{directory} has no records of {profile.name} that rest on another timing model than the present one.",
            "Name another directory with --logs DIR.",
        )
    return ranked


def _is_opaque(task: Task) -> bool:
    from tvmmobile.graph.layers import Opaque

    return any(isinstance(layer, Opaque) for layer in task.region)


def _sources(workers: Workers, tasks: Sequence[Task], profile: DeviceProfile) -> dict[Task, str]:
    """The TIR functions, as JSON text, of tasks that no template takes; logs lack them: networks are imported until all are found."""
    from tvmmobile.cli.progress import counting
    from tvmmobile.networks.models.registry import FAMILIES
    from tvmmobile.pipeline.stages import collect_variants, distinct_tasks

    wanted = {task for task in tasks if _is_opaque(task)}
    found: dict[Task, str] = {}
    for family in FAMILIES:
        jobs = [job for setting in sorted({(task.dtype, task.threads) for task in wanted}) for job in _imports(family, *setting, profile)]
        if not jobs:
            break
        with counting(f"importing {family}", len(jobs)) as done:
            found |= {task: source for task, source in distinct_tasks(collect_variants(workers, jobs, done)).items() if source is not None}
        wanted -= found.keys()
    return found


def _imports(family: str, dtype: str, threads: int, profile: DeviceProfile) -> list[VariantJob]:
    from tvmmobile.networks.model import variants
    from tvmmobile.pipeline.build import variant_job

    return [replace(variant_job(model, profile, (), Path(), threads), dtype=dtype) for model in variants(family)]


def _report(rescored: Sequence[Rescored], left_out: Sequence[Task], backups: Sequence[Path]) -> None:
    from tvmmobile.results.report.wording import plural
    from tvmmobile.system.console import output

    console = output()
    for one in rescored:
        ranks = f"{one.ranks_changed} of {len(one.new)} ranks changed" + (", another one is first" if one.best_is_another else "")
        console.print(
            f"{one.ranking.task.name}\n    best {_us(one.old_best_us)} us by the old model, {_us(one.new_best_us)} us now; {ranks}",
            soft_wrap=True,
        )
    failed = sum(record.latency_us is None for one in rescored for record in one.new)
    changed = sum(one.best_is_another for one in rescored)
    console.print(
        f"{plural(len(rescored), 'kernel')}, {plural(sum(len(one.new) for one in rescored), 'schedule')}, {failed} failed; "
        f"another schedule is the fastest for {plural(changed, 'kernel')}. Latencies are modelled.",
        soft_wrap=True,
    )
    for task in left_out:
        console.print(f"left out: {task.name} (in none of the variants that tvmmobile knows)", soft_wrap=True)
    for backup in backups:
        console.print(f"Written: {backup.with_suffix('')} (before: {backup.name})", soft_wrap=True)


def _us(latency_us: float | None) -> str:
    return "–" if latency_us is None else f"{latency_us:.1f}"
