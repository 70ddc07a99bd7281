"""Ports that lead through an SSH connection, either way."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

CONNECT_TIMEOUT_S = 20.0
_POLL_S = 0.5
_JOIN_S = 2.0
#: Fits into one packet of a channel; paramiko would split and copy larger reads.
PACKET_BYTES = (1 << 15) - 64


class Forwards:
    """Keeps all forwarded ports of one connection; `close` ends them with their listeners, connections and threads.

    Args:
        transport: paramiko's, logged in.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._lock = threading.Lock()
        self._closed = False
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self._reversed: dict[int, int] = {}

    def listen(self, port: int) -> int:
        """Listen on a free port of this machine's 127.0.0.1, and lead its connections to `port` of the board's; return it."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        listener.settimeout(_POLL_S)
        here: int = listener.getsockname()[1]
        self._start(f"ssh-forward-{here}", partial(self._accept, listener, port), listener)
        return here

    def accept_reversed(self, board_port: int, port: int) -> None:
        """Lead connections to `board_port`, a port the board's server listens on for us, to `port` of this machine's 127.0.0.1."""
        with self._lock:
            self._reversed[board_port] = port

    def take_channel(self, channel: Any, _origin: tuple[str, int], server: tuple[str, int]) -> None:
        """Take a connection to a port of the board. paramiko calls this in the transport's thread, which must not wait."""
        self._start("ssh-reverse", partial(self._connect_here, channel, server[1]))

    def close(self) -> None:
        """End everything; the transport is closed already, or the channels would hold their threads."""
        with self._lock:
            self._closed = True
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            _shut(sock, socket.SHUT_RDWR)  # wakes the thread that waits for it, which closes it
        for thread in threads:
            thread.join(_JOIN_S)

    def _start(self, name: str, work: Callable[[], None], sock: socket.socket | None = None) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._threads.discard(thread)
                    if sock is not None:
                        self._sockets.discard(sock)
                if sock is not None:
                    sock.close()

        thread = threading.Thread(target=run, name=name, daemon=True)
        with self._lock:
            closed = self._closed
            if not closed:
                thread.start()
                self._threads.add(thread)
                if sock is not None:
                    self._sockets.add(sock)
        if closed and sock is not None:
            sock.close()

    def _accept(self, listener: socket.socket, port: int) -> None:
        while not self._closed and self._transport.is_active():
            try:
                sock, origin = listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            sock.settimeout(None)
            self._start("ssh-forwarded", partial(self._connect_there, sock, origin, port), sock)

    def _connect_there(self, sock: socket.socket, origin: tuple[str, int], port: int) -> None:
        try:
            channel = self._transport.open_channel("direct-tcpip", ("127.0.0.1", port), origin, timeout=CONNECT_TIMEOUT_S)
        except Exception:  # nothing listens there, or the connection is gone: paramiko raises the error that ended its thread
            return
        self._carry(sock, channel)

    def _connect_here(self, channel: Any, board_port: int) -> None:
        with self._lock:
            port = self._reversed.get(board_port)
        try:
            sock = socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT_S) if port is not None else None
        except OSError:
            sock = None
        if sock is None:
            close_channel(channel)
            return
        sock.settimeout(None)
        with self._lock:
            closed = self._closed
            self._sockets.add(sock)
        try:
            if not closed:
                self._carry(sock, channel)
        finally:
            with self._lock:
                self._sockets.discard(sock)
            sock.close()

    def _carry(self, sock: socket.socket, channel: Any) -> None:
        """Forward both ways until both have ended; each end is passed on separately."""
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        outward = threading.Thread(target=_to_channel, args=(sock, channel), name="ssh-outward", daemon=True)
        outward.start()
        _to_socket(channel, sock)
        outward.join()
        close_channel(channel)


def _to_channel(sock: socket.socket, channel: Any) -> None:
    try:
        while chunk := sock.recv(PACKET_BYTES):
            send_all(channel, chunk)
        channel.shutdown_write()
    except Exception:  # one side is gone, for which paramiko raises many kinds of errors; the other side must learn of it
        close_channel(channel)
        _shut(sock, socket.SHUT_RD)


def _to_socket(channel: Any, sock: socket.socket) -> None:
    try:
        while chunk := channel.recv(PACKET_BYTES * 8):
            sock.sendall(chunk)
    except Exception:  # as above
        close_channel(channel)
    # If the channel has ended too, so has the connection: nobody is left to read data in the other direction.
    _shut(sock, socket.SHUT_RDWR if channel.closed else socket.SHUT_WR)


def send_all(channel: Any, content: bytes) -> None:
    """Send all of it, or raise `OSError` or an error of paramiko's; paramiko's own function loops for ever on a channel that was shut."""
    while content:
        sent = channel.send(content)
        if sent == 0:
            raise ConnectionResetError("the channel is closed")
        content = content[sent:]


def close_channel(channel: Any) -> None:
    """Close it, whatever the state of its transport."""
    with contextlib.suppress(Exception):
        channel.close()


def _shut(sock: socket.socket, direction: int) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(direction)
