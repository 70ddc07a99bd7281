"""Commands interrupted, terminated or killed at any moment, on a virtual board, one behind SSH and this machine: what they leave."""

from __future__ import annotations

import contextlib
import multiprocessing.forkserver
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures._base import _AcquireFutures  # type: ignore[attr-defined]
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pebble
import psutil
import pytest
from commands import Command, records
from conftest import CommandLine
from registered_boards import TestBoard, make_board, make_home, make_local_board, register

from tvmmobile.system.workers import Workers

pytestmark = pytest.mark.virtual
SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")
#: How far a command is before the random rest of a moment, which is at most this long.
PHASES = ("begun", "with workers", "with agents", "measuring")
MOST_DELAY_S = 2.0
MOMENTS = 10


@dataclass(frozen=True)
class Place:
    """The surroundings of commands: their folder, the device, and the real board behind it, if any."""

    folder: Path
    device: str
    board: TestBoard | None = None

    @property
    def logs(self) -> Path:
        """The tuning logs, which commands go on with."""
        return self.folder / "logs"

    @property
    def libraries(self) -> Path:
        """The libraries that `compile` has made."""
        return self.folder / "out"

    def tune(self) -> Command:
        """Start `tune`."""
        words = ("tune", "--device", self.device, *SMALL, "--trials", "1", "--strategy", "random")
        return Command(self.folder, *words, "--logs", str(self.logs), "--out", str(self.libraries))

    def bench(self) -> Command:
        """Start `bench`, for as long as it may take."""
        return Command(
            self.folder, "bench", str(self.libraries), "--device", self.device, "--out", str(self.folder / "benched"), "--repeat", "100000"
        )

    def leftovers(self, command: Command, ports: set[int]) -> list[str]:
        """Return what a command that ended should not have left; `ports` are those it listened on."""
        found = [*command.leftovers(0), *(path.name for path in command.temporary.iterdir())]
        found += [f"port {port}" for port in ports & _listening()]
        return found + (self.board.leftovers() if self.board else [])

    def agent_folders(self, command: Command, inside: str = "") -> bool:
        """Return whether an agent of the command has its folder, with something of a name in it."""
        folder, pattern = (self.board.directory, "work-*") if self.board else (command.temporary, "tvmmobile-*/agent-*")
        return any(folder.glob(pattern + inside))

    def ports(self, command: Command) -> set[int]:
        """Return the ports that the command listens on, here and on the board."""
        processes = [*command.children(), *(self.board.processes() if self.board else [])]
        found = set()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                found |= {place.laddr.port for place in process.net_connections("tcp") if place.status == psutil.CONN_LISTEN}
        return found


@pytest.fixture
def virtual(tmp_path: Path) -> Place:
    return Place(tmp_path, "pi4")


@pytest.fixture
def behind_ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> Iterator[Place]:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path / "data"))
    try:
        register(cli, board)
        yield Place(tmp_path, "desk", board)
    finally:
        board.stop()


@pytest.fixture
def this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> Place:
    board = make_local_board(tmp_path / "board")
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path / "data"))
    register(cli, board)
    return Place(tmp_path, "desk", board)


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Place:
    """The fixture that a test names."""
    found: Place = request.getfixturevalue(request.param)
    return found


