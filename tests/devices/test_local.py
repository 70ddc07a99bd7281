"""This machine as a board: what it runs and stores, what emulates it, and the whole way on it, its agent under QEMU."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from commands import Command
from conftest import CommandLine
from pi4_tree import governors, write_pi4_tree
from registered_boards import RUNNER, TestBoard, make_local_board, only_board, register
from small_disk import mounted_disk
from waiting import wait_until

from tvmmobile.devices.agents.host import error_message
from tvmmobile.devices.agents.launch import hosted
from tvmmobile.devices.agents.rpc import LinkError, open_session
from tvmmobile.devices.board.connect import connected
from tvmmobile.devices.board.hardware import HardwareDevice, profile_of
from tvmmobile.devices.board.health import disturbances, read_health
from tvmmobile.devices.board.install import MARK, install_agent, remove_folder
from tvmmobile.devices.board.lease import BoardLease
from tvmmobile.devices.board.pin import pinned
from tvmmobile.devices.board.probe import probe
from tvmmobile.devices.board.registered import LocalAddress, registered_names
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.board.storage import not_stored
from tvmmobile.devices.local.machine import local_address
from tvmmobile.devices.local.remote import LocalRemote
from tvmmobile.devices.protocol import MEASURED
from tvmmobile.results.file import read_results
from tvmmobile.system.emulators import emulator_of
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.files import locked
from tvmmobile.tuning.search.twin import twin_board

SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")


@pytest.fixture
def board(tmp_path: Path) -> TestBoard:
    return make_local_board(tmp_path / "board")


def test_programs_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_LIBRARY_PATH", "/nowhere")
    remote = LocalRemote()
    done = remote.run(["sh", "-c", 'cat; echo "$1" >&2; pwd; env | grep -c LD_; exit 3', "sh", "a b"], stdin=b"in\n")
    assert (done.status, done.stdout, done.stderr) == (3, "in\n/\n0\n", "a b\n")
    assert remote.run(["sh", "-c", "kill -TERM $$"]).status == 128 + signal.SIGTERM
    assert remote.run(["no-such-program"]).status == 127
    (tmp_path / "text").write_text("no program")
    assert remote.run([str(tmp_path / "text")]).status == 126
    begin = time.monotonic()
    with pytest.raises(LinkLost, match=r"sh did not end within 0\.3 s"):
        remote.run(["sh", "-c", "sleep 60; true"], timeout_s=0.3)
    assert time.monotonic() - begin < 10


def test_a_program_left_running_ends_with_the_connection(tmp_path: Path) -> None:
    remote = LocalRemote()
    echo = remote.start(["sh", "-c", 'echo "$$"; cat; echo over >&2; exit 4'])
    assert int(echo.read_line(10)) > 0 and echo.poll() is None
    echo.write(b"one\ntwo\nrest")
    assert [echo.read_line(10), echo.read_line(10)] == ["one", "two"]
    with pytest.raises(LinkLost, match="wrote no line"):
        echo.read_line(0.1)
    stubborn = remote.start(["sh", "-c", "trap '' TERM; while :; do sleep 60; done"])
    short = remote.start(["true"])
    wait_until(lambda: short.poll() == 0)
    with pytest.raises(LinkLost, match="has ended"):
        short.write(b"x" * (1 << 20))
    with pytest.raises(LinkLost, match="does not start"):
        remote.start(["no-such-program"])
    remote.close()
    assert echo.poll() == 4 and echo.last_words() == "over"
    assert stubborn.poll() == 128 + signal.SIGKILL
    with pytest.raises(LinkLost, match="was stopped"):
        echo.read_line(1)


def test_files_are_copied_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"content")
    (tmp_path / "program").chmod(0o750)
    remote = LocalRemote()
    remote.push(tmp_path / "program", str(tmp_path / "there"))
    remote.pull(str(tmp_path / "there"), tmp_path / "back")
    assert (tmp_path / "there").stat().st_mode & 0o777 == 0o750 and (tmp_path / "back").read_bytes() == b"content"
    with pytest.raises(OSError, match="No such file"):
        remote.pull(str(tmp_path / "missing"), tmp_path / "back")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["back", "program", "there"]


def test_governors_are_put_back_after_a_kill(tmp_path: Path) -> None:
    root = write_pi4_tree(tmp_path / "tree")
    script = (
        "import sys, time; from tvmmobile.devices.local.remote import LocalRemote; from tvmmobile.devices.board import pin\n"
        "LocalRemote().start(['sh', '-c', pin._GUARD, 'sh', sys.argv[1]]).read_line(10); print('up', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(root)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "up\n"
        assert governors(root) == {"performance"}
        process.kill()
    wait_until(lambda: governors(root) == {"ondemand"}, "the governors to be put back")


QEMU_VIRT = {"sys/class/dmi/id/sys_vendor": "QEMU\n", "sys/class/dmi/id/product_name": "QEMU Virtual Machine\n"}


@pytest.mark.parametrize(
    ("files", "emulator"),
    [
        ({}, ""),
        (QEMU_VIRT, "QEMU"),
        (QEMU_VIRT | {"sys/class/dmi/id/product_name": "KVM Virtual Machine\n"}, ""),
        ({"sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n", "sys/class/dmi/id/product_name": "Virtual Machine\n"}, ""),
        ({"proc/device-tree/model": "linux,dummy-virt\0"}, "QEMU"),
        ({"proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x00\nCPU part\t: 0x051\n"}, "QEMU"),
        # Virtual machines on a Mac: Apple's framework before macOS 13, and QEMU with HVF.
        ({"proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x00\nCPU part\t: 0x000\n"}, ""),
        (QEMU_VIRT | {"proc/cpuinfo": "processor\t: 0\nCPU implementer\t: 0x61\nCPU part\t: 0x000\n"}, ""),
    ],
)
def test_what_emulates_a_machine(tmp_path: Path, files: dict[str, str], emulator: str) -> None:
    root = write_pi4_tree(tmp_path)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert emulator_of(root) == emulator
    # A board that is reached in another way says the same.
    assert probe(LocalRemote(), str(root)).emulator == emulator


@pytest.mark.skipif(platform.machine() in ("aarch64", "arm64"), reason="this machine can be a device")
def test_other_machines_are_refused(cli: CommandLine) -> None:
    outcome = cli("device", "add", "here", "--local")
    message, remedy = outcome.err.strip().splitlines()
    assert outcome.code == 3 and "not Linux on AArch64" in message and "--ssh" in remedy and registered_names() == []
    assert cli("device", "add", "here", "--local", "--ssh", "pi@there").code == 1
    # With an emulator, but described by itself.
    outcome = cli("device", "add", "here", "--local", "--runner", RUNNER)
    assert outcome.code == 3 and "is not an AArch64 board" in outcome.err and registered_names() == []


def test_an_aarch64_process_on_another_kernel_is_emulated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    address = local_address(str(write_pi4_tree(tmp_path)))
    assert (address.emulator == "QEMU") == (os.uname().machine != "aarch64" and Path("/proc/sys/kernel/arch").exists())


@pytest.mark.virtual
def test_hardware_is_measured_and_another_machine_is_refused(board: TestBoard, cli: CommandLine) -> None:
    found = only_board(register(cli, board))
    assert isinstance(found.address, LocalAddress) and profile_of("desk", found).origin.kind == "emulated"
    assert profile_of("desk", found.model_copy(update={"runner": ()})).origin == MEASURED
    emulated = found.model_copy(update={"runner": (), "address": found.address.model_copy(update={"emulator": "QEMU"})})
    assert profile_of("desk", emulated).origin.kind == "emulated"
    with pytest.raises(DeviceUnavailable, match="another machine"), connected(LocalAddress(machine="0123456789abcdef")):
        pass


@pytest.mark.virtual
def test_what_a_hypervisor_hides_is_unknown(board: TestBoard, cli: CommandLine) -> None:
    shutil.rmtree(board.root / "sys/class/thermal")
    for path in board.root.glob("sys/devices/system/cpu/cpu*/cpufreq"):
        shutil.rmtree(path)
    cpuinfo = board.root / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("0x41", "0x6d").replace("0xd08", "0xd49"))
    (board.root / "proc/device-tree/model").unlink()
    found = only_board(register(cli, board))
    assert "desk: Azure Cobalt 100 at this machine\n  4 × Neoverse N2 at an unknown clock" in cli("device", "list").out
    profile = profile_of("desk", found)
    assert (profile.board, profile.mcpu, profile.clock_hz) == ("Azure Cobalt 100", "neoverse-n2", 0.0)
    twin = twin_board(profile)
    assert twin is not None and twin.name == "cobalt100"
    with connected(found.address) as remote:
        assert any("neither clocks nor governor" in note for note in disturbances(read_health(remote, found), found))
        with pytest.raises(DeviceUnavailable, match="has no governor to set"), pinned(remote, found):
            pass


@pytest.mark.virtual
def test_journey(board: TestBoard, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register(cli, board)
    checked = cli("device", "check", "desk")
    assert checked.code == 0 and "desk is ready." in checked.out and "us emulated" in checked.out, checked.err
    assert "desk: Raspberry Pi 4 Model B Rev 1.4 at this machine" in cli("device", "list").out
    out = tmp_path / "out"
    assert cli("compile", "--device", "desk", *SMALL, "--out", str(out)).code == 0
    benched = cli("bench", str(out), "--device", "desk", "--out", str(out), "--repeat", "3", "--pin")
    assert benched.code == 0 and "emulated on Raspberry Pi 4" in benched.out, benched.err
    (variant,) = read_results(out / "report.json").variants
    assert variant.invalid == "" and variant.conditions["before"][0]["governor"] == "performance"
    deployed = cli("deploy", str(out), "--device", "desk")
    assert deployed.code == 0 and (board.directory / "models").is_dir(), deployed.err
    assert board.leftovers() == [] and governors(board.root) == {"ondemand"}
    monkeypatch.setenv("TVMMOBILE_DATA", str(tmp_path / "data"))
    register(cli, board)
    endless = Command(tmp_path, "bench", str(out), "--device", "desk", "--out", str(out), "--repeat", "100000", "--pin")
    endless.wait_until(lambda: any(board.directory.glob("work-*/session-*")))
    endless.signal_group(signal.SIGINT)
    assert endless.wait(30)[0] == 130, endless.errors
    wait_until(lambda: board.leftovers() == [] and governors(board.root) == {"ondemand"}, "everything to be gone")
    assert endless.leftovers() == []
    assert cli("device", "remove", "desk").code == 0
    assert not board.directory.exists() and registered_names() == []


@pytest.mark.virtual
def test_a_killed_agent_is_replaced_and_a_held_board_is_refused(board: TestBoard, cli: CommandLine) -> None:
    device = HardwareDevice(register(cli, board))
    with device.started() as endpoint:
        assert Path(endpoint.quiet).parent == board.directory
        (agent,) = board.agents()
        agent.kill()

        def opened() -> bool:
            """The tracker may offer the dead agent once."""
            try:
                with open_session(endpoint, 20, wait_s=20) as session:
                    return int(session.get_function("tvmmobile.baseline_memory")()) > 0
            except LinkError:
                return False

        wait_until(opened, "a session with another agent", 60)
        outcome = cli("device", "check", "desk")
        assert outcome.code == 3 and "this machine is busy" in outcome.err and "uses the board, for" in outcome.err
    assert board.leftovers() == []


@pytest.mark.virtual
def test_a_board_that_was_joined_to_itself_runs_one_agent(board: TestBoard, cli: CommandLine) -> None:
    """Such a board was added by its name and by its address: two agents at once would disturb each other's timings."""
    register(cli, board)
    with HardwareDevice(register(cli, board, "desk", "--join")).started() as endpoint, open_session(endpoint, 20):
        assert len(board.agents()) == 1
    command = [sys.executable, "-m", "tvmmobile", "device", "check", "desk"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "this machine is busy: it is the same board as another one of its device. Other boards do its work." in done.stderr
    assert board.leftovers() == []


@pytest.mark.virtual
def test_a_full_disk(board: TestBoard, cli: CommandLine, tmp_path: Path) -> None:
    with mounted_disk(tmp_path / "disk", "2m") as disk:
        outcome = cli(*TestBoard(board.root, disk / "agent").add_words("desk"))
        assert outcome.code == 3 and "its disk is full" in outcome.err and registered_names() == []
        assert [path.name for path in disk.rglob("*.tmp*")] == []
    with mounted_disk(tmp_path / "larger", "16m") as disk:
        register(cli, TestBoard(board.root, disk / "agent"))
        rest = disk / "rest"
        with rest.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while stream.write(bytes(1 << 16)):
                pass
        outcome = cli("device", "check", "desk")
        assert outcome.code == 3 and "its disk is full" in outcome.err, outcome.err
        rest.unlink()
        assert cli("device", "check", "desk").code == 0


def test_a_disk_without_room_for_the_agents_folder(tmp_path: Path) -> None:
    bundle = tmp_path / "agent-0123"
    bundle.mkdir()
    (bundle / "agent").write_bytes(b"agent")
    with mounted_disk(tmp_path / "disk", "1m,nr_inodes=3") as disk:  # its root, our folder and our mark
        with pytest.raises(DeviceUnavailable, match="agent-0123 cannot be created on the board: its disk is full"):
            install_agent(LocalRemote(), str(disk / "tvmmobile"), bundle)
        assert (disk / "tvmmobile" / MARK).exists()


def test_a_folder_of_which_something_stays_can_be_removed_later(tmp_path: Path) -> None:
    folder = tmp_path / "agent"
    folder.mkdir()
    for name in (MARK, "agent", "lease"):
        (folder / name).touch()
    with mounted_disk(folder / "busy", "64k"), pytest.raises(DeviceUnavailable) as caught:
        remove_folder(LocalRemote(), str(folder))
    assert re.fullmatch(rf"{folder} cannot be removed on the board: \S*rm: [^\n]* busy\.", caught.value.message), caught.value.message
    remove_folder(LocalRemote(), str(folder))
    assert not folder.exists()


def test_a_disk_that_becomes_read_only(tmp_path: Path) -> None:
    for path in ("/proc/lease", str(tmp_path / "no folder" / "lease")):
        with pytest.raises(DeviceUnavailable, match=f"^{path} cannot be stored on the board: "):
            BoardLease(path, "/", "me@here", "run").take(LocalRemote())
    error = not_stored("/tmp/lease", "sh: 1: cannot create /tmp/lease: Read-only file system\n")
    assert "its disk is read-only" in error.message and "dmesg" in error.remedy


@pytest.mark.parametrize(
    ("known", "again", "own", "remedy"),
    [
        ("", False, "Run the same command again.", "Run the same command again."),
        ("Read dmesg there.", False, "Run the same command again.", "Read dmesg there. Run the same command again."),
        ("Check its power; then run the same command again.", True, "Run the same command again.", "Run the same command again."),
        ("Check its power; then begin anew.", True, "Begin anew.", "Begin anew."),
        ("Read dmesg there.", False, "Read dmesg there. Begin anew.", "Read dmesg there. Begin anew."),
    ],
)
def test_who_measures_learns_what_the_host_process_knows(known: str, again: bool, own: str, remedy: str) -> None:
    host = """
import signal, sys, time
def stop(*_):
    print(sys.argv[1])
    sys.exit()
signal.signal(signal.SIGTERM, stop)
print('{"port": 1}', flush=True)
time.sleep(60)
"""
    words = [sys.executable, "-c", host, json.dumps(error_message(DeviceUnavailable("its disk is read-only.", known, again=again)))]
    with pytest.raises(DeviceUnavailable, match="its disk is read-only") as caught, hosted(words, "", 20, "", ""):
        raise DeviceUnavailable("no agent answers.", own, again=True)
    assert (caught.value.remedy, caught.value.again) == (remedy, True)


def test_nothing_is_built_while_something_is_measured(tmp_path: Path) -> None:
    lock, seen = tmp_path / "lock", []

    def build() -> None:
        with locked(lock, shared=True):
            seen.append("built")

    with locked(lock, shared=True):
        build()  # beside another builder
    thread = threading.Thread(target=build)
    with locked(lock):
        thread.start()
        time.sleep(0.2)
        seen.append("measured")
    thread.join(10)
    assert seen == ["built", "measured", "built"]


def test_the_address_in_the_file_is_not_the_machines_id(board: TestBoard) -> None:
    text = json.dumps(local_address(str(board.root), emulated=True).model_dump())
    found = Path("/etc/machine-id")
    assert not found.exists() or not found.read_text().strip() or found.read_text().strip() not in text
