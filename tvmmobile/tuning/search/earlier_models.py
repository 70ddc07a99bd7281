"""Scores the best schedules of earlier timing models again under the current one: schedules stay, their latencies do not.

A model's latencies cannot be compared with another's, so `Database` reads none but the present one's. This is the only place that reads the
others, and only for their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.running.bench import Bench
from tvmmobile.tuning.compacted import Dropped
from tvmmobile.tuning.database import Database, lines_of_any_model
from tvmmobile.tuning.records import Identity, Line, Record
from tvmmobile.tuning.search.tuner import SearchListener, TrialBudget, measured, record_of
from tvmmobile.tuning.trials import Trials, family


@dataclass(frozen=True)
class ScheduleRanking:
    """A kernel's best schedules by an earlier model.

    Attributes:
        task: the kernel.
        file: path of the log.
        old: records of the schedules, fastest first, each schedule once; then the fastest of each template that is not among them.
        dropped: digests of all other schedules that were tried; they stay tried, without a record.
    """

    task: Task
    file: Path
    old: tuple[Record, ...]
    dropped: Dropped = ()


@dataclass(frozen=True)
class Rescored:
    """A ranking under the current model: `new` follows the order of `ranking.old`, failed records included."""

    ranking: ScheduleRanking
    new: tuple[Record, ...]

    @property
    def old_best_us(self) -> float | None:
        """The earlier model's lowest latency in microseconds."""
        return self.ranking.old[0].latency_us

    @property
    def new_best_us(self) -> float | None:
        """The present model's lowest latency in microseconds; `None` where every schedule failed."""
        return min((record.latency_us for record in self.new if record.latency_us is not None), default=None)

    @property
    def best_is_another(self) -> bool:
        """True if a different schedule is the fastest now."""
        return self._order()[0] != 0

    @property
    def ranks_changed(self) -> int:
        """The number of schedules whose place in the order has changed; equal ones keep theirs."""
        return sum(place != rank for rank, place in enumerate(self._order()))

    def _order(self) -> list[int]:
        """Return old places in the order of the new latencies, failures last."""
        latencies = [float("inf") if record.latency_us is None else record.latency_us for record in self.new]
        return sorted(range(len(latencies)), key=lambda place: (latencies[place], place))


def rankings(directory: Path, identity: Identity, keep: int) -> list[ScheduleRanking]:
    """Rank for each kernel in a device's logs the best `keep` schedules by the latest earlier model, filled up from those before it.

    The fastest of every other template comes with them: kernels nearby start from it, as they do in a compacted log. Records of `identity`
    itself are not ranked. Raises `UserError` where a log cannot be read.
    """
    found = []
    for path in sorted((directory / identity.device).glob("*.jsonl")):
        by_task: dict[Task, _ModelRecords] = {}
        for line in lines_of_any_model(path, identity):
            if line.identity.origin.model != identity.origin.model:
                by_task.setdefault(line.task, _ModelRecords()).add(line)
        found += [tried.ranking(task, path, keep) for task, tried in by_task.items() if any(tried.models.values())]
    return found


class _ModelRecords:
    """Records of a kernel under earlier models: `models` has the records that did not fail, by model."""

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


def unmeasured(ranked: Iterable[ScheduleRanking], database: Database, sources: Mapping[Task, str]) -> list[TrialBudget]:
    """Return the schedules still to be measured: the database's records, from an interrupted run, count.

    `sources`: opaque tasks' TIR as JSON text.
    """
    assignments = []
    for ranking in ranked:
        done = len(ranking.old) - len(_missing(ranking, database))
        assignments.append(TrialBudget(ranking.task, sources.get(ranking.task), (), done, len(ranking.old) - done))
    return assignments


def rescore(
    ranked: Sequence[ScheduleRanking], assignments: Sequence[TrialBudget], database: Database, bench: Bench, listener: SearchListener
) -> None:
    """Measure what is missing, each logged beside the old ones before the next comes; raise `DeviceUnavailable` if the device is lost.

    No worker waits for another's kernel: many kernels have a schedule or two.
    """
    missing: dict[Task, dict[Schedule, None]] = {}  # a kernel may be in several logs
    for ranking in ranked:
        missing.setdefault(ranking.task, {}).update(dict.fromkeys(_missing(ranking, database)))
    open_ones = {assignment.task: assignment for assignment in assignments if missing[assignment.task]}

    def wanted() -> Iterator[tuple[TrialBudget, Schedule]]:
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
    """Rewrite each log with only the current model's records, in the old order; return them, and the paths of the old logs.

    Schedules tried under earlier models stay tried: a longer search does not return to those that were slower there.
    """
    rescored = [Rescored(ranking, tuple(_records(ranking, database))) for ranking in ranked]
    written: dict[Path, dict[tuple[Task, Schedule], Record]] = {}
    for one in rescored:
        written.setdefault(one.ranking.file, {}).update({(record.task, record.schedule): record for record in one.new})
    for task in database.tasks():  # what was tuned under the present model since
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
    known = {record.schedule for record in database.records(ranking.task)}
    return [record.schedule for record in ranking.old if record.schedule not in known]


def _records(ranking: ScheduleRanking, database: Database) -> list[Record]:
    known = {record.schedule: record for record in database.records(ranking.task)}
    return [known[record.schedule] for record in ranking.old]
