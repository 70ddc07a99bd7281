"""A session with an agent: TVM's own, reached through a tracker client that cannot block for ever.

TVM's `TrackerSession.request` waits without a limit and its sockets keep Nagle's algorithm, 40 ms a message; this one has a deadline for
everything, and `TCP_NODELAY`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

from tvmmobile.devices.agents.tracker import MAX_MESSAGE_BYTES, REQUEST, SUCCESS, TRACKER_MAGIC
from tvmmobile.devices.protocol import Endpoint

#: How long the agent's own deadline may be overrun before the connection is cut from this side.
GRACE_S = 5.0
DEFAULT_WAIT_S = 60.0


class LinkError(Exception):
    """The device could not be reached, or went away: nothing is known about what was to run on it."""


class HostGone(LinkError):
    """The process that leads to the device has ended, and with it every way there."""


@contextlib.contextmanager
def open_session(endpoint: Endpoint, timeout_s: float, wait_s: float = DEFAULT_WAIT_S) -> Iterator[Any]:
    """An `AgentSession` (TVM's `RPCSession` and a little more), closed when the context ends, whatever remote objects are still alive.

    Args:
        endpoint: where the agents are asked for.
        timeout_s: how long the whole session may last; then the agent kills it and the call under way raises.
        wait_s: how long to wait for a free agent.

    Raises:
        LinkError: no agent was free in time, or it did not answer. Failures of what runs inside come as TVM's own exceptions.
    """
    from tvm.rpc import _ffi_api

    from tvmmobile.devices.agents.session import AgentSession

    host, port, match_key = _request_agent(endpoint, wait_s)
    options = f" -timeout={timeout_s:g}" + (f" -token={endpoint.token}" if endpoint.token else "")
    earlier = _local_ports(host, port)
    with _cut_off(host, port, earlier, timeout_s + GRACE_S):
        try:
            module = _ffi_api.Connect(host, port, match_key + options, False)
        except Exception as error:  # TVM raises whatever its C++ side threw: RuntimeError, InternalError, …
            raise LinkError(f"the agent at {host}:{port} did not open a session: {_last_line(error)}") from error
        with _own_connection(host, port, earlier) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            close = module.get_function("CloseRPCConnection")
            try:
                yield AgentSession(module, connection)
            finally:
                with contextlib.suppress(Exception):  # the connection may be gone already, which is as closed as it gets
                    close()


def _own_connection(host: str, port: int, earlier: set[int]) -> socket.socket:
    """A duplicate of the connection that has just been made, which TVM keeps to itself."""
    found = _connections(host, port, earlier)
    if not found:
        raise LinkError(f"the agent at {host}:{port} closed the connection")
    return found[0]


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _request_agent(endpoint: Endpoint, wait_s: float) -> tuple[str, int, str]:
    deadline = time.monotonic() + wait_s
    try:
        with socket.create_connection((endpoint.host, endpoint.port), timeout=wait_s) as tracker:
            tracker.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            request = json.dumps([REQUEST, endpoint.key, "", 1]).encode()
            tracker.sendall(struct.pack("<i", TRACKER_MAGIC) + struct.pack("<i", len(request)) + request)
            if struct.unpack("<i", _receive(tracker, 4, deadline))[0] != TRACKER_MAGIC:
                raise LinkError(f"there is no tracker at {endpoint.host}:{endpoint.port}")
            size = struct.unpack("<i", _receive(tracker, 4, deadline))[0]
            if not 0 < size <= MAX_MESSAGE_BYTES:
                raise LinkError("the tracker's answer is invalid")
            code, place = json.loads(_receive(tracker, size, deadline))
    except TimeoutError:
        raise LinkError(f"no agent of {endpoint.key!r} was free within {wait_s:g} s") from None
    except (OSError, ValueError, TypeError) as error:
        kind = HostGone if isinstance(error, ConnectionRefusedError) else LinkError
        raise kind(f"the tracker at {endpoint.host}:{endpoint.port} cannot be asked: {error}") from error
    if code != SUCCESS:
        raise LinkError(f"the tracker has no agent of {endpoint.key!r}")
    return str(place[0]), int(place[1]), str(place[2])


def _receive(sock: socket.socket, size: int, deadline: float) -> bytes:
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


def _local_ports(host: str, port: int) -> set[int]:
    """The local ports of this process's connections to an agent, left by sessions that have ended but are not closed yet."""
    ports = set()
    for connection in _connections(host, port, set()):
        with connection:
            ports.add(int(connection.getsockname()[1]))
    return ports


def _connections(host: str, port: int, earlier: set[int]) -> list[socket.socket]:
    """Duplicates of this process's connections to an agent, those from the local ports `earlier` left out.

    An agent serves one session at a time and offers itself only between them, so no other thread connects to it meanwhile.
    """
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            if not os.readlink(f"/proc/self/fd/{name}").startswith("socket:"):
                continue
            candidate = socket.socket(fileno=os.dup(int(name)))
        except (OSError, ValueError):
            continue
        with contextlib.suppress(OSError):
            if candidate.family == socket.AF_INET and candidate.getpeername() == (host, port) and candidate.getsockname()[1] not in earlier:
                found.append(candidate)
                continue
        candidate.close()
    return found


@contextlib.contextmanager
def _cut_off(host: str, port: int, earlier: set[int], after_s: float) -> Iterator[None]:
    """Shut this session's connection down after a while, so that a call to an agent that no longer answers ends."""

    def cut() -> None:
        for connection in _connections(host, port, earlier):
            with connection, contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(after_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
