"""Tunes tasks one after another: proposes, measures and records candidates until each task has its trials."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.devices.protocol import Watch
from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule, TraceSchedule
from tvmmobile.running.bench import Bench
from tvmmobile.schedules import KnobSchedule, Template, template_for, templates_for
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.workers import WorkerError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.search.cost_model import CostModels
from tvmmobile.tuning.search.fallback import FallbackSpace
from tvmmobile.tuning.search.similar_core import first_guesses
from tvmmobile.tuning.search.strategy import GuidedEvolution, HillClimbing, RandomSampling, Strategy
from tvmmobile.tuning.search.trial import Outcome, TrialJob, run_trial
from tvmmobile.tuning.search.twin import best_of_twin

#: Candidates per batch: enough for all workers, few enough that the cost model learns often.
BATCH = 8
#: Most attempts to measure candidates whose measurement the board's state spoiled.
MOST_ATTEMPTS = 3
#: Seconds before candidates are tried again after an outage.
OUTAGE_PAUSE_S = 2.0
#: Time limit in seconds for building and running one candidate; the run on the device has a shorter limit of its own.
TRIAL_TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Deadlines:
    """Time limits in seconds. On a virtual board, the first two are stretched while this machine is busy (`Endpoint.stretch`).

    Attributes:
        run_s: limit for loading and running a candidate on the device.
        trial_s: limit for a whole trial, and for the processor time of its compilation.
        outage_s: limit for an outage, from the first candidate that was lost since the last measurement.
    """

    run_s: float = 20.0
    trial_s: float = TRIAL_TIMEOUT_S
    outage_s: float = 120.0


DEADLINES = Deadlines()


@dataclass(frozen=True)
class TrialAssignment:
    """The trials that remain for a task and one of the templates that accept it.

    Attributes:
        source: unscheduled TIR function of an opaque task as JSON text, else `None`.
        candidates: schedules from MetaSchedule's rules, for a task that no template accepts; empty for others.
        done: number of trials that exist already.
        missing: number of trials to run.
        template: template whose schedules are tried; `None` if no template accepts the task.
    """

    task: Task
    source: str | None
    candidates: tuple[TraceSchedule, ...]
    done: int
    missing: int
    template: Template | None = None

    @property
    def title(self) -> str:
        """Name of the task, followed by the template's unless it is the first that accepts the task."""
        first = template_for(self.task)
        return self.task.name if self.template is None or self.template is first else f"{self.task.name} ({self.template.name})"


@dataclass(frozen=True)
class Search:
    """Options of a search for schedules.

    Attributes:
        strategy: name of the strategy, one of `STRATEGIES`.
        seed: seed of all random choices.
        twin: records of the virtual board with the same core, whose best schedules are tried first; `None` without one.
        similar: records of the most similar core, some of whose best schedules are among the first tried; `None` without one.
    """

    strategy: str = "evolution"
    seed: int = 0
    twin: Database | None = None
    similar: Database | None = None
    deadlines: Deadlines = DEADLINES


class SearchListener:
    """Receives a search's progress; all methods do nothing and may be overridden. All calls come from the tuning thread.

    An `assignment` is a task with one template whose schedules are tried, and the number of trials; `assignment.title` names both. A
    `record` is the outcome of a trial: its `schedule` with its `latency_us`, or the reason for its failure.
    """

    def kernel_started(self, assignment: TrialAssignment) -> None:
        """Report that the first batch of trials of `assignment` is about to run."""

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """Report that a trial is over: `record` is its outcome, and `best` is the task's fastest record so far, if any."""

    def kernel_finished(self, assignment: TrialAssignment, best: Record | None) -> None:
        """Report that `assignment` has all its trials, or that its space is exhausted; `best` is the task's fastest record, if any."""


