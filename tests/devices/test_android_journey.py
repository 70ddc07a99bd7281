"""The whole way on an Android phone, and what goes wrong there: the real adb, the real agent under QEMU, a device that speaks to adb."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from conftest import CommandLine, Outcome
from phone_tree import BIG, LITTLE, write_phone_tree
from phones import ADB, Phone, adb, adb_servers, private_adb_server, switched_on
from pi4_tree import governors
from waiting import wait_until

from tvmmobile.devices.adb.remote import devices
from tvmmobile.devices.agent.build import LOADER
from tvmmobile.devices.agents.rpc import open_session
from tvmmobile.devices.board.connect import connected
from tvmmobile.devices.board.cores import core_notes, fast_core_words
from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.health import disturbances
from tvmmobile.devices.board.install import check_runs
from tvmmobile.devices.board.link import RECONNECT_S
from tvmmobile.devices.board.registered import DeviceFile, load_device, registered_names
from tvmmobile.devices.board.watch import watching
from tvmmobile.pipeline.stages.timing import MOST_ATTEMPTS
from tvmmobile.results.file import read_results
from tvmmobile.running.library import find_libraries
from tvmmobile.system.environment import adb_server_port, cache_dir
from tvmmobile.system.errors import DeviceUnavailable

pytestmark = [
    pytest.mark.virtual,
    pytest.mark.skipif(ADB is None, reason="there is no adb program; apt-get install -y adb"),
]
SMALL = ("--alpha", "0.25", "--resolution", "32", "--classes", "10")
#: As `dumpsys thermalservice` tells it: "moderate" whenever it is asked after something has run, "none" before.
HEATS_UP = """
[ "$1" = thermalservice ] || exit 0
count=$(cat "$0.count" 2>/dev/null || echo 0)
echo $((count + 1)) > "$0.count"
echo "IsStatusOverride: false"
echo "Thermal Status: $((count % 2 * 2))"
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    cache = str(cache_dir())  # stays where it was: the agent in it takes seconds to build
    with private_adb_server(tmp_path_factory.mktemp("adb")) as port, pytest.MonkeyPatch.context() as patch:
        patch.setenv("TVMMOBILE_CACHE", cache)
        yield port
    assert not adb_servers(port)


@pytest.fixture
def phone(server: int, tmp_path: Path) -> Iterator[Phone]:
    with switched_on(tmp_path / "phone") as phone:
        write_phone_tree(phone.root)
        phone.order("set ro.soc.model=Tensor")
        yield phone


def directory(phone: Phone) -> Path:
    return Path(phone.board) / "agent of mine"


def add_words(phone: Phone, serial: str = "") -> list[str]:
    words = ["device", "add", "phone", "--adb", serial or phone.address.serial, "--runner", "qemu-aarch64"]
    return [*words, "--root", str(phone.root), "--directory", str(directory(phone))]


def register(cli: CommandLine, phone: Phone) -> DeviceFile:
    outcome = cli(*add_words(phone))
    assert outcome.code == 0, outcome.err
    device = load_device("phone")
    assert device is not None
    return device


def leftovers(phone: Phone) -> list[str]:
    """Return what a run that ended should not have left, here or on the phone."""
    found = [f"forwarded {line}" for line in adb("forward", "--list").splitlines()]
    found += [f"reversed {line}" for line in adb("-s", phone.address.serial, "reverse", "--list").splitlines()]
    found += [f"on the phone: {process}" for process in phone.commands()]
    found += [path.name for path in Path(phone.board).iterdir() if path != directory(phone)]
    if directory(phone).exists():
        found += [path.name for path in directory(phone).iterdir() if path.name.startswith("work")]
    for child in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "tvmmobile.devices.board.link_host" in child.cmdline():
                found.append(f"here: {child}")
    return found


def agents(phone: Phone) -> list[psutil.Process]:
    """Return the agent on the phone, and its session's process while there is one."""
    found = []
    for process in phone.commands():
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.cmdline()[:1] == ["qemu-aarch64"]:
                found.append(process)
    return found


