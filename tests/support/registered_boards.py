"""Boards for tests of hardware: an account here, behind a real sshd or not, its agent under QEMU, described as a Raspberry Pi 4."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from conftest import CommandLine
from pi4_tree import write_pi4_tree
from ssh_server import Home, Server, new_key

from tvmmobile.devices.board.registered import DeviceFile, RegisteredBoard, load_device
from tvmmobile.devices.ssh.keys import fingerprint_of
from tvmmobile.system.environment import cache_dir

RUNNER = "qemu-aarch64"


@dataclass(frozen=True)
class TestBoard:
    """A board whose programs run here, under QEMU: its files, and the folder of its agent."""

    __test__ = False

    root: Path
    directory: Path

    def described_words(self) -> list[str]:
        """Options of `device add` that say what it is."""
        return ["--runner", RUNNER, "--root", str(self.root), "--directory", str(self.directory)]

    def add_words(self, name: str) -> list[str]:
        """Return the command line that registers it, as this machine."""
        return ["device", "add", name, "--local", *self.described_words()]

    def agents(self) -> list[psutil.Process]:
        """Return the agents' own processes, sessions not among them."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                words = process.cmdline()
                parent = process.parent()
                ours = RUNNER in words[:1] and any(word.startswith(str(self.directory)) for word in words)
                if ours and not (parent is not None and words == parent.cmdline()):
                    found.append(process)
        return found

    def processes(self) -> list[psutil.Process]:
        """Everything that serves it."""
        return self.agents()

    def leftovers(self) -> list[str]:
        """Return what a run that ended should not have left on the board."""
        files = [path.name for path in (self.root / "tmp").iterdir()]
        if self.directory.exists():
            files += [path.name for path in self.directory.iterdir() if path.name.startswith("work")]
        return files + [f"process {process.pid}" for process in self.agents()]

    def stop(self) -> None:
        """End what leads to it."""


@dataclass(frozen=True)
class SshBoard(TestBoard):
    """One behind a server."""

    server: Server

    def add_words(self, name: str) -> list[str]:
        """Return the command line that registers it."""
        address = self.server.address
        words = ["device", "add", name, "--ssh", address.destination, "--port", str(address.port), *self.described_words()]
        return [*words, "--fingerprint", fingerprint_of(address.host_key)]

    def processes(self) -> list[psutil.Process]:
        """Return the processes that the server runs."""
        return self.server.sessions()

    def stop(self) -> None:
        """Stop the server."""
        self.server.stop()


def make_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """Return a home directory with a key of its own; the cache stays where it was, for the agent in it takes seconds to build."""
    monkeypatch.setenv("TVMMOBILE_CACHE", str(cache_dir()))
    home = Home(tmp_path / "user")
    home.ssh.mkdir(parents=True, mode=0o700)
    new_key(home.key)
    monkeypatch.setenv("HOME", str(home.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return home


def make_board(folder: Path, home: Home) -> SshBoard:
    """Start a server for one board."""
    return SshBoard(write_pi4_tree(folder / "tree"), folder / "agent of mine", Server(folder / "server", home))


def make_local_board(folder: Path) -> TestBoard:
    """This machine as a board."""
    return TestBoard(write_pi4_tree(folder / "tree"), folder / "agent of mine")


def register(cli: CommandLine, board: TestBoard, name: str = "desk", *more: str) -> DeviceFile:
    """Add the board by the command line."""
    outcome = cli(*board.add_words(name), *more)
    assert outcome.code == 0, outcome.err
    device = load_device(name)
    assert device is not None
    return device


def only_board(device: DeviceFile) -> RegisteredBoard:
    """Return the board of a device with one board."""
    (board,) = device.boards
    return board
