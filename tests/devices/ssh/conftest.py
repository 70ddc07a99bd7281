"""Real OpenSSH servers on this machine, for the tests of this folder; no test may leave a connection behind."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from ssh_server import Home, Server, new_key, require_sshd
from waiting import wait_until

from tvmmobile.devices.ssh.remote import SshRemote, connect_ssh


@pytest.fixture(scope="session")
def first_home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    require_sshd()
    home = Home(tmp_path_factory.mktemp("home"))
    new_key(home.key)
    return home


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory, first_home: Home) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("sshd"), first_home, key_types=("ed25519", "ecdsa", "rsa"))
    yield server
    server.stop()


@pytest.fixture
def home(tmp_path: Path, first_home: Home, monkeypatch: pytest.MonkeyPatch) -> Home:
    """A new home with the key that servers let in, and no agent."""
    mine = Home(tmp_path / "home")
    mine.ssh.mkdir(parents=True, mode=0o700)
    for path in first_home.ssh.glob("id_ed25519*"):
        (mine.ssh / path.name).write_bytes(path.read_bytes())
    mine.key.chmod(0o600)
    monkeypatch.setenv("HOME", str(mine.path))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return mine


@pytest.fixture
def remote(shared: Server, home: Home) -> Iterator[SshRemote]:
    opened = connect_ssh(shared.address)
    yield opened
    opened.close()


@pytest.fixture
def own(tmp_path: Path, home: Home) -> Iterator[Callable[..., Server]]:
    """Makes servers that a test may harm."""
    with contextlib.ExitStack() as stack:

        def make(*options: str, key_types: tuple[str, ...] = ("ed25519",)) -> Server:
            server = Server(tmp_path / f"sshd{len(list(tmp_path.iterdir()))}", home, *options, key_types=key_types)
            stack.callback(server.stop)
            return server

        yield make


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    """Whatever a test does: no thread, socket or process of a connection stays."""
    before = _state()
    yield
    wait_until(lambda: not (_state() - before), f"these to go away: {_state() - before}", 5)


def _state() -> set[object]:
    mine = psutil.Process()
    threads: set[object] = {thread for thread in threading.enumerate() if thread.name != "ssh-resolve"}
    sockets: set[object] = {(link.fd, link.laddr, link.raddr) for link in mine.net_connections("tcp")}
    return threads | sockets
