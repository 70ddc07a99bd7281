"""Tunes tasks one after another: proposes, measures, records, until each has its trials."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tvmmobile.database import Database, Record
from tvmmobile.devices.protocol import DeviceProfile, Endpoint, Watch
from tvmmobile.errors import DeviceUnavailable
from tvmmobile.measure import Timing
from tvmmobile.schedules import KnobSchedule, Template, template_for, templates_for
from tvmmobile.search.cost_model import CostModel
from tvmmobile.search.fallback import FallbackSpace
from tvmmobile.search.nearest import nearest_schedules
from tvmmobile.search.strategy import GuidedEvolution, HillClimbing, RandomSampling, Strategy
from tvmmobile.search.trial import Job, Outcome, run_trial
from tvmmobile.search.twin import best_of_twin
from tvmmobile.serial import Schedule, TraceSchedule
from tvmmobile.tasks import Task
from tvmmobile.workers import WorkerError, Workers

#: Candidates per batch: enough for all workers, few enough that the cost model learns often.
BATCH = 8
#: Times a batch is measured that the board's state spoiled.
MOST_ATTEMPTS = 3
#: Before a candidate is tried again when the device went away under it.
OUTAGE_PAUSE_S = 2.0
#: For building and running one candidate; the run alone has its own, shorter deadline on the device.
TRIAL_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Deadlines:
    """How long one candidate may take, in seconds.

    Attributes:
        run_s: on the device, loading included.
        trial_s: altogether.
        outage_s: how long the device may be away, from the first candidate that met an outage with none measured since.
    """

    run_s: float = 20.0
    trial_s: float = TRIAL_TIMEOUT_S
    outage_s: float = 120.0


DEADLINES = Deadlines()


@dataclass(frozen=True)
class Assignment:
    """A task with the number of trials it still lacks; one for each template that takes it.

    Attributes:
        template: whose schedules are tried, `None` where no template takes the task.
        source: an opaque task's unscheduled TIR function, else `None`.
        candidates: for a task that no template takes, the schedules MetaSchedule's rules gave; empty for others.
        done: records that exist already.
        missing: trials to run.
    """

    task: Task
    source: Any
    candidates: tuple[TraceSchedule, ...]
    done: int
    missing: int
    template: Template | None = None

    @property
    def title(self) -> str:
        """The task's name, and the template's where it is not the first that takes the task."""
        first = template_for(self.task)
        return self.task.name if self.template is None or self.template is first else f"{self.task.name} ({self.template.name})"


class Listener(Protocol):
    """What wants to know how tuning goes; every call comes from the tuning thread."""

    def kernel_started(self, assignment: Assignment) -> None:
        """A task's first batch is about to run."""

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """A trial is recorded; `best` is the task's fastest so far."""

    def kernel_finished(self, assignment: Assignment, best: Record | None) -> None:
        """A task has its trials, or its space is exhausted."""


def assign(tasks: Mapping[Task, Any], database: Database, trials: int, target: Mapping[str, Any]) -> list[Assignment]:
    """What is still to do for `trials` records per task.

    Args:
        tasks: each with the TIR function of an opaque task, or `None`.
        trials: wanted per task and template; records that exist count, and a space that is smaller is enough.
        target: the device's target.
    """
    assignments = []
    for task, source in tasks.items():
        records = database.records(task)
        templates = templates_for(task)
        for template in templates:
            space = template.space(task)
            assert space is not None
            done = sum(record.schedule in space for record in records)
            wanted = min(trials, template.enough_trials or trials)
            missing = max(0, space.size(wanted) - done) if done < wanted else 0
            assignments.append(Assignment(task, source, (), done, missing, template))
        if not templates:
            done = len(records)
            candidates = FallbackSpace(task, source, target).members(trials) if done < trials else ()
            assignments.append(Assignment(task, source, candidates, done, max(0, min(trials, len(candidates)) - done)))
    return assignments


def tune(
    assignments: Sequence[Assignment],
    database: Database,
    endpoint: Endpoint,
    profile: DeviceProfile,
    workers: Workers,
    listener: Listener,
    strategy: str = "evolution",
    seed: int = 0,
    deadlines: Deadlines = DEADLINES,
    twin: Database | None = None,
    watch: Watch | None = None,
) -> None:
    """Run the missing trials; every finished measurement is in the database before the next is awaited.

    Args:
        watch: over a real board: a batch is measured when it is cool, and again where its state spoiled the batch, before any of it counts.
        twin: records of the virtual board that is like this one; its best are tried first.

    Raises:
        DeviceUnavailable: the device went away and did not come back.
    """
    models: dict[str, CostModel] = {}
    for assignment in assignments:
        if assignment.missing:
            _Tuning(assignment, database, endpoint, profile, workers, listener, models, strategy, seed, deadlines, twin, watch).run()