def on(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", names, indirect=True)


def arrive(place: Place, command: Command, phase: str) -> None:
    """Returns once the command is that far."""
    conditions: dict[str, Callable[[], bool]] = {
        "begun": lambda: _catches(command.pid, signal.SIGTERM),  # before that, Python itself is starting
        "with workers": lambda: any(command.temporary.glob("tvmmobile-workers-*")),
        "with agents": lambda: place.agent_folders(command),
        "measuring": lambda: place.agent_folders(command, "/session-*"),
    }
    command.wait_until(conditions[phase])


def ended(place: Place, command: Command, number: signal.Signals, group: bool) -> tuple[int, str]:
    """Send the signal, wait for the end and for everything to be gone; the exit code and what was said."""
    ports = place.ports(command)
    before = len(records(place.logs))
    (command.signal_group if group else command.signal)(number)
    code, _ = command.wait(30)
    assert nothing_of(lambda: place.leftovers(command, ports), 5) == []
    assert len(records(place.logs)) >= before
    return code, command.errors


def nothing_of(find: Callable[[], list[str]], within_s: float) -> list[str]:
    """Return what is still there after a while."""
    deadline = time.monotonic() + within_s
    while (found := find()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def check_interrupted(place: Place, start: Callable[[], Command], phase: str, delay_s: float, group: bool = True) -> None:
    """Send Ctrl-C `delay_s` after the command has reached a phase; check that it says so and exits with 130."""
    command = start()
    arrive(place, command, phase)
    time.sleep(delay_s)
    code, output = ended(place, command, signal.SIGINT, group)
    assert code == 130 and output.endswith("tvmmobile: interrupted\n") and "Traceback" not in output, f"{phase} + {delay_s:.2f} s: {output}"


def moments(seed: int) -> Sequence[tuple[str, float, bool]]:
    """Yield the progress to wait for, a further delay in seconds, and whether the whole process group gets the signal."""
    rng = random.Random(seed)
    return [(PHASES[number % len(PHASES)], rng.random() * MOST_DELAY_S, rng.random() < 0.7) for number in range(MOMENTS)]


def check_resumed(place: Place) -> None:
    """Check that an uninterrupted run works at once and continues from the existing records."""
    before = records(place.logs)
    command = place.tune()
    code, _ = command.wait(600)
    assert code == 0, command.errors
    assert records(place.logs)[: len(before)] == before
    assert place.leftovers(command, set()) == []


#: A verb that Ctrl-C meets while text is executed, as dataclasses do it when modules are imported.
MEETS_CTRL_C = """
from tvmmobile import cli

def fail() -> None:
    exec("raise KeyboardInterrupt")

if __name__ == "__main__":
    cli.VERBS = (cli.Verb("fail", "meets_ctrl_c:fail", "Fails."),)
    cli.main()
"""


def test_the_exit_code_of_an_interrupted_import(tmp_path: Path) -> None:
    (tmp_path / "meets_ctrl_c.py").write_text(MEETS_CTRL_C)
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "meets_ctrl_c", "fail"], env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (130, "tvmmobile: interrupted\n")


@pytest.mark.parametrize(("disposition", "code", "errors"), [(signal.SIG_DFL, 130, "tvmmobile: interrupted\n"), (signal.SIG_IGN, 0, "")])
def test_ctrl_c_while_the_command_line_is_imported(tmp_path: Path, disposition: signal.Handlers, code: int, errors: str) -> None:
    (tmp_path / "typer.py").write_text(
        f"import os, signal, sys\nos.kill(os.getpid(), signal.SIGINT)\nsys.path.remove({str(tmp_path)!r})\n"
        "del sys.modules['typer']\nimport typer\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tvmmobile", "--version"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, sys.path)])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, disposition),  # as `nohup` and scripts' `&` set it
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (code, errors)


def test_little_is_imported_before_ctrl_c_is_handled() -> None:
    """`python -m tvmmobile` imports the package before it runs anything of ours."""
    imports = "import sys; import tvmmobile; print(*sorted({'re', 'typing', 'pathlib', 'inspect'} & {*sys.modules}))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, "-S", "-c", imports], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "\n"), done.stderr


def test_workers_that_start_are_not_broken_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """SIGTERM while a pool starts its processes takes effect once they are started, and then ends them."""

    class Pool(pebble.ProcessPool):  # type: ignore[misc]
        @property
        def active(self) -> bool:
            signal.raise_signal(signal.SIGTERM)
            started.append(super().active)
            return started[-1]

    def end(number: int, _: object) -> None:
        raise SystemExit(number)

    started: list[bool] = []
    monkeypatch.setattr("tvmmobile.system.workers.pebble.ProcessPool", Pool)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = signal.signal(signal.SIGTERM, end)
    try:
        with pytest.raises(SystemExit):
            Workers(1)
        assert signal.getsignal(signal.SIGTERM) is end
    finally:
        signal.signal(signal.SIGTERM, before)
    assert started == [True] and list(tmp_path.iterdir()) == [] and capfd.readouterr().err == ""


def _outlives_sigterm(folder: Path | None) -> None:
    """A job that goes on in spite of SIGTERM, as a compiler does until it is back in Python; `None` is no work."""
    if folder:
        signal.signal(signal.SIGTERM, lambda *_: (folder / "terminated").touch())
        (folder / "begun").touch()
        time.sleep(60)


