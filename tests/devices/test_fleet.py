"""Several boards of one name: they share a tuning run's candidates, and none waits for another."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import CommandLine
from quiet_listener import Quiet
from registered_boards import make_board, make_home, register
from waiting import wait_until

from tvmmobile.devices.agents.rpc import open_session
from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.running.bench import started_bench
from tvmmobile.running.measure import MeasureError
from tvmmobile.system.workers import JOBS_EACH, Workers, worker_count
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search.trial import Outcome, TrialJob, run_trial
from tvmmobile.tuning.search.tuner import Search, TrialAssignment, assign, tune

#: Two kernels with an odd number of candidates: a pause after each kernel would cost a third.
TASKS = {Task((Conv2d(7, 7, 16, 16),)): None, Task((Conv2d(7, 7, 32, 16),)): None}
CANDIDATES = 3
SOURCE = r"""
#include <time.h>
int __tvm_ffi_pause(void *self, void *args, int count, void *result)
{
    struct timespec two_seconds = {2, 0};
    nanosleep(&two_seconds, 0);
    return 0;
}
"""


class Prebuilt(Workers):
    """Workers for which every candidate is the same library, already built.

    Attributes:
        library: the library that is already built.
    """

    library = Path()

    def run(self, function: Callable[[Any], Any], jobs: Iterable[Any], timeout_s: float) -> Iterator[tuple[Any, Any]]:
        """See `Workers.run`."""
        return super().run(functools.partial(run_prebuilt, self.library) if function is run_trial else function, jobs, timeout_s)


def run_prebuilt(library: Path, job: TrialJob) -> Outcome:
    """Return a candidate's second half."""
    try:
        run = job.agents.measure_kernel(library, "pause", [np.zeros(1, np.float32)], job.timeout_s)
    except MeasureError as error:
        return Outcome(None, error=error.reason, outage=error.kind in ("link", "host"), final=error.kind == "host")
    return Outcome(run.latency.seconds * 1e6)


def wait_for_all(meeting: tuple[Path, int]) -> None:
    """Returns once as many processes as that have come here."""
    folder, count = meeting
    (folder / str(os.getpid())).touch()
    wait_until(lambda: len(list(folder.iterdir())) >= count, "all workers", 60)


class Silent(Quiet):
    """A listener that notes the order of events."""

    def __init__(self) -> None:
        super().__init__()
        self.finished: list[Task] = []

    def kernel_finished(self, assignment: TrialAssignment, best: Record | None) -> None:
        """See `SearchListener`."""
        assert sum(record.task == assignment.task for record in self.records) == CANDIDATES
        self.finished.append(assignment.task)


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prebuilt]:
    """Yield as many workers as two boards get, all of them ready."""
    with Prebuilt(worker_count(CANDIDATES, 2)) as workers:
        list(workers.run(wait_for_all, [(tmp_path_factory.mktemp("meeting"), workers.count)] * workers.count, 90))
        yield workers


def seconds_of_tuning(device: HardwareDevice, workers: Workers, folder: Path) -> float:
    """Return the time that all candidates take once everything is running."""
    profile, listener = device.profile, Silent()
    database = Database(Identity.of(profile), (), folder / "logs")
    with started_bench(device, workers) as bench:
        with contextlib.ExitStack() as sessions:
            for _ in range(device.boards):
                sessions.enter_context(open_session(bench.agents.endpoint, 30))
        import tvm  # noqa: F401  # by the first that needs it, which takes seconds

        assignments = assign(TASKS, database, CANDIDATES, profile.target)
        begin = time.monotonic()
        tune(assignments, database, bench, listener, Search("random"))
        seconds = time.monotonic() - begin
    assert listener.finished == list(TASKS)
    records = [record for task in TASKS for record in database.records(task)]
    assert len(records) == CANDIDATES * len(TASKS)
    assert all(record.latency_us is not None and record.latency_us > 2e6 for record in records), [record.error for record in records]
    return seconds


@pytest.mark.long
@pytest.mark.virtual
def test_two_boards_take_half_the_time_of_one(workers: Prebuilt, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    source, library = tmp_path / "pause.c", tmp_path / "pause.so"
    source.write_text(SOURCE)
    subprocess.run(["aarch64-linux-gnu-gcc", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    home = make_home(tmp_path, monkeypatch)
    boards = [make_board(tmp_path / name, home) for name in ("one", "two")]
    try:
        workers.library = library
        alone = seconds_of_tuning(HardwareDevice(register(cli, boards[0])), workers, tmp_path / "alone")
        both = seconds_of_tuning(HardwareDevice(register(cli, boards[1], "desk", "--join")), workers, tmp_path / "both")
        print(f"{alone:.1f} s on one board, {both:.1f} s on two")
        assert alone / both >= 1.8, f"{alone:.1f} s on one board, {both:.1f} s on two"
        assert [board.leftovers() for board in boards] == [[], []]
    finally:
        for board in boards:
            board.server.stop()


def test_workers_follow_the_boards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4))
    assert [worker_count(jobs) for jobs in (1, 3, 8)] == [1, 3, 4]
    assert [worker_count(1, boards) for boards in (1, 2, 10)] == [3, 6, 14]


def test_jobs_are_taken_as_workers_are_free(workers: Prebuilt) -> None:
    started: list[int] = []

    def source() -> Iterator[int]:
        for number in range(20):
            started.append(number)
            yield number

    done = [(number, len(started)) for number, _ in workers.run(abs, source(), 30)]
    assert sorted(number for number, _ in done) == list(range(20))
    assert all(ahead <= finished + JOBS_EACH * workers.count for finished, (_, ahead) in enumerate(done))
