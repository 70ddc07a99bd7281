"""A private adb server for tests, and phones (`adb_daemon.py`) that it can be connected to."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from processes import runs

from tvmmobile.devices.board.registered import AdbAddress

ADB = shutil.which("adb")
#: Bytes to send: 8 MiB.
PATTERN = bytes(range(256)) * (8 << 12)


@contextlib.contextmanager
def private_adb_server(folder: Path) -> Iterator[int]:
    """Lets adb, started by whatever runs in here, use a server and keys of its own; yields the server's port. Nothing is started yet."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "ANDROID_ADB_SERVER_PORT": str(port),
            "HOME": str(folder),
            "TMPDIR": str(folder),
            # adb looks for emulators on ports of this machine; not here.
            "ADB_LOCAL_TRANSPORT_MAX_PORT": "5554",
        }.items():
            patch.setenv(name, value)
        for name in ("ADB_SERVER_SOCKET", "ANDROID_ADB_SERVER_ADDRESS", "ANDROID_SERIAL", "ADB_VENDOR_KEYS", "ADB_TRACE"):
            patch.delenv(name, raising=False)
        try:
            yield port
        finally:
            servers = adb_servers(port)
            if servers:
                adb("kill-server")
            _, alive = psutil.wait_procs(servers, timeout=5)
            for process in alive:
                process.kill()


def adb_servers(port: int) -> list[psutil.Process]:
    """Return the adb servers that were started for that port."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            words = process.cmdline()
            if process.name() == "adb" and "fork-server" in words and any(word.endswith(f":{port}") for word in words):
                found.append(process)
    return found


def adb(*words: str) -> str:
    """Return the output of the `adb` program."""
    assert ADB is not None
    return subprocess.run(
        [ADB, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30, check=False
    ).stdout.strip()


class Phone:
    """A phone that is on: the daemon in a process of its own.

    Args:
        root: its folder; files of boards belong into `board`.
        options: options of the daemon.
    """

    def __init__(self, root: Path, *options: str) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self._errors = root / "daemon-errors.txt"
        self.board = str(root / "data" / "local" / "tmp")
        program = Path(__file__).with_name("adb_daemon.py")
        with self._errors.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, str(program), "--root", str(root), *options],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env={name: value for name, value in os.environ.items() if not name.startswith("ANDROID")},
            )
        self.port = int(self._answer())
        self.address = AdbAddress(serial=f"127.0.0.1:{self.port}")

    def order(self, line: str) -> str:
        """Give an order (see the daemon); returns its answer once it is carried out."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert not answer.startswith("unknown"), answer
        return answer

    def commands(self) -> list[psutil.Process]:
        """Return the processes of commands that run on it."""
        return [child for child in psutil.Process(self.process.pid).children(recursive=True) if runs(child)]

    def program(self, name: str, script: str) -> None:
        """Install a program, found before this machine's of that name."""
        path = self.root / "system" / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def switch_off(self) -> None:
        """End it, and what runs on it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            self.process.wait(10)
        finally:
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
        assert self._errors.read_text() == ""

    def _answer(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().decode().strip()
        assert line, f"the phone has switched itself off: {self._errors.read_text()}"
        return line


@contextlib.contextmanager
def switched_on(root: Path, *options: str) -> Iterator[Phone]:
    """A phone, which adb forgets again at the end."""
    phone = Phone(root, *options)
    try:
        yield phone
    finally:
        phone.switch_off()
        if adb_servers(int(os.environ["ANDROID_ADB_SERVER_PORT"])):
            adb("disconnect", phone.address.serial)
