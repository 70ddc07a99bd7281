"""Workers that somebody else kills, as the kernel does when memory runs out: no job is blamed for it, and none is lost."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import psutil
import pytest

from tvmmobile.system.errors import UserError
from tvmmobile.system.workers import WorkerError, Workers, processor_limit


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Two, which the tests kill one after another."""
    with Workers(2, folder=tmp_path_factory.mktemp("workers")) as found:
        yield found


def note(folder: Path) -> int:
    """Leaves its process id in a file of that folder; waits there the first time. Returns how often it was begun."""
    begun = len(list(folder.iterdir())) + 1
    Path(folder, f"{begun}-{os.getpid()}").touch()
    if begun == 1:
        time.sleep(30)
    return begun


def die(_: Path) -> int:
    """Ends its worker."""
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def loop(_: Path) -> int:
    """Computes for ever, after a while in which it may."""
    with processor_limit(60.0):
        pass
    with processor_limit(0.3):
        while True:
            pass


def begun(*folders: Path) -> list[int]:
    """Waits until jobs are under way in all folders; their processes."""
    deadline = time.monotonic() + 60
    while not all(any(folder.iterdir()) for folder in folders):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [int(path.name.split("-")[1]) for folder in folders for path in folder.iterdir()]


def run_and_kill(workers: Workers, folders: list[Path], victim: str) -> dict[Path, int | WorkerError]:
    """Return the jobs' results, where somebody kills something once they are under way."""
    for folder in folders:
        folder.mkdir()

    def jobs() -> Iterator[Path]:
        yield from folders
        processes = begun(*folders[:2])
        if victim == "the process they are forked from":
            processes = [forkserver._forkserver._forkserver_pid]  # type: ignore[attr-defined]
        elif victim == "another one":
            own = set(processes)
            idle = [child.pid for pid in own for child in psutil.Process(pid).parent().children() if child.pid not in own]
            processes = idle[:1]
        assert processes
        for process in processes:
            os.kill(process, signal.SIGKILL)

    return dict(workers.run(note, jobs(), 60))


@pytest.mark.parametrize(
    ("victim", "count"),
    [("its worker", 1), ("both", 2), ("another one", 1), pytest.param("the process they are forked from", 2, marks=pytest.mark.long)],
)
def test_a_job_is_not_blamed_for_a_kill_from_outside(workers: Workers, tmp_path: Path, victim: str, count: int) -> None:
    folders = [tmp_path / str(number) for number in range(count)]
    assert run_and_kill(workers, folders, victim) == dict.fromkeys(folders, 2)
    assert [len(list(folder.iterdir())) for folder in folders] == [2] * count  # once more, and no more than that


def test_a_job_that_kills_its_worker_again_is_blamed(workers: Workers, tmp_path: Path) -> None:
    ((_, result),) = workers.run(die, [tmp_path], 60)
    assert isinstance(result, WorkerError) and str(result) == "its worker process died (exit code -9)"


def test_a_job_that_takes_too_much_processor_time_is_ended(workers: Workers, tmp_path: Path) -> None:
    ((_, result),) = workers.run(loop, [tmp_path], 60)
    assert isinstance(result, WorkerError) and str(result) == "it took too much processor time"


def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


def start_and_double() -> None:
    """Double a number with workers of its own."""
    with Workers(1) as own:
        assert list(own.run(double, [3], 60)) == [(3, 6)]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_users_daemons_have_workers_of_their_own(workers: Workers, method: str) -> None:
    """Processes of a `multiprocessing.Pool` are daemons, which may not have children; of a copy, the fork server is a sibling."""
    assert list(workers.run(double, [1], 60)) == [(1, 2)]
    context: Any = multiprocessing.get_context(method)
    process = context.Process(target=start_and_double, daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode == 0


def test_starting_is_tried_until_what_they_are_forked_from_is_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect, refused = (
        forkserver.connect_to_new_process,
        [ConnectionRefusedError(errno.ECONNREFUSED, "refused"), EOFError("unexpected EOF")],
    )

    def dying(descriptors: list[int]) -> Any:
        if refused:
            raise refused.pop()
        return connect(descriptors)

    monkeypatch.setattr(forkserver, "connect_to_new_process", dying)
    monkeypatch.setattr("tvmmobile.system.workers._PAUSES_S", (0.0, 0.0))
    with Workers(1, folder=tmp_path) as workers:
        assert list(workers.run(len, ["four"], 60)) == [("four", 4)]
    refused += [ConnectionRefusedError(errno.ECONNREFUSED, "refused")] * 10
    with pytest.raises(UserError, match=r"^worker processes cannot be started: \[Errno 111\] refused\."):
        Workers(1, folder=tmp_path)
    assert len(refused) == 7 and list(tmp_path.iterdir()) == []


def test_workers_that_cannot_start_are_no_jobs_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_PLUGINS", "no_such_module")
    found = Workers(1, folder=tmp_path)
    with found as workers, pytest.raises(UserError, match=r"^worker processes died 3 times while they started\.\n"):
        list(workers.run(note, [tmp_path], 60))
    assert list(tmp_path.iterdir()) == []


def test_workers_are_reached_through_a_folder_of_the_users_own(workers: Workers, tmp_path: Path) -> None:
    """multiprocessing's sockets take pickles from whoever connects: none may be in the abstract namespace, which has no owner."""
    assert list(workers.run(str, [tmp_path], 30)) == [(tmp_path, str(tmp_path))]
    family = [psutil.Process(), *psutil.Process().children(recursive=True)]
    named = {str(connection.laddr) for process in family for connection in process.net_connections("unix") if connection.laddr}
    assert not any(name.startswith(("@", "\0")) for name in named)
    sockets = [Path(name) for name in named if "pymp-" in name]
    assert sockets and all(path.parent.stat().st_mode & 0o077 == 0 for path in sockets)