def assign(tasks: Mapping[Task, str | None], database: Database, trials: int, target: Mapping[str, Any]) -> list[TrialAssignment]:
    """Return the trials that remain until each task and template has `trials` trials, or fewer for small spaces.

    Args:
        tasks: tasks, with the TIR function of opaque ones as JSON text.
        target: TVM target for which MetaSchedule samples schedules.
    """
    assignments = []
    for task, source in tasks.items():
        known = database.trials(task)
        templates = templates_for(task)
        for template in templates:
            space = template.space(task)
            assert space is not None
            done = sum(record.schedule in space for record in known.records) + known.dropped_of(space.template, space.version)
            wanted = min(trials, template.enough_trials or trials)
            missing = max(0, space.size(wanted) - done) if done < wanted else 0
            assignments.append(TrialAssignment(task, source, (), done, missing, template))
        if not templates:
            done = len(known)
            candidates = _sampled(task, source, target, trials) if done < trials else ()
            assignments.append(TrialAssignment(task, source, candidates, done, max(0, min(trials, len(candidates)) - done)))
    return assignments


def _sampled(task: Task, source: str | None, target: Mapping[str, Any], count: int) -> tuple[TraceSchedule, ...]:
    import tvm

    assert source is not None, f"no template takes {task.name}"
    return FallbackSpace(task, tvm.ir.load_json(source), target).members(count)


def tune(
    assignments: Sequence[TrialAssignment], database: Database, bench: Bench, listener: SearchListener, search: Search = Search()
) -> None:
    """Run the missing trials; each outcome is recorded in the database before the next one is awaited.

    Candidates of a watched board are measured while it is cool, and measured again if its state spoiled them; they are recorded in batches,
    once it is known that nothing spoiled them.

    Raises:
        DeviceUnavailable: if the device went away and did not come back, or if its state spoils all measurements.
    """
    models, runner = CostModels(database, bench.profile.machine), _Runner(bench, search.deadlines)
    tunings = (_Tuning(assignment, models, search, listener) for assignment in assignments if assignment.missing)
    if bench.profile.origin.modelled:
        for tuning in tunings:
            _in_batches(tuning, runner)
    else:
        _overlapping(tunings, runner)


def measured(wanted: Iterable[tuple[TrialAssignment, Schedule]], bench: Bench) -> Iterator[tuple[TrialJob, Outcome]]:
    """Yield the outcomes of tasks' schedules as they come; candidates lost to an outage are retried.

    Raises:
        DeviceUnavailable: if an outage lasts.
    """
    runner = _Runner(bench, DEADLINES)
    return runner.outcomes(runner.job(assignment, schedule) for assignment, schedule in wanted)


class _HeldOutcomes:
    """Outcomes that are held back until it is known whether the board's state spoiled them.

    Attributes:
        outcomes: outcomes held back.
        reason: cause of invalid measurements; "" if there is none so far.
        spoiled: number of consecutive batches that were spoiled.
    """

    def __init__(self, watch: Watch | None) -> None:
        self._watch = watch
        self._before: Any = None
        self.outcomes: list[tuple[TrialJob, Outcome]] = []
        self.reason, self.spoiled = "", 0

    def begin(self) -> None:
        """Wait until the boards are cool, and discard held outcomes, which will be measured again."""
        if self._watch is not None:
            self._before = self._watch.wait_until_cool()
        self.outcomes, self.reason = [], ""

    def add(self, job: TrialJob, outcome: Outcome) -> list[tuple[TrialJob, Outcome]]:
        """Add an outcome; return the outcomes that are valid now, which are none until a batch is complete."""
        self.outcomes.append((job, outcome))
        return self.released() if self._watch is None or len(self.outcomes) >= BATCH else []

    def released(self) -> list[tuple[TrialJob, Outcome]]:
        """Return all held outcomes, or none if something spoiled them."""
        if self._watch is not None and self.outcomes:
            if not self.reason:
                after = self._watch.read()
                self.reason = self._watch.spoiled(self._before, after)
                self._before, self.spoiled = after, self.spoiled + 1 if self.reason else 0
            if self.reason:
                return []
        released, self.outcomes = self.outcomes, []
        return released


