"""The process that links a device's boards: its configuration, and its message if no board becomes ready."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tvmmobile.devices.agents import launch
from tvmmobile.devices.agents.host import STILL_INSTALLING
from tvmmobile.devices.board import hardware, link, link_host
from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.link import AgentPlan
from tvmmobile.devices.board.link_host import LinkConfig
from tvmmobile.devices.board.registered import AdbAddress, DeviceFile, Facts, LinuxCore, RegisteredBoard
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.system.errors import DeviceUnavailable

FACTS = Facts(
    architecture="aarch64",
    model="",
    cores=(LinuxCore(implementer=0x41, part=0xD08, max_hz=1e9),),
    memory_bytes=1,
    system="",
    kernel="",
    libc="",
)
BOARD = RegisteredBoard(address=AdbAddress(serial="X1"), directory="/d", facts=FACTS, added="")


def test_the_reason_of_repeated_failures_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def connect(_address: object) -> object:
        raise LinkLost("sh does not start")

    monkeypatch.setattr(link, "connect", connect)
    monkeypatch.setattr(link, "PAUSE_S", 0.05)
    serve(monkeypatch, 0.5)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["error"] == "adb X1 does not answer: sh does not start."


def test_sending_the_agent_may_take_as_long_as_the_network_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The next message is what came of it, not that no board was ready in time."""

    def install(_remote: object, _directory: str, _bundle: Path, progress: Callable[[str], None]) -> str:
        progress("pushing the agent (12 MB)")
        time.sleep(1)
        raise DeviceUnavailable("its disk is full.")

    monkeypatch.setattr(link, "connect", lambda _address: NoRemote())
    monkeypatch.setattr(link.BoardLease, "take", lambda *_: None)
    monkeypatch.setattr(link, "install_agent", install)
    monkeypatch.setattr(link_host, "_PROGRESS_S", 0.1)
    serve(monkeypatch, 0.3)
    said = capsys.readouterr()
    messages = list(map(json.loads, said.out.splitlines()))
    assert messages[0] == STILL_INSTALLING and next(one for one in messages if one != STILL_INSTALLING)["error"] == "its disk is full."
    assert "adb X1: pushing the agent (12 MB) …" in said.err


def test_the_lease_is_renewed_after_a_long_installation(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    taken: list[float] = []

    def check_runs(*_: object) -> None:
        raise DeviceUnavailable(f"taken {len(taken)} times.")

    monkeypatch.setattr(link, "connect", lambda _address: NoRemote())
    monkeypatch.setattr(link, "RENEW_S", 0.05)
    monkeypatch.setattr(link.BoardLease, "take", lambda *_: taken.append(time.monotonic()))
    monkeypatch.setattr(link, "install_agent", lambda *_: time.sleep(0.1))
    monkeypatch.setattr(link, "check_runs", check_runs)
    serve(monkeypatch, 5)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["error"] == "taken 2 times."


def test_a_host_that_installs_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "STOP_S", 0.0)
    host = """
import json, sys, time
for _ in range(8):
    print(sys.argv[1], flush=True)
    time.sleep(0.3)
print('{"port": 7}', flush=True)
sys.stdin.read()
"""
    with launch.hosted([sys.executable, "-c", host, json.dumps(STILL_INSTALLING)], "", 1.5, "", "") as port:
        assert port == 7


class NoRemote:
    """A connection that is gone."""

    def alive(self) -> bool:
        return False

    def close(self) -> None:
        pass


def serve(monkeypatch: pytest.MonkeyPatch, deadline_s: float) -> None:
    """Run the process's work here, for a board behind adb."""
    plan = AgentPlan("pi4", Path("/nowhere"), "0" * 64, "me@here", "run")
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            link_host._serve(LinkConfig(plan=plan, boards=(BOARD,), parent=os.getppid(), deadline_s=deadline_s))
    finally:
        os.close(writing)


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container started with `--user 1234` has such a user."""
    configs = []

    @contextlib.contextmanager
    def hosted(_words: object, config: str, *_: object) -> Iterator[int]:
        configs.append(LinkConfig.model_validate_json(config))
        yield 1

    def getuser() -> str:
        raise KeyError("getpwuid(): uid not found: 1234")

    monkeypatch.setattr(getpass, "getuser", getuser)
    monkeypatch.setattr(hardware, "hosted", hosted)
    monkeypatch.setattr(hardware, "build_bundle", lambda: Path("/nowhere"))
    with HardwareDevice(DeviceFile(name="pi4", boards=(BOARD,))).started():
        pass
    assert configs[0].plan.owner.startswith(f"{os.getuid()}@")
