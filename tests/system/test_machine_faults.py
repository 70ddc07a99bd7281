"""Tests of failures of this machine: a full disk under the log, workers that die, a terminated command."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from commands import Command
from small_disk import mounted_disk

from tvmmobile.devices.protocol import MEASURED, Endpoint, NotStored
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.layers import Dense
from tvmmobile.graph.tasks import Task
from tvmmobile.pipeline.checking import handed_over
from tvmmobile.pipeline.stages.jobs import succeeded
from tvmmobile.running.measure import Agents, MeasureError
from tvmmobile.schedules import template_for
from tvmmobile.system.errors import DeviceUnavailable, ExitCode, UserError
from tvmmobile.system.files import filling_cache, write_text
from tvmmobile.system.workers import WorkerError, Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity, Record
from tvmmobile.tuning.search import trial

IDENTITY = Identity("board", MEASURED)
TASK = Task((Dense(64, 64),))
# Appends until it fails, in a process whose files may not grow beyond a limit: what a full disk does to a write, half of it included.
FILL = """
import resource, sys
from pathlib import Path
import test_machine_faults as here
from tvmmobile.system.errors import UserError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
database = here.Database(here.IDENTITY, (), Path(sys.argv[1]))
try:
    for record in here.some_records():
        database.append([record])
        print("kept")
except UserError as error:
    print(error, file=sys.stderr)