class _Runner:
    """Runs candidates, and retries those that were lost to an outage or spoiled by the board's state until it gives the device up."""

    def __init__(self, bench: Bench, deadlines: Deadlines) -> None:
        self._bench, self._deadlines = bench, deadlines

    def job(self, assignment: TrialAssignment, schedule: Schedule) -> TrialJob:
        """Return a candidate for a task's schedule, with the device's core, which tasks read from a log lack."""
        agents = self._bench.agents
        task = replace(assignment.task, machine=agents.profile.machine)
        return TrialJob(task, schedule, assignment.source, agents, self._deadlines.run_s, self._deadlines.trial_s)

    def jobs(self, assignment: TrialAssignment, schedules: Sequence[Schedule]) -> list[TrialJob]:
        """Return candidates for schedules of one task."""
        return [self.job(assignment, schedule) for schedule in schedules]

    def outcomes(self, jobs: Iterable[TrialJob]) -> Iterator[tuple[TrialJob, Outcome]]:
        """Yield outcomes as they come; for a watched board, in batches, once it is known that nothing spoiled them.

        `jobs` is consumed only as workers become free, and not while candidates wait to be retried.

        Raises:
            DeviceUnavailable: if the device went away and did not come back, or if its state spoils all measurements.
        """
        source, away_since, held = iter(jobs), math.inf, _HeldOutcomes(self._bench.watch)
        again: list[TrialJob] = []
        lost: list[tuple[TrialJob, Outcome]] = []
        while True:
            held.begin()
            lost.clear()
            for job, outcome in self._run(_handed_out(again, source, lambda: bool(lost or held.reason))):
                if outcome.outage:
                    lost.append((job, outcome))
                    away_since = min(away_since, time.monotonic())
                else:
                    away_since = math.inf
                    yield from held.add(job, outcome)
            yield from held.released()
            self._check(lost, away_since, held)
            again = [job for job, _ in (*lost, *held.outcomes)]
            if not again:
                return
            if lost:
                time.sleep(OUTAGE_PAUSE_S)

    def _run(self, jobs: Iterable[TrialJob]) -> Iterator[tuple[TrialJob, Outcome]]:
        longest_s = self._bench.agents.endpoint.stretch * self._deadlines.trial_s
        for job, result in self._bench.workers.run(run_trial, jobs, longest_s):
            yield job, Outcome(None, error=str(result)) if isinstance(result, WorkerError) else result

    def _check(self, lost: Sequence[tuple[TrialJob, Outcome]], away_since: float, held: _HeldOutcomes) -> None:
        """Raise `DeviceUnavailable` if another attempt is pointless."""
        if lost and (any(outcome.final for _, outcome in lost) or time.monotonic() - away_since > self._deadlines.outage_s):
            raise DeviceUnavailable(
                f"the device {self._bench.profile.name} went away: {lost[0][1].error}",
                "Finished measurements are kept; run the same command again once the device is back.",
                again=True,
            )
        if held.spoiled >= MOST_ATTEMPTS:
            raise DeviceUnavailable(
                f"{self._bench.profile.name} cannot be measured: {held.reason}, {MOST_ATTEMPTS} times in a row.",
                "Improve its cooling and power supply, end its power-saving mode, or add it again with its lower --clock; "
                "finished measurements are kept.",
            )


def _handed_out(again: Sequence[TrialJob], source: Iterator[TrialJob], stopped: Callable[[], bool]) -> Iterator[TrialJob]:
    """Yield the candidates to retry, then those of `source`, until stopped."""
    yield from again
    while not stopped() and (job := next(source, None)) is not None:
        yield job


def _in_batches(tuning: _Tuning, runner: _Runner) -> None:
    """Run one task's trials batch by batch, so that proposals depend on all earlier results and are the same in every run."""
    tuning.start()
    while batch := runner.jobs(tuning.assignment, tuning.next_batch()):
        records = {job: tuning.record(job, outcome) for job, outcome in runner.outcomes(batch)}
        tuning.learn([records[job] for job in batch])  # in the order of the batch, on which the cost model depends
    tuning.finish()


