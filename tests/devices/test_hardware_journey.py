"""The whole way on a registered board, and what goes wrong there: every program at both ends is the real one, the board's is under QEMU."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine
from deployed import make_library
from pi4_tree import write_pi4_tree
from quiet_listener import Quiet
from registered_boards import SshBoard, make_board, make_home, register
from ssh_server import Home, Server, new_key
from waiting import wait_until

from tvmmobile.devices.agents.rpc import LinkError, open_session
from tvmmobile.devices.board.hardware import CONTACT_S, HardwareDevice
from tvmmobile.devices.board.registered import registered_names
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.results.file import read_results
from tvmmobile.running.bench import started_bench
from tvmmobile.system.workers import Workers
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.search.tuner import Search, assign, tune

pytestmark = pytest.mark.virtual
SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")
TASK = Task((Conv2d(7, 7, 16, 16, clamp=(0.0, 6.0)),))
#: What befalls a run, in order, and of how many candidates.
LITTLE = (10, ["agent", "link", "agent"])
MUCH = (40, ["agent", "agent", "link", "agent", "agent", "link", "agent"])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    return make_home(tmp_path, monkeypatch)


@pytest.fixture
def board(tmp_path: Path, home: Home) -> Iterator[SshBoard]:
    board = make_board(tmp_path / "board", home)
    yield board
    board.server.stop()


def tuned(device: HardwareDevice, logs: Path, listener: Quiet, candidates: int) -> set[str]:
    """Return the schedules that were measured, those that failed marked."""
    profile = device.profile
    database = Database(Identity.of(profile), (), logs)
    with Workers(2) as workers, started_bench(device, workers) as bench:
        assignments = assign({TASK: None}, database, candidates, profile.target)
        tune(assignments, database, bench, listener, Search("random", 7))
    return {f"{record.schedule} {'failed' if record.latency_us is None else ''}" for record in database.records(TASK)}


def test_journey(board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, board)
    checked = cli("device", "check", "desk")
    assert checked.code == 0 and "desk is ready." in checked.out and "us emulated" in checked.out, checked.err
    listed = cli("device", "list").out
    assert "4 × Cortex-A72 at 1.8 GHz" in listed and "latencies are emulated" in listed
    out = tmp_path / "out"
    compiled = cli("compile", "--device", "desk", *SMALL, "--out", str(out))
    assert compiled.code == 0, compiled.err
    benched = cli("bench", str(out), "--device", "desk", "--out", str(out), "--repeat", "3", "--pin")
    assert benched.code == 0, benched.err
    assert "emulated on Raspberry Pi 4" in benched.out and "modelled" not in benched.out
    results = read_results(out / "report.json")
    (variant,) = results.variants
    assert results.context.kind == "emulated" and len(variant.samples_us) >= 3 and variant.invalid == ""
    assert variant.conditions["before"][0]["governor"] == "performance"
    assert variant.kernels_us is not None and 0.2 * min(variant.samples_us) < variant.kernels_us < 3 * max(variant.samples_us)
    assert results.context.memory_bytes_per_s and "by one core" in results.context.memory_source
    assert board.leftovers() == []
    assert cli("device", "remove", "desk").code == 0
    assert not board.directory.exists()


@pytest.mark.long
def test_tuning_by_the_command_line(board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, board)
    words = ("tune", "--device", "desk", *SMALL, "--trials", "4", "--logs", str(tmp_path / "logs"), "--out", str(tmp_path / "out"))
    first = cli(*words)
    assert first.code == 0 and "desk: Raspberry Pi 4 Model B" in first.err, first.err
    log = tmp_path / "logs/desk/float32_t1.jsonl"
    records = log.read_text()
    assert records.count("\n") > 200 and '"error"' not in records
    again = cli(*words)
    assert again.code == 0 and ", 0 trials to run" in again.err and log.read_text() == records
    assert cli("logs", "verify", "--logs", str(tmp_path / "logs")).code == 0
    assert board.leftovers() == []


def test_refused_in_one_sentence(board: SshBoard, home: Home, cli: CommandLine, tmp_path: Path) -> None:
    words = board.add_words("desk")

    def refusal(*arguments: str) -> str:
        outcome = cli(*arguments)
        assert outcome.code == 3 and registered_names() in ([], ["desk"]), outcome.err
        message, remedy = outcome.err.strip().splitlines()
        assert message.startswith("tvmmobile: error: ") and remedy
        return message

    assert "not known and was not confirmed" in refusal(*words[:-2])
    assert "not SHA256:other" in refusal(*words[:-1], "SHA256:other")
    register(cli, board)
    board.server.stop()
    assert "refuses connections" in refusal("device", "check", "desk")
    (key,) = board.server.host_keys.values()
    key.unlink()
    Path(f"{key}.pub").unlink()
    new_key(key)
    board.server.start()
    assert "host key" in refusal("device", "check", "desk")
    home.key.unlink()
    Path(f"{home.key}.pub").unlink()
    new_key(home.key)
    assert cli("device", "remove", "desk", "--keep-files").code == 0
    assert "refuses user" in refusal(*board.add_words("desk"))


def test_a_server_that_forwards_no_ports_is_named_at_once(tmp_path: Path, home: Home, cli: CommandLine) -> None:
    server = Server(tmp_path / "server", home, "AllowTcpForwarding no")
    try:
        register(cli, SshBoard(write_pi4_tree(tmp_path / "tree"), tmp_path / "agent", server))
        begin = time.monotonic()
        outcome = cli("device", "check", "desk")
        assert outcome.code == 3 and time.monotonic() - begin < CONTACT_S, outcome.err
        message, remedy = outcome.err.strip().splitlines()
        assert message.endswith("127.0.0.1 refuses to forward ports.") and remedy == "Set AllowTcpForwarding yes in its sshd_config."
    finally:
        server.stop()


def test_a_device_that_does_not_answer_ends_the_command_in_time(board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, board)
    out = tmp_path / "out"
    make_library(out)
    board.server.signal_sessions(signal.SIGKILL)
    listener = psutil.Process(board.server._process.pid)  # type: ignore[union-attr]
    listener.suspend()  # takes connections and never speaks
    try:
        begin = time.monotonic()
        outcome = cli("bench", str(out), "--device", "desk", "--out", str(out))
        assert outcome.code == 3 and time.monotonic() - begin < CONTACT_S, outcome.err
    finally:
        listener.resume()


@pytest.mark.parametrize(("candidates", "blows"), [LITTLE, pytest.param(*MUCH, marks=pytest.mark.long)])
def test_killed_agents_and_cut_links_cost_no_candidate(
    board: SshBoard, cli: CommandLine, tmp_path: Path, candidates: int, blows: list[str]
) -> None:
    """The agent is killed and the connection cut at random moments: the same candidates are measured, and none failed."""
    device = HardwareDevice(register(cli, board))
    quiet = tuned(device, tmp_path / "quiet", Quiet(), candidates)
    assert len(quiet) == candidates and not any("failed" in schedule for schedule in quiet)
    listener, done, hits = Quiet(), threading.Event(), []
    rng = random.Random(3)

    def disturb() -> None:
        for number, what in enumerate(blows, 1):
            while len(listener.records) < number * candidates // (len(blows) + 2) and not done.is_set():
                time.sleep(0.01)
            time.sleep(rng.random() * 0.3)
            with contextlib.suppress(AssertionError):
                wait_until(lambda: bool(board.agents()), "an agent")
            if what == "link":
                board.server.signal_sessions(signal.SIGKILL)
            else:
                for process in board.agents():
                    process.kill()
            hits.append(what)

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        disturbed = tuned(device, tmp_path / "disturbed", listener, candidates)
    finally:
        done.set()
        thread.join()
    assert hits == blows
    assert disturbed == quiet
    assert board.leftovers() == []


def test_nothing_listens_beyond_loopback_and_strangers_are_turned_away(board: SshBoard, cli: CommandLine) -> None:
    device = HardwareDevice(register(cli, board))
    before = _listening(board)
    with device.started() as endpoint:
        opened = _listening(board) - before
        assert endpoint.port in {port for _, port in opened}
        assert all(address.startswith("127.") or address == "::1" for address, _ in opened)
        with open_session(endpoint, 10) as session:
            assert session.get_function("tvmmobile.baseline_memory")() > 0
        stranger = type(endpoint)(
            endpoint.host, endpoint.port, endpoint.key, "0000000000000000000000000000000000000000000000000000000000000000"
        )
        with pytest.raises(LinkError), open_session(stranger, 10):
            pass
        with open_session(endpoint, 10):
            pass
        assert not any(endpoint.secret in " ".join(words) for words in _command_lines())
    wait_until(lambda: _listening(board) <= before, "every port to be closed")
    assert board.leftovers() == []


def test_somebody_elses_board_is_left_to_them(board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    device = HardwareDevice(register(cli, board))
    with device.started():
        outcome = cli("device", "check", "desk")
        assert outcome.code == 3 and "is busy" in outcome.err and "uses the board, for" in outcome.err
    assert cli("device", "check", "desk").code == 0


def test_two_boards_of_one_name_share_the_work(tmp_path: Path, home: Home, cli: CommandLine) -> None:
    boards = [make_board(tmp_path / name, home) for name in ("one", "two")]
    try:
        register(cli, boards[0])
        device = HardwareDevice(register(cli, boards[1], "desk", "--join"))
        assert len(device.file.boards) == 2
        with device.started() as endpoint, open_session(endpoint, 20), open_session(endpoint, 20, wait_s=10):
            assert all(board.agents() for board in boards)
        boards[1].server.stop()
        with device.started() as endpoint, open_session(endpoint, 20):
            pass
    finally:
        for board in boards:
            board.server.stop()


def _listening(board: SshBoard) -> set[tuple[str, int]]:
    """Addresses and ports that this process, those that it started and the board's agents listen on; other tests run beside this one."""
    found = set()
    for process in {psutil.Process(), *psutil.Process().children(recursive=True), *board.agents()}:
        with contextlib.suppress(psutil.Error):
            listening = [connection for connection in process.net_connections("tcp") if connection.status == psutil.CONN_LISTEN]
            found |= {(one.laddr.ip, one.laddr.port) for one in listening}
    return found


def _command_lines() -> Sequence[list[str]]:
    lines = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            lines.append(process.cmdline())
    return lines
