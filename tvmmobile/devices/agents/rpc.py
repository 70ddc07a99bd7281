"""A TVM session with an agent, through a tracker and an agent that have proved to belong to this run.

TVM's `TrackerSession.request` waits without a limit, trusts whoever answers, and its sockets use Nagle's algorithm, 40 ms a message;
this one has a deadline for everything, and `TCP_NODELAY`.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any, Self

from tvmmobile.devices.agents.proof import BYTES, Seal, nonce, proves, tracker_seal
from tvmmobile.devices.agents.relay import PROVE_S, NotProven, Relay, prove, receive
from tvmmobile.devices.agents.tracker import MAX_MESSAGE_BYTES, REQUEST, SUCCESS, TRACKER_MAGIC
from tvmmobile.devices.board.storage import error_number
from tvmmobile.devices.protocol import Endpoint, NotStored

#: Time after the agent's own deadline at which this side cuts the connection.
GRACE_S = 5.0
DEFAULT_WAIT_S = 60.0
#: The agent's answer if a session's folder cannot be created (agent.cc, `SayWhy`), and the space that a folder takes: one block of most
#: file systems.
_NOT_STORED, _FOLDER_BYTES = "tvmmobile session cannot be stored", 4096


class LinkError(Exception):
    """Raised when the device cannot be reached, or goes away: it is unknown whether the work ran."""


class HostGone(LinkError):
    """Raised when the process that leads to the device has ended, so the device cannot be reached any more."""


@contextlib.contextmanager
def open_session(endpoint: Endpoint, timeout_s: float, wait_s: float = DEFAULT_WAIT_S) -> Iterator[Any]:
    """Open an `AgentSession` (TVM's `RPCSession` and a little more) until the context ends, whatever remote objects are still alive.

    Args:
        endpoint: the tracker to ask for an agent.
        timeout_s: longest time for the whole session (`Endpoint.longest_s`); then the agent kills it and the call under way raises.
        wait_s: longest wait for a free agent.

    Raises:
        LinkError: no agent was free in time, or it did not answer. Failures of what runs inside come as TVM's own exceptions.
        NotStored: the device's disk is full or read-only, or the agent's folder is gone.
    """
    from tvm.rpc import _ffi_api

    from tvmmobile.devices.agents.session import AgentSession

    with open_relay(endpoint, timeout_s, wait_s) as relay:
        try:
            module = _ffi_api.Connect("127.0.0.1", relay.port, relay.key, False)
            connection = relay.hand_over()
        except Exception as error:  # TVM raises many kinds of errors from C++: RuntimeError, InternalError, …
            if _NOT_STORED in str(error):
                why = str(error).partition(_NOT_STORED)[2].partition("\n")[0]
                raise NotStored("a session's folder", _FOLDER_BYTES, error_number(why)) from error
            raise LinkError(f"the agent of {endpoint.key!r} did not open a session: {_last_line(error)}") from error
        with _cut_off(relay.agent, endpoint.longest_s(timeout_s) + GRACE_S):
            close = module.get_function("CloseRPCConnection")
            try:
                yield AgentSession(module, connection)
            finally:
                with contextlib.suppress(Exception):  # the connection may already be gone
                    close()


@contextlib.contextmanager
def open_relay(endpoint: Endpoint, timeout_s: float, wait_s: float = DEFAULT_WAIT_S) -> Iterator[Relay]:
    """Open a port of this process that leads one TVM client to a free agent; arguments and errors as for `open_session`."""
    host, port, offer = _request_agent(endpoint, wait_s)
    agent = None
    try:
        agent = socket.create_connection((host, port), timeout=PROVE_S)
        agent.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        prove(agent, bytes.fromhex(endpoint.secret), offer, endpoint.limit_s(timeout_s))
        relay = Relay(agent, time.monotonic() + endpoint.longest_s(timeout_s) + GRACE_S)
    except (OSError, NotProven) as error:
        if agent is not None:
            agent.close()
        raise LinkError(f"the agent at {host}:{port} did not open a session: {error}") from error
    try:
        yield relay
    finally:
        relay.close()


def _last_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[-1].strip() if lines else type(error).__name__


def _request_agent(endpoint: Endpoint, wait_s: float) -> tuple[str, int, str]:
    """Return the address of a free agent, and its offer."""
    deadline = time.monotonic() + wait_s
    try:
        with TrackerLink(endpoint, deadline) as tracker:
            answer = tracker.ask([REQUEST, endpoint.key, "", 1])
    except TimeoutError:
        raise LinkError(f"no agent of {endpoint.key!r} was free within {wait_s:g} s") from None
    except (OSError, ValueError, TypeError) as error:
        kind = HostGone if isinstance(error, ConnectionRefusedError) else LinkError
        raise kind(f"the tracker at {endpoint.host}:{endpoint.port} cannot be asked: {error}") from error
    match answer:
        case [code, [str(host), int(port), str(offer)]] if code == SUCCESS and 0 < port < 1 << 16:
            return host, port, offer
    raise LinkError(f"the tracker has no agent of {endpoint.key!r}")


class TrackerLink:
    """Talks to this run's tracker, which has proved its identity.

    Args:
        endpoint: the tracker's address, and the run's secret.
        deadline: latest time for everything, by `time.monotonic`.

    Raises:
        TimeoutError: no answer in time.
        OSError, ValueError: the tracker cannot be reached, or is not this run's.
    """

    def __init__(self, endpoint: Endpoint, deadline: float) -> None:
        self._deadline = deadline
        self.sock = socket.create_connection((endpoint.host, endpoint.port), timeout=max(0.0, deadline - time.monotonic()))
        try:
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._seal = self._greet(bytes.fromhex(endpoint.secret))
        except BaseException:
            self.sock.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.sock.close()

    def _greet(self, key: bytes) -> Seal:
        ours = nonce()
        self.sock.sendall(struct.pack("<i", TRACKER_MAGIC) + ours)
        if struct.unpack("<i", receive(self.sock, 4, self._deadline))[0] != TRACKER_MAGIC:
            raise ValueError("it is not a tracker")
        theirs, proof = (receive(self.sock, BYTES, self._deadline) for _ in range(2))
        if not proves(proof, key, "tracker", ours, theirs):
            raise ValueError("it did not prove that it belongs to this run")
        return tracker_seal(key, ours, theirs, at_tracker=False)

    def ask(self, message: Any) -> Any:
        """Return the answer to one message. Raises as the constructor."""
        content = self._seal.closed(json.dumps(message).encode())
        self.sock.sendall(struct.pack("<i", len(content)) + content)
        return self.answer()

    def answer(self) -> Any:
        """Return the next answer. Raises as the constructor."""
        size = struct.unpack("<i", receive(self.sock, 4, self._deadline))[0]
        if not BYTES < size <= MAX_MESSAGE_BYTES:
            raise ValueError("its answer is invalid")
        content = self._seal.opened(receive(self.sock, size, self._deadline))
        try:
            return json.loads(content)
        except RecursionError:
            raise ValueError("its answer is nested too deeply") from None


@contextlib.contextmanager
def _cut_off(connection: socket.socket, after_s: float) -> Iterator[None]:
    """Shut down a session's connection after a while, to end a call to an agent that no longer answers."""

    def cut() -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(after_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
