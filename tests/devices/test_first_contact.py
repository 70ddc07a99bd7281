"""The process that links a device's boards: its configuration, and its message if no board becomes ready."""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tvmmobile.devices.board import hardware, link, link_host
from tvmmobile.devices.board.hardware import HardwareDevice
from tvmmobile.devices.board.link import AgentPlan
from tvmmobile.devices.board.link_host import LinkConfig
from tvmmobile.devices.board.registered import AdbAddress, DeviceFile, Facts, LinuxCore, RegisteredBoard
from tvmmobile.devices.board.remote import LinkLost

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
    plan = AgentPlan("pi4", Path("/nowhere"), "0" * 64, "me@here", "run")
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading) as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            link_host._serve(LinkConfig(plan=plan, boards=(BOARD,), parent=os.getppid(), deadline_s=0.5))
    finally:
        os.close(writing)
    first = json.loads(capsys.readouterr().out.splitlines()[0])
    assert first["error"] == "adb X1 does not answer: sh does not start."


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
