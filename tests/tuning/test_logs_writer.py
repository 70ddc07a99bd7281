"""One process at a time tunes into a log directory: the next is told at once by whom, and can go on as soon as that has ended."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from commands import Command, ended_here
from conftest import CommandLine
from log_samples import PI, content, old_log, read_log, some_records, write_log

from tvmmobile.system.errors import UserError
from tvmmobile.system.files import set_aside
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.logs.files import writing

SMALL = ("--alpha", "0.25", "--resolution", "32", "--trials", "1")
# Holds the right to write, says so together with the number of a process that it started, and waits for its input to end.
HOLDER = """
import subprocess, sys
from pathlib import Path
from tvmmobile.tuning.logs.files import writing
with writing(Path(sys.argv[1]), sys.argv[2]):
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    print(child.pid, flush=True)
    sys.stdin.read()
    child.kill()
    child.wait()
"""


class Holder:
    """Another process that is writing."""

    def __init__(self, directory: Path, repository: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(directory), PI.device],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=repository,
            start_new_session=True,
        )
        assert self.process.stdin is not None and self.process.stdout is not None
        self.child = int(self.process.stdout.readline())

    @property
    def complaint(self) -> str:
        """How it is named."""
        return f"process {self.process.pid} on {socket.gethostname()} is writing tuning records of {PI.device} to "

    def end(self) -> None:
        self.process.communicate(timeout=30)


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    return tmp_path / "logs"


@pytest.fixture
def holder(logs: Path, repository: Path) -> Iterator[Holder]:
    """It writes to `logs`; what it started outlives it until the test is over."""
    found = Holder(logs, repository)
    yield found
    if found.process.poll() is None:
        found.end()


def test_the_second_is_told_who_is_first(logs: Path, holder: Holder) -> None:
    with pytest.raises(UserError) as caught, writing(logs, PI.device):
        pass
    assert caught.value.message == f"{holder.complaint}{logs}." and caught.value.exit_code == 1
    assert "name another directory" in caught.value.remedy
    with pytest.raises(UserError, match=f"process {holder.process.pid} "), Database(PI, (), logs).writing():
        pass
    holder.end()
    with writing(logs, PI.device), pytest.raises(UserError, match="is writing tuning records"), writing(logs, PI.device):
        pass
    with writing(logs, PI.device):  # it can be had again
        pass


def test_other_devices_and_directories_are_free(tmp_path: Path, logs: Path, holder: Holder) -> None:
    with writing(logs, "pi5-virtual"), writing(tmp_path, PI.device):
        for lock in (logs / "pi5-virtual" / "writer.lock", tmp_path / PI.device / "writer.lock"):
            assert lock.read_text().startswith(f"process {os.getpid()} ")


def test_a_killed_writer_is_none(logs: Path, holder: Holder) -> None:
    holder.process.kill()
    holder.process.wait(30)
    try:
        assert (logs / PI.device / "writer.lock").read_text().startswith(f"process {holder.process.pid} ")
        with writing(logs, PI.device):  # though what it started is still there
            assert psutil.pid_exists(holder.child)
    finally:
        os.kill(holder.child, signal.SIGKILL)


def test_logs_can_be_read_and_repaired_meanwhile(cli: CommandLine, logs: Path, holder: Holder) -> None:
    path = write_log(logs)
    path.open("ab").write(b"torn")
    assert len(read_log(logs)) == 8
    assert cli("logs", "show", "--logs", str(logs)).code == 0
    assert cli("logs", "verify", "--repair", "--logs", str(logs)).code == 0


def test_merge_and_rescore_wait_for_nobody(cli: CommandLine, tmp_path: Path, logs: Path, holder: Holder) -> None:
    write_log(tmp_path / "from", some_records(3))
    old_log(logs, 2)
    before = content(logs)
    for words in (("merge", str(tmp_path / "from"), "--into", str(logs)), ("rescore", "--logs", str(logs))):
        outcome = cli("logs", *words)
        assert outcome.code == 1 and f"error: {holder.complaint}{logs}.\n" in outcome.err
    assert content(logs) == before


def test_a_writer_may_set_its_directory_aside(logs: Path) -> None:
    write_log(logs)
    with writing(logs, PI.device):
        set_aside(logs)
    assert not logs.exists() and len(list(logs.parent.iterdir())) == 1
    with writing(logs, PI.device):
        pass


def test_the_lock_follows_no_link(tmp_path: Path, logs: Path) -> None:
    (tmp_path / "important").write_text("content")
    (logs / PI.device).mkdir(parents=True)
    (logs / PI.device / "writer.lock").symlink_to(tmp_path / "important")
    with pytest.raises(UserError, match="tuning records cannot be written"), writing(logs, PI.device):
        pass
    assert (tmp_path / "important").read_text() == "content"


@pytest.mark.virtual
def test_tune_beside_a_writer(tmp_path: Path, logs: Path, holder: Holder) -> None:
    command = Command(tmp_path, "tune", *SMALL, "--logs", str(logs), "--out", str(tmp_path / "out"))
    assert command.wait()[0] == 1
    assert command.errors == (f"tvmmobile: error: {holder.complaint}{logs}.\nWait for it to finish, or name another directory.\n")
    assert content(logs) == {} and command.leftovers() == []


@pytest.mark.virtual
@pytest.mark.parametrize("device", ["pi4-virtual", "pi5-virtual"])
def test_fresh_does_not_move_a_writers_directory_away(tmp_path: Path, repository: Path, device: str) -> None:
    """Nor that of a run for another device, which is in the same directory."""
    logs = tmp_path / "out" / "tuning_logs"
    holder = Holder(logs, repository)
    done = ended_here(tmp_path, "tune", *SMALL, "--device", device, "--fresh", "--out", str(tmp_path / "out"))
    assert done.code == 1 and holder.complaint in done.errors
    holder.end()
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tuning_logs"]


@pytest.mark.virtual
def test_tune_is_a_writer_until_it_is_killed(tmp_path: Path, logs: Path) -> None:
    command = Command(tmp_path, "tune", *SMALL, "--logs", str(logs), "--out", str(tmp_path / "out"))
    lock = logs / PI.device / "writer.lock"
    command.wait_until(lambda: lock.exists() and lock.stat().st_size > 0)
    with pytest.raises(UserError, match=rf"process \d+ on {socket.gethostname()} is writing"), writing(logs, PI.device):
        pass
    command.signal_group(signal.SIGKILL)
    assert command.wait(30)[0] == -signal.SIGKILL
    with writing(logs, PI.device):
        pass
    assert command.leftovers() == []
    kinds = {entry.name.split("-")[1] for entry in command.temporary.iterdir()}
    assert kinds <= {"workers", "sockets", "prepared", "board"}, kinds  # they go with the next run, see docs/tune.md
