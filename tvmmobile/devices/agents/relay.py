"""Leads TVM's client in this process to an agent that has proved itself.

TVM's client trusts whoever answers: it opens the connection itself, proves nothing, and while it waits for an answer it executes any
request that arrives instead (`HandleProcessPacket` in TVM's rpc_endpoint.cc), which can read this process's memory and load a library. So
it never connects to an agent directly. The connection to the agent is made and proved here (`prove`). TVM's client connects to a port that
this process listens on, with a key that nothing else knows, and once it has begun its session, the agent's connection takes the place of
that one (`Relay`).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import socket
import stat
import struct
import threading
import time

from tvmmobile.devices.agents.proof import BYTES, nonce, proof, proves

RPC_MAGIC = 0xFF271
AGENT_MAGIC = 0x746D6101
#: Time for an agent to prove itself and begin a session.
PROVE_S = 10.0
#: TVM's packets that are answers (`RPCCode` in rpc_reference.h): kReturn, kException, kCopyAck.
_ANSWERS = frozenset({4, 5, 8})
_HEADER = struct.Struct("<Qi")
_CHUNK_BYTES = 1 << 18
#: Most connections to the port that have not shown the key; beyond that, the oldest is dropped.
_MOST_WAITING = 16


class _Stopped(Exception):
    """Raised when `Relay`'s thread must end."""


class NotProven(Exception):
    """Raised when the other end does not know this run's secret or the offer."""


def prove(agent: socket.socket, key: bytes, offer: str, timeout_s: float) -> None:
    """Prove to an agent that this process knows the run's secret, once the agent has; the offer binds both to that agent, once.

    Args:
        agent: just connected.
        key: the run's secret.
        offer: the agent's announcement of itself.
        timeout_s: longest duration of the session, enforced by the agent.

    Raises:
        NotProven: the agent did not prove it, or does not accept the proof; nothing confidential was sent.
        OSError: the connection broke, or nothing came in time.
    """
    deadline = time.monotonic() + PROVE_S
    ours, limit = nonce(), round(timeout_s * 1000).to_bytes(8, "little")
    agent.sendall(struct.pack("<i", AGENT_MAGIC) + ours)
    answer = receive(agent, 2 * BYTES, deadline)
    theirs = answer[:BYTES]
    if not proves(answer[BYTES:], key, "agent", offer.encode(), ours, theirs):
        raise NotProven("it did not prove that it belongs to this run")
    agent.sendall(limit + proof(key, "client", offer.encode(), ours, theirs, limit))
    if receive(agent, 4, deadline) != struct.pack("<i", RPC_MAGIC):
        raise NotProven("it refused the session")


def receive(sock: socket.socket, size: int, deadline: float) -> bytes:
    """Receive exactly `size` bytes; raise `TimeoutError` at the deadline (of `time.monotonic`), `OSError` if the connection ends."""
    data = b""
    while len(data) < size:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        sock.settimeout(left)
        chunk = sock.recv(size - len(data))
        if not chunk:
            raise ConnectionResetError("it closed the connection")
        data += chunk
    return data


