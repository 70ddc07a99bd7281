"""adb's own server: missing, broken, open to others, ended."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from phones import Phone, adb, adb_servers, private_adb_server
from waiting import wait_until

from tvmmobile.devices.adb.remote import connect_adb, devices
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import DeviceUnavailable, UserError


def test_no_adb_program(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with private_adb_server(tmp_path):
        monkeypatch.setenv("PATH", str(tmp_path))
        with pytest.raises(DeviceUnavailable, match=r"adb is not installed on this machine\.\nRun: apt-get install -y adb"):
            devices()
        (tmp_path / "adb").write_text("#!/bin/sh\necho 'adb: no luck' >&2\nexit 1\n")
        (tmp_path / "adb").chmod(0o755)
        with pytest.raises(DeviceUnavailable, match=r"cannot start its server on port \d+: adb: no luck\."):
            devices()


def test_a_server_that_is_open_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server listens as `adb -a nodaemon server` does; it is not really adb, which it would not do to open to others."""
    with socket.create_server(("0.0.0.0", 0)) as listener:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))
        with pytest.raises(DeviceUnavailable, match=r"takes connections from other machines(.|\n)*adb kill-server"):
            devices()


def test_a_server_that_ends(phone: Phone) -> None:
    remote = connect_adb(phone.address)
    process = remote.start(["sleep", "600"])
    adb("kill-server")
    with pytest.raises(LinkLost):
        process.read_line(10)
    assert not remote.alive()
    remote.close()
    wait_until(lambda: not adb_servers(adb_server_port()))


def test_something_else_on_the_port(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(listener.getsockname()[1]))

        def serve() -> None:
            listener.accept()[0].close()  # the first one only looks whether there is a server
            connection, _ = listener.accept()
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceUnavailable, match="does not answer"):
            devices()
        thread.join()


@pytest.mark.parametrize("text", ["no", "0", "65536", "-1"])
def test_a_port_that_is_none(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", text)
    with pytest.raises(UserError, match="ANDROID_ADB_SERVER_PORT"):
        adb_server_port()