def measured(
    assignment: Assignment,
    schedules: Sequence[Schedule],
    endpoint: Endpoint,
    profile: DeviceProfile,
    workers: Workers,
    deadlines: Deadlines = DEADLINES,
) -> Iterator[tuple[Job, Outcome]]:
    """Outcomes of a task's schedules as they come; one that met an outage is tried again.

    Raises:
        DeviceUnavailable: the device went away and did not come back.
    """
    import tvm

    source = None if assignment.source is None else tvm.ir.save_json(assignment.source)
    timing = kernel_timing(profile, assignment.task.threads)
    jobs = [Job(assignment.task, schedule, source, endpoint, profile, timing, deadlines.run_s) for schedule in schedules]
    away_since = math.inf
    while True:
        lost = []
        for job, result in workers.run(run_trial, jobs, deadlines.trial_s):
            outcome = Outcome(None, error=str(result)) if isinstance(result, WorkerError) else result
            if outcome.outage:
                lost.append((job, outcome))
                away_since = min(away_since, time.monotonic())
            else:
                away_since = math.inf
                yield job, outcome
        if not lost:
            return
        if any(outcome.final for _, outcome in lost) or time.monotonic() - away_since > deadlines.outage_s:
            raise DeviceUnavailable(
                f"the device {profile.name} went away: {lost[0][1].error}",
                "Finished measurements are kept; run the same command again once the device is back.",
            )
        jobs = [job for job, _ in lost]
        time.sleep(OUTAGE_PAUSE_S)


def record_of(job: Job, outcome: Outcome) -> Record:
    """What a log keeps of a trial."""
    return Record(job.task, job.schedule, outcome.latency_us, outcome.cycles, outcome.samples_us, outcome.error)


def make_strategy(
    name: str,
    template: Template,
    task: Task,
    seeds: list[KnobSchedule],
    rng: random.Random,
    models: dict[str, CostModel],
    database: Database,
) -> Strategy:
    """A strategy by name: `evolution`, `random` or `climb`; the cost models are shared between tasks through `models`."""
    space = template.space(task)
    assert space is not None
    if name == "random":
        return RandomSampling(task, space, seeds, rng)
    if name == "climb":
        return HillClimbing(task, space, seeds, rng)
    if template.name not in models:
        models[template.name] = CostModel(template.name, template.version)
        for known in database.tasks():
            models[template.name].add(database.records(known))
    return GuidedEvolution(task, space, seeds, rng, models[template.name])


class _Tuning:
    """The tuning of one task."""

    def __init__(
        self,
        assignment: Assignment,
        database: Database,
        endpoint: Endpoint,
        profile: DeviceProfile,
        workers: Workers,
        listener: Listener,
        models: dict[str, CostModel],
        strategy: str,
        seed: int,
        deadlines: Deadlines,
        twin: Database | None,
        watch: Watch | None,
    ) -> None:
        self.watch = watch
        self.assignment, self.database, self.endpoint, self.profile = assignment, database, endpoint, profile
        self.workers, self.listener, self.models, self.seed = workers, listener, models, seed
        self.deadlines = deadlines
        task = assignment.task
        template = assignment.template
        # Resuming must not repeat the same random choices, hence the number of records in the seed.
        self.rng = random.Random(f"{task.name} {seed} {assignment.done}")
        self.strategy: Strategy | None = None
        if template is not None:
            space = template.space(task)
            assert space is not None
            likely = best_of_twin(twin, task, template) if twin is not None else []
            seeds = [*likely, *nearest_schedules(task, database, template), space.default]
            self.strategy = make_strategy(strategy, template, task, seeds, self.rng, models, database)
            self.strategy.observe(database.records(task))

    def run(self) -> None:
        """All batches."""
        self.listener.kernel_started(self.assignment)
        left = self.assignment.missing
        while left > 0:
            batch = self._propose(min(BATCH, left))
            if not batch:
                break
            records = [self._record(job, outcome) for job, outcome in self._measured(batch)]
            left -= len(batch)
            if self.strategy is not None:
                self.strategy.observe(records)
            for model in self.models.values():
                model.add(records)
        self.listener.kernel_finished(self.assignment, self.database.best(self.assignment.task))

    def _measured(self, batch: Sequence[Schedule]) -> Iterable[tuple[Job, Outcome]]:
        """Outcomes as they come; under a watch all at once, when nothing spoiled them."""
        for _ in range(MOST_ATTEMPTS):
            before = self.watch.wait_until_cool() if self.watch else None
            outcomes = measured(self.assignment, batch, self.endpoint, self.profile, self.workers, self.deadlines)
            if self.watch is None:
                return outcomes
            found = list(outcomes)
            reason = self.watch.spoiled(before, self.watch.read())
            if not reason:
                return found
        raise DeviceUnavailable(
            f"{self.profile.name} cannot be measured: {reason}, {MOST_ATTEMPTS} times in a row.",
            "Cool it and give it enough power; finished measurements are kept.",
        )

    def _propose(self, count: int) -> Sequence[Schedule]:
        if self.strategy is not None:
            return self.strategy.propose(count)
        known = {record.schedule for record in self.database.records(self.assignment.task)}
        return [schedule for schedule in self.assignment.candidates if schedule not in known][:count]

    def _record(self, job: Job, outcome: Outcome) -> Record:
        record = record_of(job, outcome)
        self.database.append([record])
        self.listener.trial_finished(record, self.database.best(job.task))
        return record


def kernel_timing(profile: DeviceProfile, threads: int) -> Timing:
    """How a single kernel is timed: weights cold, its input as the layer before left it; one run where the clock is modelled.

    A kernel's arguments are the activation, then its weights, then the output, which other layers have used in between.
    """
    flush_bytes = 4 * profile.l2_bytes
    if profile.kind == "modelled":
        return Timing(flush_bytes=flush_bytes, produce=(0,), threads=threads)
    return Timing(
        warmup=1, repeat=10, flush_bytes=flush_bytes, produce=(0,), threads=threads, settle=0.05, min_total_ms=20, max_total_ms=3000
    )