"""


def some_records() -> list[Record]:
    """Twelve records of one task."""
    template = template_for(TASK)
    space = template.space(TASK) if template else None
    assert space is not None
    return [Record(TASK, schedule, float(index)) for index, schedule in enumerate(space.unpruned(), 1)][:12]


@pytest.mark.parametrize("torn", ["", '{"v":1,"na'])
def test_a_full_disk_leaves_no_half_record(tmp_path: Path, torn: str) -> None:
    log = tmp_path / "board" / "float32_t1.jsonl"
    if torn:
        log.parent.mkdir()
        log.write_text(torn)
    paths = os.pathsep.join(str(Path(__file__).parents[1] / folder) for folder in ("system", "support", "."))
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([sys.executable, "-c", FILL, str(tmp_path), "2000"], capture_output=True, text=True, env=environment)
    kept = done.stdout.count("kept")
    assert 2 < kept < 12
    assert done.stderr.startswith(f"tuning records cannot be written to {tmp_path}: File too large.\n")
    content = log.read_text()
    assert content.endswith("\n")
    assert len([json.loads(line) for line in content.splitlines()[bool(torn) :]]) == kept
    again = Database(IDENTITY, (), tmp_path)
    again.append(some_records())  # there is room again
    assert len(Database(IDENTITY, (tmp_path,), None).records(TASK)) == 12


def test_a_full_disk_is_not_the_candidates_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    job = trial.TrialJob(TASK, some_records()[0].schedule, None, Agents(find_device("pi4").profile, Endpoint("127.0.0.1", 1, "pi4")))
    monkeypatch.setattr(trial, "compile_kernel", full)
    monkeypatch.setattr(trial, "kernel_function", lambda *_: None)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        trial.run_trial(job)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    with mounted_disk(tmp_path / "small", "64k") as folder:
        yield folder


def test_a_full_disk_leaves_the_old_file_and_names_it(small_disk: Path) -> None:
    path = small_disk / "report.json"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left") as caught:
        write_text(path, "new" * 40_000)
    assert caught.value.filename == str(path) and path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_a_library_that_does_not_fit_names_the_full_disk(small_disk: Path) -> None:
    """It was made on another disk, which is not full."""
    with pytest.raises(OSError, match="No space left") as caught, handed_over(small_disk) as folder:
        (folder / "net.so").write_bytes(bytes(120_000))
    assert caught.value.filename == str(small_disk / "net.so") and list(small_disk.iterdir()) == []


def test_a_full_cache_is_named(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TVMMOBILE_CACHE", str(small_disk))
    with pytest.raises(UserError, match=f"^the cache {small_disk} cannot be written: No space left on device"), filling_cache():
        write_text(small_disk / "helper", "x" * 100_000)


def test_a_linker_without_disk_is_not_the_candidates_fault(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("ld: final link failed: No space left on device")

    job = trial.TrialJob(TASK, some_records()[0].schedule, None, Agents(find_device("pi4").profile, Endpoint("127.0.0.1", 1, "pi4")))
    monkeypatch.setattr(trial, "compile_kernel", full)
    monkeypatch.setattr(trial, "kernel_function", lambda *_: None)
    assert "does not build: ld:" in str(trial.run_trial(job))
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(OSError, match="No space left") as caught:
        trial.run_trial(job)
    assert caught.value.filename.startswith(str(small_disk))


@pytest.mark.parametrize("error", [NotStored("net.so", 10 << 20), RuntimeError("the profile is half there"), MeasureError("why", "link")])
def test_a_virtual_boards_full_disk_is_no_outage(small_disk: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[None]:
        yield
        raise error

    monkeypatch.setattr("tvmmobile.running.measure.open_session", opened)
    agents = Agents(find_device("pi4").profile, Endpoint("127.0.0.1", 1, "pi4"))
    with pytest.raises(MeasureError), agents.session(1):
        pass
    monkeypatch.setattr("tempfile.tempdir", str(small_disk))
    with pytest.raises(OSError, match="No space left") as caught, agents.session(1):
        pass
    assert caught.value.filename == str(small_disk)


@pytest.mark.parametrize(
    ("number", "reason", "remedy"),
    [
        (0, "its disk is full, or read-only", "See df -h there."),
        (errno.ENOSPC, "its disk is full", "Free some megabytes there."),
        (errno.EDQUOT, "its user's quota is used up", "Free some megabytes there."),
        (errno.EROFS, "its disk is read-only", "Restart it, and read dmesg there: Linux makes a failing disk read-only."),
        (errno.ENOENT, "No such file or directory", "See df -h and dmesg there."),
    ],
)
def test_a_board_that_stores_nothing_is_no_outage(monkeypatch: pytest.MonkeyPatch, number: int, reason: str, remedy: str) -> None:
    @contextmanager
    def opened(*_: object) -> Iterator[None]:
        yield
        raise NotStored("net.so", 10 << 20, number)

    monkeypatch.setattr("tvmmobile.running.measure.open_session", opened)
    profile = replace(find_device("pi4").profile, origin=MEASURED)
    agents = Agents(profile, Endpoint("127.0.0.1", 1, "pi4"))
    with pytest.raises(DeviceUnavailable) as caught, agents.session(1):
        pass
    assert caught.value.message == f"{profile.name} cannot store net.so (10485760 bytes): {reason}."
    assert caught.value.remedy == f"{remedy} Finished measurements are kept; run the same command again." and caught.value.again


@pytest.mark.parametrize(("ends", "reason"), [("KILL SEGV", "SEGV"), ("KILL KILL", "KILL"), ("SEGV", "SEGV")])
def test_a_session_that_somebody_killed_is_tried_once_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends: str, reason: str) -> None:
    left = ends.split()

    def ending(*_: object) -> None:
        raise RuntimeError(f"tvmmobile session crashed: killed by SIG{left.pop(0)}")

    monkeypatch.setattr("tvmmobile.running.measure.open_session", ending)
    with pytest.raises(MeasureError) as caught:
        Agents(find_device("pi4").profile, Endpoint("127.0.0.1", 1, "pi4", "")).measure_kernel(tmp_path / "net.so", "main", [], 1)
    assert (caught.value.reason, left) == (f"killed by SIG{reason}", [])


def misbehave(kind: str) -> str:
    """A job for a worker."""
    if kind == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "hang":
        time.sleep(600)
    Path(os.environ["TMPDIR"], "left").touch()
    return kind


def test_workers_outlast_their_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Workers(2) as workers:
        found = dict(workers.run(misbehave, ["well", "die", "hang", "still well"], 2))
        assert list(tmp_path.glob("*/left"))
    assert found["well"] == "well" and found["still well"] == "still well"
    assert isinstance(found["die"], WorkerError) and str(found["die"]) == "its worker process died (exit code -9)"
    with pytest.raises(UserError, match=r"^building net failed: its process was killed, as happens where memory runs out") as caught:
        succeeded(found["die"], "building net")
    assert caught.value.exit_code == ExitCode.USAGE
    assert isinstance(found["hang"], WorkerError) and str(found["hang"]) == "not done within 2 s"
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_jobs_may_take_longer_on_an_emulated_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tvmmobile.system.workers.slowdown", lambda: 5.0)
    with Workers(1) as workers:
        ((_, hung),) = workers.run(misbehave, ["hang"], 0.4)
    assert isinstance(hung, WorkerError) and str(hung) == "not done within 2 s"


@pytest.mark.virtual
@pytest.mark.parametrize(
    ("number", "code", "message"), [(signal.SIGINT, 130, "tvmmobile: interrupted\n"), (signal.SIGTERM, 143, ""), (signal.SIGHUP, 129, "")]
)
def test_a_command_ended_while_it_starts_cleans_up(tmp_path: Path, number: signal.Signals, code: int, message: str) -> None:
    variant = ("--alpha", "0.25", "--resolution", "32")
    command = Command(tmp_path, "tune", *variant, "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    command.wait_until(lambda: any(command.temporary.glob("tvmmobile-workers-*")) and len(command.children()) > 1)
    command.signal_group(number)
    assert command.wait(30)[0] == code
    assert command.errors == message and command.leftovers() == []
    assert list(command.temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("variable", "place"), [("TVMMOBILE_CACHE", "/proc/nowhere/torchinductor"), ("TORCHINDUCTOR_CACHE_DIR", "/proc/nowhere")]
)
def test_a_cache_that_cannot_be_written_is_named(monkeypatch: pytest.MonkeyPatch, variable: str, place: str) -> None:
    """Before PyTorch looks for it, which would break off half imported."""
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    monkeypatch.setenv(variable, "/proc/nowhere")  # nobody can create anything there, root included
    with pytest.raises(UserError, match=f"^the cache {place} cannot be written: No such file or directory") as caught:
        Workers(1)
    assert caught.value.remedy == f"Set {variable} to a folder that can be written."
