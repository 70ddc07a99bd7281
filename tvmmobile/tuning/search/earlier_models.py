"""Rescores the best schedules of earlier timing models under the current one: schedules are kept, latencies are not.

Latencies of different models are not comparable, so `Database` reads only those of the current model. This is the only module that reads
the others, and it uses only their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.running.bench import Bench
from tvmmobile.tuning.compacted import Dropped
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.files import lines_of_any_model, log_paths
from tvmmobile.tuning.records import Identity, Line, Record
from tvmmobile.tuning.search.tuner import SearchListener, TrialAssignment, measured, record_of
from tvmmobile.tuning.trials import Trials, family


@dataclass(frozen=True)
class ScheduleRanking:
    """A kernel's best schedules according to earlier models.

    Attributes:
        task: the kernel.
        file: path of the log.
        old: records of the schedules, fastest first and without duplicates; then the fastest of each template that is not among them.
        dropped: digests of all other schedules that were tried; they remain known as tried.
    """

    task: Task
    file: Path
    old: tuple[Record, ...]
    dropped: Dropped = ()


@dataclass(frozen=True)
class Rescored:
    """A ranking with the current model's records `new`, in the order of `ranking.old` and including failed ones."""

    ranking: ScheduleRanking
    new: tuple[Record, ...]

    @property
    def old_best_us(self) -> float | None:
        """Lowest latency of the earlier model in microseconds."""
        return self.ranking.old[0].latency_us

    @property
    def new_best_us(self) -> float | None:
        """Lowest latency of the current model in microseconds; `None` if every schedule failed."""
        return min((record.latency_us for record in self.new if record.latency_us is not None), default=None)

    @property
    def best_is_another(self) -> bool:
        """True if a different schedule is the fastest under the current model."""
        return self._order()[0] != 0

    @property
    def ranks_changed(self) -> int:
        """Number of schedules whose rank has changed; equal latencies keep their order."""
        return sum(place != rank for rank, place in enumerate(self._order()))

    def _order(self) -> list[int]:
        """Return the old ranks in the order of the new latencies, failures last."""
        latencies = [float("inf") if record.latency_us is None else record.latency_us for record in self.new]
        return sorted(range(len(latencies)), key=lambda place: (latencies[place], place))


def rankings(directory: Path, identity: Identity, keep: int) -> list[ScheduleRanking]:
    """Return, for each kernel in a device's logs, its best `keep` schedules by the latest earlier model, then by the models before it.

    The fastest schedule of every other template is added, because searches for similar kernels start from it, as in a compacted log.
    Records of `identity` itself are not ranked.

    Raises:
        UserError: if a log cannot be read.
    """
    ranked = []
    for path in log_paths(directory, identity.device):
        by_task: dict[Task, _ModelRecords] = {}
        for line in lines_of_any_model(path, identity):
            if line.identity.origin.model != identity.origin.model:
                by_task.setdefault(line.task, _ModelRecords()).add(line)
        ranked += [tried.ranking(task, path, keep) for task, tried in by_task.items() if any(tried.models.values())]
    return ranked


class _ModelRecords:
    """A kernel's records under earlier models; `models` has the successful ones by model."""

    def __init__(self) -> None:
        self.models: dict[str | None, list[Record]] = {}
        self._all = Trials()

    def add(self, line: Line) -> None:
        self._all.add(line.records, line.dropped)
        self.models.setdefault(line.identity.origin.model, []).extend(record for record in line.records if record.latency_us is not None)

    def ranking(self, task: Task, file: Path, keep: int) -> ScheduleRanking:
        best = _best([records for records in self.models.values() if records], keep)
        return ScheduleRanking(task, file, best, self._all.dropped_without({record.schedule for record in best}))


def _best(models: list[list[Record]], keep: int) -> tuple[Record, ...]:
    best: dict[Schedule, Record] = {}
    of_family: dict[str, Record] = {}
    for records in sorted(models, key=lambda records: max(record.when for record in records), reverse=True):
        for record in sorted(records, key=lambda record: (record.latency_us or 0.0, str(record.schedule))):
            of_family.setdefault(family(record.schedule), record)
            if len(best) < keep:
                best.setdefault(record.schedule, record)
    return tuple((best | {record.schedule: record for record in of_family.values()}).values())


def unmeasured(ranked: Iterable[ScheduleRanking], database: Database, sources: Mapping[Task, str]) -> list[TrialAssignment]:
    """Return assignments of the schedules that remain to be measured; records that an interrupted run left in the database count as done.

    Args:
        sources: TIR functions of opaque tasks, as JSON text.
    """
    assignments = []
    for ranking in ranked:
        done = len(ranking.old) - len(_missing(ranking, database))
        assignments.append(TrialAssignment(ranking.task, sources.get(ranking.task), (), done, len(ranking.old) - done))
    return assignments


def rescore(
    ranked: Sequence[ScheduleRanking], assignments: Sequence[TrialAssignment], database: Database, bench: Bench, listener: SearchListener
) -> None:
    """Measure the missing schedules, and log each record at once, beside the old ones.

    Trials of all kernels form one stream, because many kernels have only a schedule or two, and workers would wait for each other.

    Raises:
        DeviceUnavailable: if the connection to the device is lost.
    """
    missing: dict[Task, dict[Schedule, None]] = {}  # a kernel may be in several logs
    for ranking in ranked:
        missing.setdefault(ranking.task, {}).update(dict.fromkeys(_missing(ranking, database)))
    open_ones = {assignment.task: assignment for assignment in assignments if missing[assignment.task]}

    def wanted() -> Iterator[tuple[TrialAssignment, Schedule]]:
        for task, assignment in open_ones.items():
            listener.kernel_started(assignment)
            yield from ((assignment, schedule) for schedule in list(missing[task]))

    for job, outcome in measured(wanted(), bench):
        record = record_of(job, outcome)
        database.append([record])
        listener.trial_finished(record, database.best(job.task))
        del missing[job.task][job.schedule]
        if not missing[job.task]:
            listener.kernel_finished(open_ones[job.task], database.best(job.task))


def replace_logs(ranked: Sequence[ScheduleRanking], database: Database) -> tuple[list[Rescored], list[Path]]:
    """Rewrite each log with only the current model's records, in the old order; return the rescored rankings and the old logs' paths.

    Schedules that were tried under earlier models remain known as tried, so that a longer search does not return to the slower ones.
    """
    rescored = [Rescored(ranking, tuple(_records(ranking, database))) for ranking in ranked]
    written: dict[Path, dict[tuple[Task, Schedule], Record]] = {}
    for kernel in rescored:
        written.setdefault(kernel.ranking.file, {}).update({(record.task, record.schedule): record for record in kernel.new})
    for task in database.tasks():  # tasks that were tuned under the current model since
        for file, members in written.items():
            if file.stem == f"{task.dtype}_t{task.threads}":
                for record in database.records(task):
                    members.setdefault((record.task, record.schedule), record)
    dropped = {(ranking.file, ranking.task): ranking.dropped for ranking in ranked}
    return rescored, [
        database.replace(file, members.values(), {task: digests for (path, task), digests in dropped.items() if path == file})
        for file, members in written.items()
    ]


def _missing(ranking: ScheduleRanking, database: Database) -> list[Schedule]:
    measured_schedules = {record.schedule for record in database.records(ranking.task)}
    return [record.schedule for record in ranking.old if record.schedule not in measured_schedules]


def _records(ranking: ScheduleRanking, database: Database) -> list[Record]:
    by_schedule = {record.schedule: record for record in database.records(ranking.task)}
    return [by_schedule[record.schedule] for record in ranking.old]
