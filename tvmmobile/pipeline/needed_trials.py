"""The trials that networks' kernels still need, updated as records are added."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.job import VariantJob
from tvmmobile.pipeline.listener import TuningPlan, missing_trials
from tvmmobile.results.report.fallback import UsedKernel
from tvmmobile.results.report.wording import plural
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.choice import plan_by_records
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.directories import LogDirs
from tvmmobile.tuning.regions import VariantTasks, distinct_tasks
from tvmmobile.tuning.search.rounds import FIRST_TRIALS, hopeless, later_rounds, promising, worth_trying
from tvmmobile.tuning.search.similar_core import similar_core_database
from tvmmobile.tuning.search.tuner import TrialAssignment, assign
from tvmmobile.tuning.search.twin import FIRST_FROM_TWIN, twin_database

#: The templates prune so much that 8 trials, from nothing, come within 1.5 % of 24 (MobileNet v1 1.0-224: 102.5 against 101.1 ms modelled).
DEFAULT_TRIALS = 8


class NeededTrials:
    """The trials that kernels still lack as the database grows.

    Args:
        asked: trials per kernel; `None` for the default, with which a kernel's shipped records are enough.

    Attributes:
        later: rounds after the first: (trials at most, how much faster a kernel may become).
        pending: true if there is anything to try.
        tasks: every kernel that a network may have; an opaque one with its TIR function as JSON text.
    """

    def __init__(
        self, jobs: Sequence[VariantJob], variants: Sequence[VariantTasks], logs: LogDirs, profile: DeviceProfile, asked: int | None
    ) -> None:
        self._variants, self._logs, self._profile, self._asked = variants, logs, profile, asked
        self._identity = jobs[0].identity
        self.tasks = distinct_tasks(variants)
        self._shipped = Database(self._identity, {SHIPPED_LOGS} & set(logs.sources), None)
        self.twin = twin_database(profile, logs.all)
        # A real board whose core has records starts with these.
        self.similar = None if self.twin else similar_core_database(profile, logs.sources)
        self.database = self._opened()
        trials = DEFAULT_TRIALS if asked is None else asked
        self._tried = worth_trying(variants, self.similar, self.tasks, trials)
        first = min(trials, FIRST_TRIALS if self.twin is None else FIRST_FROM_TWIN)
        self.later = later_rounds(first, trials)
        self.plan = self._planned(first, trials)

    def _opened(self) -> Database:
        return Database(self._identity, self._logs.sources, self._logs.target)

    def _planned(self, first: int, trials: int) -> TuningPlan:
        assignments = self._lacking(self._tried, first)
        self.pending = bool(missing_trials(assignments)) or any(missing_trials(self.further(*each)) for each in self.later)
        return TuningPlan(
            self._profile,
            len(self._variants),
            tuple(assignments),
            first,
            trials if self.pending else first,
            self.database.outdated,
            tuple(used for variant in self._variants for used in _planned_kernels(variant, self.database)),
            tuple(self.database.refused),
            "" if self.pending else nothing_to_try(self._asked, first),
        )

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the right to write these logs while the context lasts; records that a previous holder wrote count."""
        with self.database.writing():
            known = len(self.database)
            self.database = self._opened()
            if len(self.database) > known:
                self.plan = replace(
                    self.plan, assignments=tuple(self._lacking(self._tried, self.plan.first)), outdated=self.database.outdated
                )
            yield

    def _lacking(self, wanted: Mapping[Task, str | None], most: int) -> list[TrialAssignment]:
        found = assign(wanted, self.database, most, self._profile.target)
        return [replace(each, missing=0) if self._asked is None and self._shipped.best(each.task) else each for each in found]

    def further(self, most: int, may_gain: float) -> list[TrialAssignment]:
        """Return a later round: trials for kernels that some network's best plan would use if they were a little faster."""
        lacking = self._lacking(promising(self._variants, self.database, self._tried, may_gain), most)
        return [replace(each, missing=0) if hopeless(each, self.database) else each for each in lacking]


def _planned_kernels(variant: VariantTasks, database: Database) -> list[UsedKernel]:
    """Return the kernels of a network with a database's records, in execution order; those without a record have no latency."""
    steps = plan_by_records(variant.nodes, variant.regions, database).steps
    return [
        UsedKernel(step.task.name, step.task in variant.sources, variant.macs.get(step.task, step.task.macs), step.price.latency_us)
        for step in steps
    ]


def nothing_to_try(asked: int | None, first: int) -> str:
    """Return the reason why no kernel lacks trials; "" where none were asked for."""
    if asked is None:
        return f"Nothing to try: every kernel is in the shipped logs, or has the default {DEFAULT_TRIALS} records. More --trials try more."
    if not asked:
        return ""
    many = f"; those that a plan may use have {asked}, all of them, or as many as their template needs" if asked > first else ""
    return f"Nothing to try for --trials {asked}: every kernel has records of {plural(first, 'schedule')}, or of all that it has{many}."
