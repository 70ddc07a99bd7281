"""Ports that SSH forwards, both ways."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from ssh_server import Home, Server, free_port
from waiting import wait_until

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.ssh.remote import SshRemote, connect_ssh
from tvmmobile.system.errors import DeviceUnavailable


def _echo(listener: socket.socket) -> None:
    """Serve one connection: receive to its end, then send all of it back."""
    peer, _ = listener.accept()
    with peer:
        received = bytearray()
        while chunk := peer.recv(1 << 20):
            received += chunk
        peer.sendall(received)


def _exactly(sock: socket.socket, count: int) -> bytes:
    received = b""
    while len(received) < count and (chunk := sock.recv(count - len(received))):
        received += chunk
    return received


def _through(port: int, content: bytes) -> bytes:
    """Send all, then end, then receive to the end."""
    with socket.create_connection(("127.0.0.1", port), 20) as sock:
        sock.sendall(content)
        sock.shutdown(socket.SHUT_WR)
        received = bytearray()
        while chunk := sock.recv(1 << 20):
            received += chunk
    return bytes(received)


@contextlib.contextmanager
def _echo_server() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_echo, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)
        assert not thread.is_alive()


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ports_carry_data_both_ways(remote: SshRemote, direction: str) -> None:
    content = os.urandom(8 << 20)
    with _echo_server() as port:
        assert _through(getattr(remote, direction)(port), content) == content


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_ports_lead_each_where_they_should(remote: SshRemote, direction: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        listeners = [one, two]
        ports = [getattr(remote, direction)(listener.getsockname()[1]) for listener in listeners]
        assert len({*ports, *(listener.getsockname()[1] for listener in listeners)}) == 4
        for number, listener in reversed(list(enumerate(listeners))):
            listener.settimeout(10)
            with socket.create_connection(("127.0.0.1", ports[number]), 10) as sock:
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"%d" % number)
                    assert sock.recv(10) == b"%d" % number


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_port_where_nobody_listens_ends_the_connection(remote: SshRemote, direction: str) -> None:
    port = getattr(remote, direction)(free_port())
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        assert sock.recv(1) == b""
    assert remote.alive()


def test_small_messages_are_not_held_back(remote: SshRemote) -> None:
    """Each way; Nagle's algorithm would make 40 ms of each, 8 s in all."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        sock = stack.enter_context(socket.create_connection(("127.0.0.1", remote.forward(listener.getsockname()[1])), 10))
        peer = stack.enter_context(listener.accept()[0])
        for end in (sock, peer):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        started = time.monotonic()
        for _ in range(100):
            sock.sendall(b"a")
            sock.sendall(b"b")
            assert _exactly(peer, 2) == b"ab"
            peer.sendall(b"c")
            peer.sendall(b"d")
            assert _exactly(sock, 2) == b"cd"
        assert time.monotonic() - started < 6


def test_a_reset_connection_ends_the_other_side(remote: SshRemote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        sock = socket.create_connection(("127.0.0.1", remote.forward(listener.getsockname()[1])), 10)
        peer, _ = listener.accept()
        with peer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()
            peer.settimeout(10)
            assert peer.recv(1) == b""


def test_a_server_that_forwards_nothing(own: Callable[..., Server]) -> None:
    remote = connect_ssh(own("AllowTcpForwarding no").address)
    try:
        with pytest.raises(DeviceUnavailable, match="refuses to forward ports"):
            remote.reverse(9)
        assert remote.run(["true"]).status == 0
    finally:
        remote.close()


def test_nothing_is_left_after_closing(shared: Server, home: Home) -> None:
    """In the middle of everything; the autouse fixture looks for what is left of it."""
    remote = connect_ssh(shared.address)
    process = remote.start(["cat"])
    failures: list[BaseException] = []

    def work() -> None:
        try:
            remote.run(["sh", "-c", "echo; read -r line"], stdin=b"")
            remote.run(["sleep", "20"])
        except BaseException as error:
            failures.append(error)

    busy = threading.Thread(target=work)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port, there = remote.forward(listener.getsockname()[1]), remote.reverse(listener.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), 10) as one, socket.create_connection(("127.0.0.1", there), 10) as two:
            peers = [listener.accept()[0], listener.accept()[0]]
            busy.start()
            wait_until(lambda: any("sleep" in child.cmdline() for child in shared.sessions()), "the long program")
            started = time.monotonic()
            remote.close()
            remote.close()
            assert time.monotonic() - started < 3
            for sock in (one, two, *peers):
                sock.settimeout(10)
                assert sock.recv(1) == b""
                sock.close()
    busy.join(5)
    assert [type(error) for error in failures] == [LinkLost]
    assert process.poll() == -1
    assert not remote.alive()
    for use in (lambda: remote.run(["true"]), lambda: remote.start(["true"]), lambda: remote.forward(1), lambda: remote.reverse(1)):
        with pytest.raises(LinkLost, match="was lost"):
            use()
    with pytest.raises(LinkLost):
        remote.push(home.key, "/nowhere/file")
    with pytest.raises(LinkLost):
        process.read_line(1)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    shared.signal_sessions(signal.SIGKILL)
