"""A board behind a real sshd: its description, the files installed on it, its lease, and its health."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import CommandLine
from pi4_tree import MODEL, governors, write_pi4_tree
from registered_boards import RUNNER, SshBoard, make_board, make_home, only_board, register
from small_disk import mounted_disk
from ssh_server import Home, Server, free_port, new_key, public_key
from waiting import wait_until

from tvmmobile.devices.agents.tracker import Tracker
from tvmmobile.devices.board import link
from tvmmobile.devices.board.connect import connected
from tvmmobile.devices.board.hardware import profile_of
from tvmmobile.devices.board.health import Health, disturbances, read_health
from tvmmobile.devices.board.install import MARK
from tvmmobile.devices.board.lease import BoardBusy, BoardLease
from tvmmobile.devices.board.link import AgentPlan, BoardLink, check_unused, lease_path
from tvmmobile.devices.board.pin import _GUARD, pinned
from tvmmobile.devices.board.registered import DeviceFile, RegisteredBoard, registered_names
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.board.watch import BoardWatch, watching
from tvmmobile.devices.protocol import EMULATED
from tvmmobile.system.errors import DeviceUnavailable

pytestmark = pytest.mark.virtual


@pytest.fixture
def ssh_board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SshBoard]:
    board = make_board(tmp_path / "board", make_home(tmp_path, monkeypatch))
    yield board
    board.server.stop()


@pytest.fixture
def device(ssh_board: SshBoard, cli: CommandLine) -> DeviceFile:
    return register(cli, ssh_board)


@pytest.fixture
def board(device: DeviceFile) -> RegisteredBoard:
    return only_board(device)


def test_what_is_found(board: RegisteredBoard) -> None:
    facts = board.facts
    assert (facts.architecture, facts.model, facts.kernel) == ("aarch64", MODEL, "6.6.31+rpt-rpi-v8")
    assert [(core.implementer, core.part, core.max_hz) for core in facts.cores] == [(0x41, 0xD08, 1.8e9)] * 4
    assert (facts.memory_bytes, facts.l1d_bytes, facts.l2_bytes) == (3885396 << 10, 32 << 10, 1 << 20)
    assert (facts.system, facts.governor, facts.temperature_c) == ("Debian GNU/Linux 12 (bookworm)", "ondemand", 45.277)
    profile = profile_of("desk", board)
    assert (profile.mcpu, profile.cores, profile.clock_hz, profile.machine.fma_lanes_per_cycle) == ("cortex-a72", 4, 1.8e9, 4)
    assert profile.origin == EMULATED and (profile.origin.kind, profile.origin.written) == ("emulated", "emulated")


@pytest.mark.parametrize(("architecture", "fault"), [("armv7l", "runs a 32-bit kernel"), ("x86_64", "is not an AArch64 board but x86_64")])
def test_other_processors_are_refused(ssh_board: SshBoard, cli: CommandLine, architecture: str, fault: str) -> None:
    (ssh_board.root / "proc/sys/kernel/arch").write_text(f"{architecture}\n")
    outcome = cli(*ssh_board.add_words("desk"))
    assert outcome.code == 3 and fault in outcome.err and len(outcome.err.strip().splitlines()) == 2
    assert registered_names() == [] and not ssh_board.directory.exists()


def test_a_32_bit_system_on_a_64_bit_kernel(ssh_board: SshBoard, cli: CommandLine) -> None:
    (ssh_board.root / "proc/sys/kernel/arch").write_text("armv8l\n")
    assert only_board(register(cli, ssh_board)).facts.architecture == "aarch64"


def test_a_known_hosts_file_with_another_key_names_the_command(ssh_board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    name = f"[127.0.0.1]:{ssh_board.server.port}"
    known = tmp_path / "user/.ssh/known_hosts"
    known.write_text(f"{name} {public_key(new_key(tmp_path / 'other'))}\n")
    outcome = cli(*ssh_board.add_words("desk"))
    assert outcome.code == 3 and "is not the one in your known_hosts" in outcome.err
    command = outcome.err.strip().rpartition(": ")[2]
    assert command == f"ssh-keygen -R '{name}'"
    subprocess.run([*shlex.split(command), "-f", str(known)], check=True, capture_output=True)
    register(cli, ssh_board)


def test_a_clock_that_is_not_told_is_asked_for(ssh_board: SshBoard, cli: CommandLine) -> None:
    for path in ssh_board.root.glob("sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_max_freq"):
        path.unlink()
    outcome = cli(*ssh_board.add_words("desk"))
    assert outcome.code == 1 and "--clock" in outcome.err and registered_names() == []
    assert profile_of("desk", only_board(register(cli, ssh_board, "desk", "--clock", "1.5"))).clock_hz == 1.5e9


def test_a_clock_that_is_fixed_below_the_highest_is_measured_at(ssh_board: SshBoard, cli: CommandLine) -> None:
    """A Jetson's power mode fixes it, or a user who wants a steady clock."""
    for number in range(4):
        (ssh_board.root / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_max_freq").write_text("1498000\n")
    board = only_board(register(cli, ssh_board, "capped", "--clock", "1.6"))
    with connected(board.address) as remote:
        (note,) = (note for note in disturbances(read_health(remote, board), board) if "clock is capped at 1.498 of 1.8 GHz" in note)
        assert note.endswith("To measure at that clock, add it again with --clock.")
    board = only_board(register(cli, ssh_board, "desk", "--clock", "1.5"))
    assert profile_of("desk", board).clock_hz == 1.5e9
    with watching([board]) as watch:
        fixed = watch.wait_until_cool(limit_s=0)
        assert watch.spoiled(fixed, watch.read()) == ""
        (ssh_board.root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq").write_text("1200000\n")
        assert watch.spoiled(fixed, watch.read()) == "its clock was capped at 1.2 of 1.5 GHz"


def test_a_known_name_needs_join_and_boards_that_are_alike(ssh_board: SshBoard, device: DeviceFile, cli: CommandLine) -> None:
    assert "--join" in cli(*ssh_board.add_words("desk")).err
    assert len(register(cli, ssh_board, "desk", "--join").boards) == 2
    cpuinfo = ssh_board.root / "proc/cpuinfo"
    linux = cpuinfo.read_text()
    cpuinfo.write_text(re.sub("Features.*\n", "", linux))
    assert len(register(cli, ssh_board, "desk", "--join").boards) == 3  # its instructions are not known
    cpuinfo.write_text(linux.replace("0xd08", "0xd03"))
    ssh_board.directory.rename(ssh_board.directory.with_name("elsewhere"))
    outcome = cli(*ssh_board.add_words("desk"), "--join")
    assert outcome.code == 1 and "cores differ from those of desk" in outcome.err and not ssh_board.directory.exists()


def test_the_agent_is_pushed_once_and_again_where_it_differs(ssh_board: SshBoard, board: RegisteredBoard, cli: CommandLine) -> None:
    (folder,) = ssh_board.directory.glob("agent-*")
    library = folder / "libtvm_runtime.so"
    written = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert cli("device", "check", "desk").code == 0
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == written
    library.write_bytes(b"rotten")
    (ssh_board.directory / "agent-0123456789abcdef").mkdir()
    assert cli("device", "check", "desk").code == 0
    assert library.stat().st_size > 1 << 20 and [path.name for path in ssh_board.directory.glob("agent-*")] == [folder.name]
    changed = [name for name, when in written.items() if (folder / name).stat().st_mtime_ns != when]
    assert changed == [library.name]


def test_folders_of_others_are_left_alone(ssh_board: SshBoard, cli: CommandLine) -> None:
    ssh_board.directory.mkdir()
    (ssh_board.directory / "thesis.txt").write_text("mine")
    outcome = cli(*ssh_board.add_words("desk"))
    assert outcome.code == 3 and "not tvmmobile's" in outcome.err and registered_names() == []
    assert [path.name for path in ssh_board.directory.iterdir()] == ["thesis.txt"]


def test_nothing_stays_of_a_board_that_cannot_be_added(
    ssh_board: SshBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = "#!/bin/sh\necho it cannot execute this >&2; exit 126\n"
    runner = tmp_path / "runner"
    runner.write_text(loader)
    runner.chmod(0o755)
    words = [str(runner) if word == RUNNER else word for word in ssh_board.add_words("desk")]
    outcome = cli(*words)
    assert outcome.code == 3 and "it cannot execute this" in outcome.err and not ssh_board.directory.exists()
    ssh_board.directory.mkdir()
    (ssh_board.directory / MARK).touch()  # an earlier registration's
    assert cli(*words).code == 3 and ssh_board.directory.exists()
    shutil.rmtree(ssh_board.directory)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path / "file"))
    assert cli(*ssh_board.add_words("desk")).code == 1 and not ssh_board.directory.exists()


def test_a_full_disk_keeps_nothing_of_a_board_that_is_added(ssh_board: SshBoard, cli: CommandLine, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "6m") as disk:
        full = dataclasses.replace(ssh_board, directory=disk / "agent of mine")
        outcome = cli(*full.add_words("desk"))
        assert outcome.code == 3 and "its disk is full" in outcome.err and not list(disk.iterdir())


@pytest.mark.parametrize("character", [":", ";"])
def test_a_folder_that_the_loader_would_split(ssh_board: SshBoard, cli: CommandLine, character: str) -> None:
    split = dataclasses.replace(ssh_board, directory=ssh_board.directory.with_name(f"a{character}b"))
    outcome = cli(*split.add_words("desk"))
    assert outcome.code == 1 and f"has a '{character}'" in outcome.err and not split.directory.exists()


def test_remove_leaves_nothing(ssh_board: SshBoard, device: DeviceFile, cli: CommandLine) -> None:
    assert (ssh_board.directory / MARK).exists()
    assert cli("device", "remove", "desk").code == 0
    assert registered_names() == [] and not ssh_board.directory.exists() and ssh_board.leftovers() == []
    assert cli("device", "remove", "desk").code == 1


def test_a_board_is_not_removed_from_under_a_run(board: RegisteredBoard, ssh_board: SshBoard, cli: CommandLine) -> None:
    theirs = BoardLease(lease_path(board), board.root, "ann@lab", "run")
    with connected(board.address) as remote:
        theirs.take(remote)
        outcome = cli("device", "remove", "desk")
        assert outcome.code == 3 and "is busy: ann@lab uses the board, for 60 s more" in outcome.err
        assert registered_names() == ["desk"] and (ssh_board.directory / MARK).exists()
        theirs.release(remote)
    assert cli("device", "remove", "desk").code == 0


def test_a_lease_keeps_others_away_until_it_is_given_back_or_runs_out(board: RegisteredBoard, ssh_board: SshBoard) -> None:
    path = lease_path(board)
    mine, theirs = (BoardLease(path, board.root, owner, owner) for owner in ("me@here", "ann@lab"))
    uptime = ssh_board.root / "proc/uptime"
    uptime.unlink()
    uptime.write_text("1000.25 4000.00\n")
    with connected(board.address) as remote:
        theirs.take(remote)
        theirs.take(remote)
        with pytest.raises(BoardBusy, match="ann@lab uses the board, for 60 s more"):
            mine.take(remote)
        uptime.write_text("1061.00 4000.00\n")
        mine.take(remote)
        with pytest.raises(BoardBusy, match="me@here"):
            theirs.take(remote)
        theirs.release(remote)
        assert Path(path).exists(), "only its owner gives it back"
        boot = ssh_board.root / "proc/sys/kernel/random/boot_id"
        boot.unlink()
        boot.write_text("another-start\n")
        theirs.take(remote)
        theirs.release(remote)
        assert not Path(path).exists()
        Path(path).write_text("rubbish")
        mine.take(remote)
        with pytest.raises(BoardBusy):
            theirs.take(remote)


def test_a_run_that_is_interrupted_while_it_sends_the_agent_releases_the_board(
    board: RegisteredBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = threading.Event()

    def install(_remote: object, _directory: str, _bundle: Path, progress: Callable[[str], None]) -> str:
        progress("pushing the agent (12 MB)")
        sent.wait(60)
        raise LinkLost("interrupted")

    monkeypatch.setattr(link, "install_agent", install)
    with selectors.DefaultSelector() as selector, connected(board.address) as remote:
        sender = BoardLink(board, AgentPlan("desk", tmp_path, "", "ann@desk", "17"), Tracker(selector, "0" * 64))
        sender.start()
        try:
            wait_until(lambda: sender.installing)
            with pytest.raises(DeviceUnavailable, match="ann@desk uses the board"):
                check_unused(board, remote)
            sender.stop(timeout_s=1)
            check_unused(board, remote)
        finally:
            sent.set()


def test_governors_are_put_back_however_it_ends(board: RegisteredBoard, ssh_board: SshBoard) -> None:
    with connected(board.address) as remote:
        with pinned(remote, board):
            assert governors(ssh_board.root) == {"performance"}
        wait_until(lambda: governors(ssh_board.root) == {"ondemand"}, "the governors to be put back")
        with pinned(remote, board):
            assert governors(ssh_board.root) == {"performance"}
            remote.close()
            wait_until(lambda: governors(ssh_board.root) == {"ondemand"}, "the governors to be put back")


def test_governors_of_a_tree_whose_name_has_spaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: CommandLine) -> None:
    server = Server(tmp_path / "server", make_home(tmp_path, monkeypatch))
    try:
        spaced = SshBoard(write_pi4_tree(tmp_path / "tree of mine"), tmp_path / "agent of mine", server)
        board = only_board(register(cli, spaced))
        with connected(board.address) as remote:
            with pinned(remote, board):
                assert governors(spaced.root) == {"performance"}
            wait_until(lambda: governors(spaced.root) == {"ondemand"}, "the governors to be put back")
    finally:
        server.stop()


def test_governors_stay_while_an_earlier_connection_ends_late(board: RegisteredBoard, ssh_board: SshBoard) -> None:
    """The board's server may notice much later than this machine that a connection is gone."""
    with contextlib.ExitStack() as late, connected(board.address) as remote:
        earlier = late.enter_context(connected(board.address))
        late.enter_context(pinned(earlier, board))
        with pinned(remote, board):
            assert governors(ssh_board.root) == {"performance"}
            late.close()
            time.sleep(0.3)
            assert governors(ssh_board.root) == {"performance"}
        wait_until(lambda: governors(ssh_board.root) == {"ondemand"}, "the governors to be put back")
        wait_until(lambda: not (ssh_board.directory / "pinning").exists(), "the note to be removed")


def test_the_guard_of_governors_is_one_line() -> None:
    """csh, as a user's shell, ends quoted text with the line."""
    assert "\n" not in _GUARD


def test_a_board_without_governors_cannot_be_pinned(board: RegisteredBoard, ssh_board: SshBoard) -> None:
    for path in ssh_board.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"):
        path.unlink()
    with connected(board.address) as remote, pytest.raises(DeviceUnavailable, match="no governor"), pinned(remote, board):
        pass


def test_what_spoils_a_measurement(board: RegisteredBoard, ssh_board: SshBoard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching([board]) as watch:
        cool = watch.wait_until_cool(limit_s=5)
        assert watch.spoiled(cool, watch.read()) == ""
        sensor = ssh_board.root / "sys/class/thermal/thermal_zone0/temp"
        sensor.write_text("81500\n")
        with connected(board.address) as remote:
            assert any("82 °C" in note or "81 °C" in note for note in disturbances(read_health(remote, board), board))
        assert watch.wait_until_cool(limit_s=0)[0].temperature_c == 81.5
        sensor.write_text("50000\n")
        for path in ssh_board.root.glob("sys/devices/system/cpu/cpu*/cpufreq/scaling_*"):
            path.write_text("performance\n" if path.name == "scaling_governor" else "1000000\n")
        assert watch.spoiled(cool, watch.read()) == "its clock was 1 GHz, not 1.8"
        boot = ssh_board.root / "proc/sys/kernel/random/boot_id"
        boot.unlink()
        boot.write_text("another-start\n")
        assert watch.spoiled(cool, watch.read()) == "the board was started anew"


def test_a_watch_finds_its_board_again(board: RegisteredBoard, ssh_board: SshBoard) -> None:
    with watching([board]) as watch:
        assert watch.read()[0].temperature_c == 45.277
        ssh_board.server.signal_sessions(signal.SIGKILL)
        assert watch.read()[0].temperature_c == 45.277
    ssh_board.server.stop()
    with pytest.raises(DeviceUnavailable, match="does not answer"):
        BoardWatch([board], reconnect_s=0.5).read()


def test_a_board_that_is_away_does_not_end_the_run_of_others(board: RegisteredBoard) -> None:
    gone = board.model_copy(update={"address": board.address.model_copy(update={"port": free_port()})})
    watch = BoardWatch([gone, board], reconnect_s=60)
    try:
        away, cool = watch.wait_until_cool(limit_s=5)
        assert away == Health() and cool.temperature_c == 45.277
        assert watch.spoiled((away, cool), watch.read()) == ""
    finally:
        watch.close()


def test_a_board_that_goes_away_is_given_up_once(board: RegisteredBoard, ssh_board: SshBoard, tmp_path: Path) -> None:
    other = Server(tmp_path / "other", Home(tmp_path / "user"))
    second = board.model_copy(update={"address": other.address})
    watch = BoardWatch([board, second], reconnect_s=3)
    try:
        assert all(state.temperature_c == 45.277 for state in watch.read())
        ssh_board.server.stop()
        begin = time.monotonic()
        assert [state.temperature_c for state in watch.read()] == [None, 45.277]
        waited = time.monotonic() - begin
        assert watch.read()[0] == Health() and time.monotonic() - begin < waited + 3
        other.stop()
        with pytest.raises(DeviceUnavailable, match="does not answer"):
            watch.read()
    finally:
        watch.close()
        other.stop()