def _until(path: Path) -> None:
    deadline = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_no_worker_starts_while_a_pool_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool is stopped while it waits for the end of a worker whose job was cancelled: it puts none in its place."""
    forks: list[Any] = []
    fork = multiprocessing.forkserver.connect_to_new_process

    def counting(descriptors: Any) -> Any:
        forks.append(fork(descriptors))
        return forks[-1]

    workers = Workers(1)
    monkeypatch.setattr("multiprocessing.forkserver.connect_to_new_process", counting)
    running = workers.run(_outlives_sigterm, [None, tmp_path], 60)
    try:
        next(running)
        _until(tmp_path / "begun")
        running.close()
        _until(tmp_path / "terminated")
    finally:
        workers.stop()
    assert forks == []


def test_ctrl_c_while_futures_are_locked(monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` locks futures one by one: left between two of them, it would leave the pool's threads waiting for ever."""
    acquire = _AcquireFutures.__enter__
    begun: list[float] = []

    def interrupted(futures: _AcquireFutures) -> None:
        acquire(futures)
        if begun:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(_AcquireFutures, "__enter__", interrupted)
    workers = Workers(1)
    try:
        running = workers.run(time.sleep, [0.0, 1.0, 1.0], 60)
        begun.append(next(running)[0])
        with pytest.raises(KeyboardInterrupt):
            next(running)
        time.sleep(0.5)  # the pool's threads look at what was cancelled
    finally:
        stopping = threading.Thread(target=workers.stop, daemon=True)
        stopping.start()
        stopping.join(20)
    assert not stopping.is_alive()


@pytest.mark.parametrize("place", ["behind_ssh", pytest.param("this_machine", marks=pytest.mark.long)], indirect=True)
def test_two_moments(place: Place) -> None:
    check_interrupted(place, place.tune, "with workers", 0.5)
    check_interrupted(place, place.tune, "measuring", 0.3, group=False)


@pytest.mark.long
@on("virtual", "behind_ssh", "this_machine")
def test_tuning_at_ten_moments(place: Place) -> None:
    for moment in moments(11):
        check_interrupted(place, place.tune, *moment)
    check_resumed(place)


@pytest.mark.long
@on("behind_ssh", "this_machine")
def test_benchmarks_at_ten_moments(place: Place, cli: CommandLine) -> None:
    assert cli("compile", "--device", place.device, *SMALL, "--out", str(place.libraries)).code == 0
    for moment in moments(12):
        check_interrupted(place, place.bench, *moment)


@pytest.mark.long
@on("virtual", "behind_ssh", "this_machine")
def test_a_terminated_command_ends_in_order(place: Place) -> None:
    for phase in PHASES:
        command = place.tune()
        arrive(place, command, phase)
        code, output = ended(place, command, signal.SIGTERM, group=False)
        assert code == 143 and "Traceback" not in output and "error" not in output, f"{phase}: {output}"
    check_interrupted(place, place.tune, "measuring", 0.0)


@pytest.mark.long
@on("virtual", "behind_ssh", "this_machine")
def test_what_a_killed_command_started_ends_by_itself(place: Place) -> None:
    for phase in PHASES[1:]:
        command = place.tune()
        arrive(place, command, phase)
        ports = place.ports(command)
        command.signal(signal.SIGKILL)
        assert command.wait(30)[0] == -signal.SIGKILL

        def left(command: Command = command, ports: set[int] = ports) -> list[str]:
            return [what for what in place.leftovers(command, ports) if not what.startswith("tvmmobile-")]

        assert nothing_of(left, 8) == []
    command = place.tune()  # nobody else holds the board or the logs
    arrive(place, command, "measuring")
    command.signal_group(signal.SIGINT)
    assert command.wait(30)[0] == 130, command.errors
    assert place.leftovers(command, set()) == []  # of those that were killed, neither


@pytest.mark.long
def test_kills_of_any_part_cost_no_record(virtual: Place) -> None:
    """Twenty, of the command, its workers, the board's host, its agents and their sessions, one after another as they come."""
    rng, kills, code = random.Random(13), 0, -1
    while code != 0:
        command = virtual.tune()
        arrive(virtual, command, "measuring")
        while kills < 20 and command.runs:
            time.sleep(0.2 + 1.5 * rng.random())
            with contextlib.suppress(psutil.Error, IndexError):  # it may have just ended
                (psutil.Process(command.pid) if kills % 10 == 9 else rng.choice(command.children())).kill()
                kills += 1
        code = command.wait(600)[0]
        assert code in (0, 3, -signal.SIGKILL), command.errors
    assert kills == 20
    logged = records(virtual.logs)
    assert [record["error"] for record in logged if record.get("error")] == []
    assert nothing_of(lambda: virtual.leftovers(command, set()), 5) == []


def _listening() -> set[int]:
    return {place.laddr.port for place in psutil.net_connections("tcp") if place.status == psutil.CONN_LISTEN}


def _catches(pid: int, number: signal.Signals) -> bool:
    """Return whether a process has a handler of its own for a signal (proc(5), SigCgt)."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (number - 1) & 1)
    return False