def write_cpuset(phone: Phone, allowed: str, name: str) -> None:
    """On which cores Android lets programs run."""
    own = phone.root / "proc/self"
    own.mkdir(parents=True, exist_ok=True)
    (own / "status").write_text(f"Name:\tcat\nCpus_allowed:\tff\nCpus_allowed_list:\t{allowed}\nMems_allowed:\t1\n")
    (own / "cpuset").write_text(f"{name}\n")


def nothing_left(phone: Phone) -> None:
    wait_until(lambda: not leftovers(phone), f"nothing of {leftovers(phone)}", 5)


def compiled(cli: CommandLine, out: Path) -> Path:
    outcome = cli("compile", "--device", "phone", *SMALL, "--out", str(out))
    assert outcome.code == 0, outcome.err
    (library,) = find_libraries([out])
    return library.path


def test_journey(phone: Phone, cli: CommandLine, tmp_path: Path) -> None:
    facts = register(cli, phone).boards[0].facts
    assert (facts.system, facts.api_level, facts.libc, facts.model) == ("Android 14", 34, "bionic", "Google Pixel 6 (Tensor)")
    assert (facts.architecture, facts.governor, facts.temperature_c) == ("aarch64", "schedutil", 33.5)
    listed = cli("device", "list").out
    assert "Google Pixel 6 (Tensor)" in listed and "4 × Cortex-A78 at 2.4 GHz and 4 slower cores" in listed
    assert "Android 14 (API 34)" in listed and "bionic" in listed and "latencies are emulated" in listed
    checked = cli("device", "check", "phone")
    assert checked.code == 0 and "phone is ready." in checked.out and "us emulated" in checked.out, checked.err
    nothing_left(phone)

    library = compiled(cli, tmp_path / "out")
    manifest = json.loads(library.with_suffix(".json").read_text())
    assert (manifest["target"]["mtriple"], manifest["target"]["mcpu"]) == ("aarch64-linux-android", "cortex-a78")
    benched = cli("bench", str(library), "--device", "phone", "--out", str(tmp_path / "out"), "--repeat", "3", "--pin")
    assert benched.code == 0, benched.err
    assert "emulated on Google Pixel 6 (Tensor)" in benched.out and "modelled" not in benched.out
    results = read_results(tmp_path / "out" / "report.json")
    (variant,) = results.variants
    assert results.context.kind == "emulated" and variant.invalid == "" and variant.max_error < 1e-5
    assert variant.conditions["before"][0]["governor"] == "performance"
    wait_until(lambda: governors(phone.root) == {"schedutil"}, "the governors to be put back")

    np.save(tmp_path / "input.npy", np.random.default_rng(1).standard_normal((1, 3, 32, 32), np.float32))
    ran = cli("run", str(library), str(tmp_path / "input.npy"), "--device", "phone", "--repeat", "3", "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["kind"] == "emulated" and len(json.loads(ran.out)["top"]) == 5
    deployed = cli("deploy", str(library), "--device", "phone", "--verify")
    assert deployed.code == 0 and "every library agrees with its reference" in deployed.out, deployed.err
    for path in (library, library.with_suffix(".h")):
        assert (directory(phone) / "models" / path.name).read_bytes() == path.read_bytes()
    nothing_left(phone)
    assert cli("device", "remove", "phone").code == 0
    assert not directory(phone).exists() and registered_names() == []


def test_refused_in_one_sentence(phone: Phone, cli: CommandLine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusal(*arguments: str) -> str:
        outcome = cli(*arguments)
        assert outcome.code == 3 and registered_names() in ([], ["phone"]), outcome.err
        message, remedy = outcome.err.strip().splitlines()
        assert message.startswith("tvmmobile: error: ") and remedy
        return outcome.err

    assert "knows no device R58M123" in refusal(*add_words(phone, "R58M123"))
    with socket.create_server(("127.0.0.1", 0)) as free:
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    assert f"{closed} cannot be reached" in refusal(*add_words(phone, closed))
    with switched_on(tmp_path / "other", "--authorize") as other:
        message = refusal(*add_words(other))
        assert "does not trust this computer" in message and "accept this computer's key" in message
    phone.order("set ro.product.cpu.abilist=armeabi-v7a,armeabi")
    message = refusal(*add_words(phone))
    assert "Google Pixel 6 (Tensor) runs an Android without arm64-v8a (armeabi-v7a,armeabi)" in message and "Raspberry" not in message
    assert not directory(phone).exists()
    phone.order("set ro.product.cpu.abilist=arm64-v8a,armeabi-v7a,armeabi")

    register(cli, phone)
    phone.order("cut")
    wait_until(lambda: devices() != [(phone.address.serial, "device")], "adb to notice")
    assert phone.address.serial in refusal("device", "check", "phone")
    phone.order("back")
    adb("kill-server")
    wait_until(lambda: not adb_servers(adb_server_port()), "the server to end")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        assert "adb is not installed on this machine.\nRun: apt-get install -y adb" in refusal("device", "check", "phone")
    assert cli("device", "remove", "phone").code == 0


def test_the_agent_runs_on_the_fast_cores(server: int, cli: CommandLine, tmp_path: Path) -> None:
    if not os.sched_getaffinity(0) >= {0, 1}:
        pytest.skip("needs this machine's cores 0 and 1")
    with switched_on(tmp_path / "phone") as phone:
        write_phone_tree(phone.root, (LITTLE, BIG))
        device = HardwareDevice(register(cli, phone))
        with device.started() as endpoint, open_session(endpoint, 30):
            assert [process.cpu_affinity() for process in agents(phone)] == [[1], [1]], "an agent and its session"
        nothing_left(phone)


def test_words_for_the_fast_cores(phone: Phone, cli: CommandLine) -> None:
    (board,) = register(cli, phone).boards
    with connected(board.address) as remote:
        phone.program("taskset", 'echo "$1" > "$0.mask"; shift; exec "$@"')
        assert fast_core_words(remote, board) == ["taskset", "f0"]
        assert (phone.root / "system/bin/taskset.mask").read_text() == "f0\n"
        alike = board.model_copy(update={"facts": board.facts.model_copy(update={"cores": board.facts.cores[:4]})})
        assert fast_core_words(remote, alike) == []
        assert core_notes(remote, board) == []
        phone.program("taskset", "echo 'taskset: Invalid argument' >&2; exit 1")  # this user may not use them
        assert fast_core_words(remote, board) == [], "an emulator's machine has other cores"
        board = board.model_copy(update={"runner": ()})
        with pytest.raises(DeviceUnavailable, match="does not keep our programs on cores 4-7: taskset: Invalid argument"):
            fast_core_words(remote, board)
        (phone.root / "system/bin/taskset").unlink()
        phone.program("taskset", "exit 127")  # there is none
        assert fast_core_words(remote, board) == [] and "no taskset" in core_notes(remote, board)[0]


def test_cpusets(phone: Phone, cli: CommandLine) -> None:
    (board,) = register(cli, phone).boards
    phone.program("taskset", 'shift; exec "$@"')
    with connected(board.address) as remote:
        for allowed, mask, notes in (("0-7", "f0", 0), ("0-3,6-7", "c0", 1), ("6", "40", 1), ("5-900", "e0", 1), ("rubbish", "f0", 0)):
            write_cpuset(phone, allowed, "/foreground")
            assert fast_core_words(remote, board) == ["taskset", mask], allowed
            assert [note.startswith("Of its 4 fastest cores our programs may use") for note in core_notes(remote, board)] == [True] * notes
        write_cpuset(phone, "0-3", "/background")
    outcome = cli("device", "check", "phone")
    first, remedy = outcome.err.strip().splitlines()
    assert outcome.code == 3 and first.endswith("lets our programs run on cores 0-3 only (cpuset /background); its fastest are cores 4-7.")
    assert remedy.startswith("Turn its screen on")
    nothing_left(phone)


def test_a_folder_in_which_nothing_may_be_executed(phone: Phone) -> None:
    loader = Path(phone.board) / LOADER
    with connected(phone.address) as remote:
        for script, mode, message in (
            ("exit 0", 0o755, ""),
            ("exit 0", 0o644, "does not let this user execute programs in .*ermission denied"),
            ("echo 'ELF load command alignment not page-aligned' >&2; exit 127", 0o755, "does not start on the board: ELF load command"),
        ):
            loader.write_text(f"#!/bin/sh\n{script}\n")
            loader.chmod(mode)
            with pytest.raises(DeviceUnavailable, match=message) if message else contextlib.nullcontext():
                check_runs(remote, phone.board)


def test_what_holds_a_phone_down(phone: Phone, cli: CommandLine) -> None:
    (board,) = register(cli, phone).boards
    with watching([board]) as watch:
        cool = watch.wait_until_cool(limit_s=5)
        assert watch.spoiled(cool, watch.read()) == "", "a phone that does not tell"
        for number in range(4, 8):
            (phone.root / f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_max_freq").write_text("1700000\n")
        warm = watch.wait_until_cool(limit_s=0)
        assert watch.spoiled(cool, warm) == watch.spoiled(warm, cool) == "its clock was capped at 1.7 of 2.4 GHz"
        assert disturbances(warm[0], board)[0].startswith("Its fastest clock is capped at 1.7 of 2.4 GHz. ")
        phone.program("dumpsys", 'echo "Thermal Status: 2"')
        now = watch.wait_until_cool(limit_s=0)
        assert now[0].throttled == ("thermal status moderate",)
        assert watch.spoiled(cool, now) == "its clocks were held down: thermal status moderate"
        assert "held down: thermal status moderate" in disturbances(now[0], board)[0]
        phone.order("cut")
        wait_until(lambda: devices() != [(phone.address.serial, "device")], "adb to notice")
        phone.order("back")
        assert watch.read()[0].throttled == now[0].throttled, "by a new connection"


@pytest.mark.long
def test_a_phone_that_is_held_down_is_timed_again_and_then_said_not_to_count(phone: Phone, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, phone)
    library = compiled(cli, tmp_path / "out")
    phone.program("dumpsys", HEATS_UP)
    benched = cli("bench", str(library), "--device", "phone", "--out", str(tmp_path / "out"), "--repeat", "1")
    assert benched.code == 0, benched.err
    assert f"not valid: {library.stem}: its clocks were held down: thermal status moderate." in " ".join(benched.out.split())
    (variant,) = read_results(tmp_path / "out" / "report.json").variants
    assert variant.invalid == "its clocks were held down: thermal status moderate"
    assert int((phone.root / "system/bin/dumpsys.count").read_text()) == 2 * MOST_ATTEMPTS
    nothing_left(phone)


def unplugged(cli: CommandLine, phone: Phone, library: Path, back: bool) -> Outcome:
    """Return a `bench` in the middle of which the phone is unplugged, and perhaps plugged in again once adb has noticed."""
    happened = threading.Event()

    def unplug() -> None:
        with contextlib.suppress(AssertionError):
            wait_until(lambda: len(agents(phone)) == 2, "a session", 120)
            phone.order("cut")
            wait_until(lambda: devices() != [(phone.address.serial, "device")], "adb to notice")
            if back:
                phone.order("back")
            happened.set()

    thread = threading.Thread(target=unplug)
    thread.start()
    try:
        return cli("bench", str(library), "--device", "phone", "--out", str(library.parent), "--repeat", "3000")
    finally:
        thread.join()
        assert happened.is_set()


@pytest.mark.long
def test_a_phone_that_is_unplugged_and_comes_back(phone: Phone, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, phone)
    outcome = unplugged(cli, phone, compiled(cli, tmp_path / "out"), back=True)
    assert outcome.code == 0, outcome.err
    (variant,) = read_results(tmp_path / "out" / "report.json").variants
    assert variant.invalid == "" and variant.max_error < 1e-5
    nothing_left(phone)


@pytest.mark.long
def test_a_phone_that_is_unplugged_for_good(phone: Phone, cli: CommandLine, tmp_path: Path) -> None:
    register(cli, phone)
    library = compiled(cli, tmp_path / "out")
    begin = time.monotonic()
    outcome = unplugged(cli, phone, library, back=False)
    # The link may notice it first, or what watches over the board's state.
    is_named = "phone stopped answering: " in outcome.err or " does not answer: " in outcome.err
    assert outcome.code == 3 and len(outcome.err.strip().splitlines()) == 2 and is_named, outcome.err
    assert time.monotonic() - begin < RECONNECT_S + 60
    phone.order("back")
    assert cli("device", "check", "phone").code == 0, "nobody has it any more"
    nothing_left(phone)