class Relay:
    """Opens a port for TVM's client in this process, which leads to an agent. A thread carries the greetings; then call `hand_over`.

    The thread cannot carry the session: TVM's destructors wait for answers without letting other threads of Python run.

    Args:
        agent: a proven connection (`prove`), which this object owns from now on.
        deadline: latest time for the greetings, by `time.monotonic`.

    Attributes:
        port: port on 127.0.0.1 that TVM's client connects to, once.
        key: the key that it must present there.
    """

    def __init__(self, agent: socket.socket, deadline: float) -> None:
        self.agent, self._deadline = agent, deadline
        self.key = secrets.token_hex(BYTES)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._client: socket.socket | None = None
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def hand_over(self) -> socket.socket:
        """Give TVM's connected client the agent's connection; return that connection, for use while no call is under way.

        Raises:
            OSError: the client has gone.
        """
        self._stop()
        if self._client is None:
            raise ConnectionResetError("TVM's client has gone")
        with self._client as ours:
            theirs = _other_end(ours)
        self.agent.settimeout(None)  # this flag belongs to the shared file description, and TVM's sockets block
        os.dup2(self.agent.fileno(), theirs, inheritable=False)
        return self.agent

    def close(self) -> None:
        """End the session, handed over or not; never raises."""
        _shut(self.agent)
        self._stop()
        for sock in (self.agent, self._woken, *([self._client] if self._client is not None else [])):
            sock.close()

    def _stop(self) -> None:
        self._wake.close()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._listener:
                self._client = self._await_client()
            self._carry(self._client)
        except _Stopped:
            return
        except OSError:
            pass
        if self._client is not None:
            _shut(self._client)

    def _ready(self, *socks: socket.socket) -> list[socket.socket]:
        """Return the readable sockets; raise `TimeoutError` at the deadline, `_Stopped` when the thread must end."""
        poller = select.poll()
        by_number = {sock.fileno(): sock for sock in (*socks, self._woken)}
        for number in by_number:
            poller.register(number, select.POLLIN)
        events = poller.poll(max(0.0, self._deadline - time.monotonic()) * 1000)
        ready = [by_number[number] for number, _ in events]
        if self._woken in ready:
            raise _Stopped
        if not ready:
            raise TimeoutError
        return ready

    def _await_client(self) -> socket.socket:
        """Return the connection of TVM's client: the one that sends the key."""
        greeting = f"client:{self.key}".encode()
        greeting = struct.pack("<ii", RPC_MAGIC, len(greeting)) + greeting
        waiting: dict[socket.socket, bytes] = {}
        try:
            while True:
                for sock in self._ready(self._listener, *waiting):
                    if sock is self._listener:
                        newcomer, _ = sock.accept()
                        newcomer.settimeout(max(0.1, self._deadline - time.monotonic()))
                        waiting[newcomer] = b""
                        continue
                    received = waiting[sock]
                    chunk = _some(sock, len(greeting) - len(received))
                    waiting[sock] = received = received + chunk
                    if chunk and len(received) < len(greeting):
                        continue
                    del waiting[sock]
                    if secrets.compare_digest(received, greeting):
                        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        name = b"server:relay"
                        sock.sendall(struct.pack("<ii", RPC_MAGIC, len(name)) + name)
                        return sock
                    sock.close()
                while len(waiting) > _MOST_WAITING:
                    first = next(iter(waiting))
                    del waiting[first]
                    first.close()
        finally:
            for sock in waiting:
                sock.close()

    def _carry(self, client: socket.socket) -> None:
        """Forward requests as they come, and whole answers the other way, one per request."""
        while True:
            self._ready(client)
            request = client.recv(_CHUNK_BYTES)
            if not request:
                return
            self.agent.sendall(request)
            if not self._carry_answer(client):
                return

    def _carry_answer(self, client: socket.socket) -> bool:
        """Carry until one answer has gone through; false if either side has ended, or if the agent sent anything but an answer."""
        header, left = b"", 0
        while True:
            ready = self._ready(client, self.agent)
            if client in ready:  # a request's next piece
                request = client.recv(_CHUNK_BYTES)
                if not request:
                    return False
                self.agent.sendall(request)
            if self.agent not in ready:
                continue
            chunk = self.agent.recv(min(left or _HEADER.size - len(header), _CHUNK_BYTES))
            if not chunk:
                return False
            if left:
                client.sendall(chunk)
                left -= len(chunk)
            else:
                header += chunk
                if len(header) < _HEADER.size:
                    continue
                size, code = _HEADER.unpack(header)
                if code not in _ANSWERS or size < 4:
                    return False
                client.sendall(header)
                left = size - 4
            if not left:
                return True


def _other_end(ours: socket.socket) -> int:
    """Return the descriptor of the other end of a connection within this process, which TVM does not expose."""
    ends = ours.getpeername(), ours.getsockname()  # the port may have other connections
    for name in os.listdir("/dev/fd"):  # also on macOS
        try:
            if stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                with socket.socket(fileno=os.dup(int(name))) as candidate:
                    if candidate.family == socket.AF_INET and (candidate.getsockname(), candidate.getpeername()) == ends:
                        return int(name)
        except OSError:  # the listing's own descriptor, or one that another thread has just closed
            continue
    raise ConnectionResetError("TVM's client has gone")


def _some(sock: socket.socket, size: int) -> bytes:
    try:
        return sock.recv(size)
    except OSError:
        return b""


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)