def _overlapping(tunings: Iterable[_Tuning], runner: _Runner) -> None:
    """Run all tasks' trials without waiting between batches or tasks, so that no board waits for another one's last candidate.

    Proposals depend on the results so far, so they differ from run to run, as measurements do anyway.
    """
    under_way: dict[TrialJob, _Tuning] = {}

    def proposed() -> Iterator[TrialJob]:
        for tuning in tunings:
            tuning.start()
            while batch := runner.jobs(tuning.assignment, tuning.next_batch()):
                under_way.update(dict.fromkeys(batch, tuning))
                yield from batch
            tuning.exhausted = True
            if tuning not in under_way.values():
                tuning.finish()

    for job, outcome in runner.outcomes(proposed()):
        tuning = under_way.pop(job)
        tuning.learn([tuning.record(job, outcome)])
        if tuning.exhausted and tuning not in under_way.values():
            tuning.finish()


def record_of(job: TrialJob, outcome: Outcome) -> Record:
    """Return the record of a trial."""
    return Record(job.task, job.schedule, outcome.latency_us, outcome.cycles, outcome.samples_us, outcome.error, terms_us=outcome.terms_us)


def make_strategy(name: str, template: Template, task: Task, seeds: list[KnobSchedule], rng: random.Random, models: CostModels) -> Strategy:
    """Return the strategy called `name`, one of `STRATEGIES`."""
    space = template.space(task)
    assert space is not None
    if name == "evolution":
        return GuidedEvolution(task, space, seeds, rng, models.of(template))
    return {"climb": HillClimbing, "random": RandomSampling}[name](task, space, seeds, rng)


class _Tuning:
    """The tuning of one task.

    Attributes:
        left: number of trials that remain to be proposed.
        exhausted: true once there are no more proposals.
    """

    def __init__(self, assignment: TrialAssignment, models: CostModels, search: Search, listener: SearchListener) -> None:
        self.assignment, self.models, self.listener = assignment, models, listener
        self.database = models.database
        self.left, self.exhausted = assignment.missing, False
        self.proposed: set[Schedule] = set()
        self.strategy: Strategy | None = None
        task, template = assignment.task, assignment.template
        if template is not None:
            likely = best_of_twin(search.twin, task, template) if search.twin is not None else []
            seeds = [*likely, *first_guesses(task, template, self.database, search.similar)]
            # The number of trials done is part of the seed, so that a resumed run does not repeat random choices.
            rng = random.Random(f"{task.name} {search.seed} {assignment.done}")
            self.strategy = make_strategy(search.strategy, template, task, seeds, rng, models)
            self.strategy.observe(self.database.records(task))
            self.strategy.leave_out(self.database.trials(task))

    def start(self) -> None:
        """Report that the first batch is about to run."""
        self.listener.kernel_started(self.assignment)

    def next_batch(self) -> Sequence[Schedule]:
        """Return the schedules to try next; none once the trials or the space are exhausted."""
        batch = self._propose(min(BATCH, self.left)) if self.left > 0 else []
        self.left -= len(batch)
        return batch

    def record(self, job: TrialJob, outcome: Outcome) -> Record:
        """Append the outcome of a trial to the database, and return its record."""
        record = record_of(job, outcome)
        self.database.append([record])
        self.listener.trial_finished(record, self.database.best(job.task))
        return record

    def learn(self, records: list[Record]) -> None:
        """Pass records to the strategy and the models, for the next proposals."""
        if self.strategy is not None:
            self.strategy.observe(records)
        self.models.add(records)

    def finish(self) -> None:
        """Report that all trials are recorded."""
        self.listener.kernel_finished(self.assignment, self.database.best(self.assignment.task))

    def _propose(self, count: int) -> Sequence[Schedule]:
        if self.strategy is not None:
            return self.strategy.propose(count)
        trials = self.database.trials(self.assignment.task)
        fresh = [candidate for candidate in self.assignment.candidates if candidate not in self.proposed and not trials.has(candidate)]
        chosen = fresh[:count]
        self.proposed.update(chosen)
        return chosen
