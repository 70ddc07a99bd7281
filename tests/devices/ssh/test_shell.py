"""The shell that a server runs programs with: what it prints of its own, and whether it runs any."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import ClassVar

import paramiko
import pytest
from ssh_server import USER, Server

from tvmmobile.devices.ssh import process
from tvmmobile.devices.ssh.remote import connect_ssh
from tvmmobile.system.errors import DeviceUnavailable


def test_a_shell_that_prints_text_of_its_own(own: Callable[..., Server]) -> None:
    server = own()
    (server.home / ".bashrc").write_text("echo Welcome to my Pi\n")
    with pytest.raises(DeviceUnavailable) as caught:
        connect_ssh(server.address)
    assert f"the shell of {USER} on 127.0.0.1 port {server.port} prints text" in caught.value.message
    assert "'Welcome to my Pi'" in caught.value.message and "~/.bashrc" in caught.value.remedy
    (server.home / ".bashrc").write_text("echo Welcome to my Pi >&2\n")
    connect_ssh(server.address).close()


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("echo This account is currently not available.; exit 1", "This account is currently not available."),
        ("internal-sftp", "This service allows sftp connections only."),
        ("exit 3", "status 3."),
        ("true", "status 0."),
    ],
)
def test_a_user_who_may_run_nothing(own: Callable[..., Server], command: str, reason: str) -> None:
    with pytest.raises(DeviceUnavailable) as caught:
        connect_ssh(own(f"ForceCommand {command}").address)
    assert f"lets {USER} in, but runs no programs: {reason}" in caught.value.message
    assert f"{USER}@127.0.0.1 true" in caught.value.remedy


def test_threads_that_are_refused_at_the_same_time() -> None:
    """paramiko keeps the last reason for all threads, so that one of them gets none."""

    class Crowded:
        refusals: ClassVar = [paramiko.ChannelException(2, "Connect failed"), paramiko.SSHException("Unable to open channel.")]

        def is_active(self) -> bool:
            return True

        def is_alive(self) -> bool:
            return True

        def join(self, _timeout: float) -> None:
            pass

        def open_session(self, timeout: float) -> str:
            if self.refusals:
                raise self.refusals.pop()
            return "a channel"

    assert process._open_session(Crowded(), "pi", 30.0) == "a channel"


def test_a_server_with_few_sessions_a_connection(own: Callable[..., Server]) -> None:
    """Programs wait for each other for a while, and what is left running too long is named."""
    remote = connect_ssh(own("MaxSessions 1").address)
    try:
        done: list[float] = []
        thread = threading.Thread(target=lambda: done.append(remote.run(["sleep", "0.5"]).status))
        begin = time.monotonic()
        thread.start()
        assert all(remote.run(["true"]).status == 0 for _ in range(4))
        thread.join()
        assert done == [0] and time.monotonic() - begin > 0.5
        remote.start(["cat"])
        with pytest.raises(DeviceUnavailable, match="refuses to run another program over its connection") as caught:
            remote.run(["true"])
        assert "MaxSessions" in caught.value.remedy
    finally:
        remote.close()
