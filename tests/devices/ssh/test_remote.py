"""SSH connections that break, and servers that do not answer or speak something else."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from ssh_server import Home, Server, free_port
from waiting import wait_until

from tvmmobile.devices.board.registered import SshAddress
from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.keys import host_key_of
from tvmmobile.devices.ssh.remote import connect_ssh
from tvmmobile.system.errors import DeviceUnavailable


def test_a_server_killed_during_a_program(own: Callable[..., Server]) -> None:
    server = own()
    remote = connect_ssh(server.address)
    try:
        process = remote.start(["sh", "-c", "echo up; cat"])
        assert process.read_line(10) == "up"
        killer = threading.Timer(0.5, server.signal_sessions, (signal.SIGKILL,))
        killer.start()
        started = time.monotonic()
        with pytest.raises(LinkLost, match=r"connection to 127\.0\.0\.1 was lost"):
            remote.run(["sleep", "30"])
        assert time.monotonic() - started < 5
        killer.join()
        with pytest.raises(LinkLost):
            process.read_line(5)
        assert process.poll() == -1
        assert not remote.alive()
    finally:
        remote.close()


def test_a_silent_server_is_noticed(own: Callable[..., Server]) -> None:
    server = own()
    remote = connect_ssh(server.address)
    try:
        assert remote.alive()
        server.signal_sessions(signal.SIGSTOP)
        started = time.monotonic()
        assert not remote.alive()
        with pytest.raises(LinkLost, match="did not answer"):
            remote.run(["true"], timeout_s=1)
        assert time.monotonic() - started < 6
        server.signal_sessions(signal.SIGCONT)
        wait_until(remote.alive, "the server to answer again")
        assert remote.run(["echo", "again"]).stdout == "again\n"
    finally:
        remote.close()


def test_a_closed_port(home: Home) -> None:
    port = free_port()
    with pytest.raises(DeviceUnavailable, match=f"127.0.0.1 port {port} refuses connections") as caught:
        host_key_of("127.0.0.1", port)
    assert caught.value.remedy


def test_a_name_that_does_not_resolve(home: Home) -> None:
    with pytest.raises(DeviceUnavailable, match=r"the name no-such-board\.invalid cannot be resolved"):
        host_key_of("no-such-board.invalid", timeout_s=5)


@pytest.mark.parametrize("banner", [b"", b"SSH-2.0-OpenSSH_9.2p1\r\n"], ids=["no banner", "a banner"])
def test_a_server_that_never_speaks(home: Home, banner: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        peers: list[socket.socket] = []

        def accept() -> None:
            peers.append(listener.accept()[0])
            peers[0].sendall(banner)

        thread = threading.Thread(target=accept)
        thread.start()
        address = SshAddress(destination="127.0.0.1", port=port, host_key="ssh-ed25519 AAAA")
        started = time.monotonic()
        with pytest.raises(DeviceUnavailable, match=f"127.0.0.1 port {port} did not answer within 1 s"):
            connect_ssh(address, timeout_s=1)
        assert time.monotonic() - started < 2
        thread.join()
        peers[0].close()


def test_a_server_of_another_kind(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DeviceUnavailable, match="does not answer as an SSH server does"):
            host_key_of("127.0.0.1", listener.getsockname()[1], timeout_s=5)
        thread.join()


def _hang_up_amid_key_exchange(listener: socket.socket) -> None:
    peer, _ = listener.accept()
    with peer:
        peer.sendall(b"SSH-2.0-OpenSSH_9.2p1\r\n")
        peer.recv(8)


def test_a_server_that_hangs_up(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_hang_up_amid_key_exchange, args=(listener,))
        thread.start()
        with pytest.raises(DeviceUnavailable, match="broke off the key exchange"):
            host_key_of("127.0.0.1", listener.getsockname()[1], timeout_s=30)
        thread.join()


def test_failures_are_said_once(home: Home) -> None:
    """Not by tracebacks from paramiko's own thread as well. In a process without pytest's logging."""
    script = "import sys; from tvmmobile.devices.ssh.keys import host_key_of; host_key_of('127.0.0.1', int(sys.argv[1]), 30)"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=lambda: listener.accept()[0].close())
        thread.start()
        words = [sys.executable, "-c", script, str(listener.getsockname()[1])]
        done = subprocess.run(words, capture_output=True, text=True, timeout=20, check=False)
        thread.join()
    assert "DeviceUnavailable" in done.stderr
    assert "paramiko" not in done.stderr
