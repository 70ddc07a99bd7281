"""The tuner with workers that make up their answers: trials, failures, outages, resuming."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tvmmobile.devices.protocol import MEASURED, DeviceProfile, Endpoint
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Conv2d, Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import Bench
from tvmmobile.running.measure import Agents
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.workers import WorkerError
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search import tuner
from tvmmobile.tuning.search.trial import Outcome, TrialJob
from tvmmobile.tuning.search.tuner import DEADLINES, Deadlines, Search, TrialAssignment, assign, tune

TASKS = {Task((Conv2d(14, 14, 64, 64),)): None, Task((Dense(64, 64),)): None}
PROFILE = find_device("pi4").profile
IDENTITY = Identity.of(PROFILE)


class Workers:
    """Stands in for `workers.Workers`: answers each job with what `answer` says of it."""

    def __init__(self, answer: Callable[[TrialJob], Any]) -> None:
        self.answer = answer
        self.jobs: list[TrialJob] = []
        self.timeouts_s: set[float] = set()

    def run(self, function: object, jobs: Iterable[TrialJob], timeout_s: float) -> Iterator[tuple[TrialJob, Any]]:
        """Answer jobs as `workers.Workers.run` does."""
        self.timeouts_s.add(timeout_s)
        for job in reversed(list(jobs)):  # they come back in any order
            self.jobs.append(job)
            yield job, self.answer(job)


class Heard:
    """A listener that notes what it is told."""

    def __init__(self) -> None:
        self.events: list[str] = []

    def kernel_started(self, assignment: TrialAssignment) -> None:
        """See `SearchListener`."""
        self.events.append("start")

    def trial_finished(self, record: Record, best: Record | None) -> None:
        """See `SearchListener`."""
        self.events.append("trial")

    def kernel_finished(self, assignment: TrialAssignment, best: Record | None) -> None:
        """See `SearchListener`."""
        self.events.append("end" if best else "end without any")


def bench_of(profile: DeviceProfile, workers: Workers, watch: Any = None) -> Bench:
    """Return a bench whose agents nobody asks."""
    return Bench(Agents(profile, Endpoint("127.0.0.1", 1, "pi4")), workers, watch)  # type: ignore[arg-type]


def tuned(folder: Path, answer: Callable[[TrialJob], Any], trials: int, deadlines: Deadlines = DEADLINES) -> tuple[Workers, Heard]:
    workers, heard = Workers(answer), Heard()
    database = Database(IDENTITY, (), folder)
    assignments = assign(TASKS, database, trials, PROFILE.target)
    tune(assignments, database, bench_of(PROFILE, workers), heard, Search(deadlines=deadlines))
    return workers, heard


def well(job: TrialJob) -> Outcome:
    return Outcome(200.0 + hash(job.schedule) % 100, cycles=1000)


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "OUTAGE_PAUSE_S", 0.0)


def test_every_kernel_gets_its_trials_and_a_second_run_none(tmp_path: Path) -> None:
    workers, heard = tuned(tmp_path, well, 10)
    assert heard.events == (["start"] + 10 * ["trial"] + ["end"]) * 2 and len(workers.jobs) == 20
    assert len(Database(IDENTITY, (tmp_path,), None)) == 20
    workers, heard = tuned(tmp_path, well, 10)
    assert workers.jobs == [] and heard.events == []
    workers, _ = tuned(tmp_path, well, 13)
    assert len(workers.jobs) == 6 and len(Database(IDENTITY, (tmp_path,), None)) == 26


def test_a_worker_may_wait_as_long_as_a_session_lasts(tmp_path: Path) -> None:
    """Longer by the clock than its limits say, where this machine is busy with other work."""
    workers, database = Workers(well), Database(IDENTITY, (), tmp_path)
    bench = bench_of(PROFILE, workers)
    busy = replace(bench, agents=replace(bench.agents, endpoint=replace(bench.agents.endpoint, stretch=30.0)))
    tune(assign(TASKS, database, 3, PROFILE.target), database, busy, Heard(), Search(deadlines=Deadlines(run_s=4, trial_s=12)))
    assert workers.timeouts_s == {360.0} and {(job.timeout_s, job.build_s) for job in workers.jobs} == {(4, 12)}


def test_an_interruption_loses_only_what_was_under_way(tmp_path: Path) -> None:
    answered = 0

    def interrupted(job: TrialJob) -> Outcome:
        nonlocal answered
        if answered == 5:
            raise KeyboardInterrupt
        answered += 1
        return well(job)

    with pytest.raises(KeyboardInterrupt):
        tuned(tmp_path, interrupted, 10)
    assert len(Database(IDENTITY, (tmp_path,), None)) == 5
    workers, _ = tuned(tmp_path, well, 10)
    assert len(workers.jobs) == 15


def test_failures_are_records_and_nothing_best(tmp_path: Path) -> None:
    def failing(job: TrialJob) -> Any:
        return WorkerError("not done within 90 s") if hash(job.schedule) % 2 else Outcome(None, error="killed by SIGSEGV")

    _, heard = tuned(tmp_path, failing, 10)
    assert heard.events.count("trial") == 20 and heard.events.count("end without any") == 2
    database = Database(IDENTITY, (tmp_path,), None)
    assert all(database.best(task) is None for task in TASKS)
    assert {record.error for task in TASKS for record in database.records(task)} == {"not done within 90 s", "killed by SIGSEGV"}


def test_an_outage_is_not_the_schedules_fault(tmp_path: Path) -> None:
    lost: set[object] = set()

    def flaky(job: TrialJob) -> Outcome:
        if (job.task, job.schedule) in lost:
            return well(job)
        lost.add((job.task, job.schedule))
        return Outcome(None, error="the agent went away", outage=True)

    workers, _ = tuned(tmp_path, flaky, 10)
    assert len(workers.jobs) == 40  # each twice
    database = Database(IDENTITY, (tmp_path,), None)
    assert len(database) == 20 and all(record.latency_us for task in TASKS for record in database.records(task))


def test_a_device_that_stays_away_ends_the_run_and_leaves_no_failures(tmp_path: Path) -> None:
    first = next(iter(TASKS))

    def gone(job: TrialJob) -> Outcome:
        return well(job) if job.task == first else Outcome(None, error="no agent of 'pi4' was free", outage=True)

    with pytest.raises(DeviceUnavailable, match="pi4-virtual went away: no agent of 'pi4' was free") as caught:
        tuned(tmp_path, gone, 10, Deadlines(outage_s=0.2))
    assert "run the same command again" in caught.value.remedy
    database = Database(IDENTITY, (tmp_path,), None)
    assert [len(database.records(task)) for task in TASKS] == [10, 0]


def test_a_device_that_is_lost_for_good_ends_the_run_at_once(tmp_path: Path) -> None:
    def gone(_job: TrialJob) -> Outcome:
        return Outcome(None, error="the tracker cannot be asked", outage=True, final=True)

    with pytest.raises(DeviceUnavailable, match="went away: the tracker cannot be asked"):
        tuned(tmp_path, gone, 10)
    assert len(Database(IDENTITY, (tmp_path,), None)) == 0


class Watch:
    """Says of the first `bad` batches that something spoiled them."""

    def __init__(self, bad: int) -> None:
        self.bad, self.looked = bad, 0

    def wait_until_cool(self) -> int:
        return self.looked

    def read(self) -> int:
        self.looked += 1
        return self.looked

    def spoiled(self, before: int, after: int) -> str:
        return "it was throttled" if after <= self.bad else ""


def watched(folder: Path, watch: Watch) -> tuple[Workers, Database]:
    workers, database = Workers(well), Database(IDENTITY, (), folder)
    assignments = assign(TASKS, database, 8, PROFILE.target)
    board = replace(PROFILE, origin=MEASURED)
    tune(assignments, database, bench_of(board, workers, watch), Heard())
    return workers, database


def test_a_spoiled_batch_is_measured_again_before_it_counts(tmp_path: Path) -> None:
    workers, database = watched(tmp_path, Watch(2))
    assert len(workers.jobs) == 3 * 16 and len(database) == 16  # all of them were under way each time
    with pytest.raises(DeviceUnavailable, match="cannot be measured: it was throttled, 3 times in a row"):
        watched(tmp_path / "hot", Watch(3))
    assert len(Database(IDENTITY, (tmp_path / "hot",), None)) == 0


class Ahead(Workers):
    """Begins four jobs before it gives out the first answer, as workers with boards to wait for do."""

    def run(self, function: object, jobs: Iterable[TrialJob], timeout_s: float) -> Iterator[tuple[TrialJob, Any]]:
        """Answer jobs as `workers.Workers.run` does."""
        source, begun = iter(jobs), deque[tuple[TrialJob, Any]]()
        while True:
            begun += [(job, self.answer(job)) for job in itertools.islice(source, 4 - len(begun))]
            if not begun:
                return
            yield begun.popleft()


class Throttling:
    """A board, and a watch over it, whose clocks are held down from its sixth job on until it is left alone."""

    def __init__(self) -> None:
        self.jobs, self.throttled = 0, False

    def answer(self, job: TrialJob) -> Outcome:
        """Return one job's, slower where the clocks were held down."""
        self.jobs += 1
        self.throttled = self.throttled or self.jobs == 6
        return Outcome(99.0 if self.throttled else 1.0)

    def wait_until_cool(self) -> bool:
        self.throttled = False
        return False

    def read(self) -> bool:
        return self.throttled

    def spoiled(self, before: bool, after: bool) -> str:
        return "it was throttled" if before or after else ""


def test_what_was_under_way_on_a_spoiled_board_never_counts(tmp_path: Path) -> None:
    board, database = Throttling(), Database(IDENTITY, (), tmp_path)
    profile = replace(PROFILE, origin=MEASURED)
    assignments = assign(TASKS, database, 12, PROFILE.target)
    tune(assignments, database, bench_of(profile, Ahead(board.answer), board), Heard())
    records = [record for task in TASKS for record in database.records(task)]
    assert len(records) == 24 and {record.latency_us for record in records} == {1.0}


def test_a_small_space_is_enough(tmp_path: Path) -> None:
    _, heard = tuned(tmp_path, well, 100_000)
    assert heard.events.count("end") == 2
    assert all(assignment.missing == 0 for assignment in assign(TASKS, Database(IDENTITY, (tmp_path,), None), 100_000, PROFILE.target))
