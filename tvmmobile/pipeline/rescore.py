"""Scores the best schedules of every kernel in logs of another timing model again with the current one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tvmmobile.devices.protocol import Device, DeviceProfile
from tvmmobile.graph.layers import Opaque
from tvmmobile.graph.precision import precision_named
from tvmmobile.graph.tasks import Task
from tvmmobile.networks.models.registry import FAMILIES
from tvmmobile.networks.models.spec import ModelSpec
from tvmmobile.networks.preprocessing import Preprocessing
from tvmmobile.pipeline.job import VariantJob, variant_job
from tvmmobile.pipeline.listener import QUIET, Listener, missing_trials, tell
from tvmmobile.pipeline.load import variants
from tvmmobile.pipeline.options.library import LibraryOptions
from tvmmobile.pipeline.request import device_of
from tvmmobile.pipeline.sentences import skipped_lines
from tvmmobile.pipeline.stages.preparing import collect_variants
from tvmmobile.quantisation.data import CalibrationData, calibration_data
from tvmmobile.results.report.wording import plural
from tvmmobile.running.bench import started_bench
from tvmmobile.system.errors import UserError
from tvmmobile.system.files import check_writable
from tvmmobile.system.workers import Workers, worker_count
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.compact import check_keep
from tvmmobile.tuning.logs.directories import own_logs
from tvmmobile.tuning.logs.files import writing
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.regions import distinct_tasks
from tvmmobile.tuning.search.earlier_models import Rescored, ScheduleRanking, rankings, replace_logs, rescore, unmeasured
from tvmmobile.tuning.search.tuner import BATCH


@dataclass(frozen=True)
class RescoredLogs:
    """The result: kernels with old and new records, those of networks not built in, which are left out, and the old logs."""

    kernels: tuple[Rescored, ...]
    left_out: tuple[Task, ...]
    backups: tuple[Path, ...]


def rescore_logs(
    device: str | Device = "pi4", logs: str | Path | None = None, *, keep: int = 8, jobs: int | None = None, listener: Listener = QUIET
) -> RescoredLogs:
    """Score the best schedules of every kernel again; the logs then hold the new records alone, and the old ones lie beside them.

    Interrupt it at any time: finished scores are kept, and the same call resumes.

    Args:
        device: a virtual board's name, or what `find_device` returns; default: the virtual Raspberry Pi 4, unless a board is registered as
            `pi4`.
        logs: the directory to rewrite; without it, the user's own logs.
        keep: schedules per kernel, the best by the old scores.
        jobs: number of worker processes; without it, one per core.
        listener: is told of progress.

    Returns:
        The kernels with their old and new records, the tasks that were left out, and the paths of the old logs.

    Raises:
        UserError: an argument is wrong, the device is a real board, or the logs have nothing to score again.
        DeviceUnavailable: the board could not be started.
    """
    check_keep(keep)
    if jobs is not None and jobs < 1:
        raise UserError(f"--jobs {jobs} cannot score anything.", "Give --jobs 1 or more, or leave it out: one per core.")
    board, directory = device_of(device), own_logs() if logs is None else Path(logs)
    profile = board.profile
    identity = Identity.of(profile)
    ranked = _checked(rankings(directory, identity, keep), profile, directory)
    check_writable(directory, "--logs")
    with writing(directory, profile.name), Workers(jobs or worker_count(BATCH)) as pool:
        database = Database(identity, (), directory)
        database.read_all()
        if database.refused:
            tell(listener, skipped_lines(database.refused))
        sources = _sources(pool, [ranking.task for ranking in ranked], profile, listener)
        found = [ranking for ranking in ranked if not _is_opaque(ranking.task) or ranking.task in sources]
        assignments = unmeasured(found, database, sources)
        missing = missing_trials(assignments)
        kernels = plural(len(found), "kernel")
        tell(listener, f"{profile.name}: timing model {profile.origin.model}\n{kernels}, {plural(missing, 'schedule')} to measure")
        if missing:
            with started_bench(board, pool) as bench, listener.search(assignments, profile.origin.kind) as progress:
                rescore(found, assignments, database, bench, progress)
        done, backups = replace_logs(found, database)
    return RescoredLogs(tuple(done), tuple(ranking.task for ranking in ranked if ranking not in found), tuple(backups))


def _checked(ranked: list[ScheduleRanking], profile: DeviceProfile, directory: Path) -> list[ScheduleRanking]:
    if not profile.origin.modelled:
        raise UserError(f"{profile.name} is a real board: its records do not depend on a timing model.", "Tune it again: tvmmobile tune")
    if not ranked:
        raise UserError(
            f"{directory} has no records of {profile.name} of another timing model than the current one.",
            "Name another directory with --logs DIR.",
        )
    return ranked


def _is_opaque(task: Task) -> bool:
    return any(isinstance(layer, Opaque) for layer in task.region)


def _sources(workers: Workers, tasks: Sequence[Task], profile: DeviceProfile, listener: Listener) -> dict[Task, str]:
    """Import networks until the TIR functions of all tasks without a template are found; return them as JSON text."""
    wanted = {task for task in tasks if _is_opaque(task)}
    found: dict[Task, str] = {}
    for family in FAMILIES:
        jobs = [job for setting in sorted({(task.dtype, task.threads) for task in wanted}) for job in _imports(family, *setting, profile)]
        if not jobs:
            break
        with listener.stage(f"importing {family}", len(jobs)) as done:
            found |= {task: source for task, source in distinct_tasks(collect_variants(workers, jobs, done)).items() if source is not None}
        wanted -= found.keys()
    return found


def _imports(family: str, dtype: str, threads: int, profile: DeviceProfile) -> list[VariantJob]:
    precision = precision_named(dtype)
    jobs = [variant_job(model, profile, (), Path(), LibraryOptions(threads, precision)) for model in variants(family)]
    return [replace(job, calibration=_any_calibration(job.spec)) for job in jobs] if precision.is_integer else jobs


def _any_calibration(spec: ModelSpec) -> CalibrationData:
    """Return data that give layers any scales: tasks do not depend on them."""
    return calibration_data("noise:1", Preprocessing(spec.resolution, channels=spec.channels, shape=spec.odd_shape), generated=True)
