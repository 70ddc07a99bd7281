"""A negotiated SSH connection before login: name, TCP or proxy, key exchange, all within one deadline."""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO, Any

import paramiko
from paramiko.common import MSG_CHANNEL_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_REQUEST, MSG_CHANNEL_WINDOW_ADJUST

from tvmmobile.devices.ssh.config import Route
from tvmmobile.system.errors import DeviceUnavailable

#: Unacknowledged data for this long means that the connection is lost. Without it, Linux waits a quarter of an hour.
UNACKNOWLEDGED_S = 15
KEEPALIVE_S = 5
_JOIN_S = 3.0


@dataclass(frozen=True, eq=False)
class Proxy:
    """Runs a process whose standard input and output lead to the server."""

    process: subprocess.Popen[bytes]
    errors: IO[bytes]

    def close(self) -> str:
        """End it, once the connection is closed; the last line of what it wrote to standard error."""
        for stop in (self.process.terminate, self.process.kill):
            try:
                self.process.wait(1.0)
                break
            except subprocess.TimeoutExpired:
                stop()
        self.process.wait()
        self.errors.seek(0)
        lines = self.errors.read().decode(errors="replace").strip().splitlines()
        self.errors.close()
        return lines[-1].strip() if lines else ""


@dataclass(frozen=True, eq=False)
class Link:
    """Keeps a connection to a server.

    Attributes:
        transport: paramiko's, negotiated.
        proxy: proxy that it goes through, if any.
        host_key: `<type> <base64>`.
    """

    transport: Any
    proxy: Proxy | None
    host_key: str

    def close(self) -> None:
        """End it; never raises, leaves no thread, socket or process."""
        _end(self.transport, self.proxy)


def open_link(route: Route, deadline: float, key_types: Sequence[str]) -> Link:
    """Connect and exchange keys by the deadline, of `time.monotonic()`, or ConnectTimeout; `key_types` of host keys are asked for first.

    Raises:
        DeviceUnavailable: whatever the reason, in one sentence.
    """
    _silence_paramiko()
    if route.timeout_s is not None:
        deadline = min(deadline, time.monotonic() + route.timeout_s)
    started = time.monotonic()
    sock, proxy = _through_proxy(route) if route.proxy else (_over_tcp(route, deadline), None)
    # Its windows of 2 MiB are right: 200 MB/s on loopback; larger ones make it slower, because it moves what waits in them at each read.
    transport = new_transport(sock)
    transport.banner_timeout = transport.handshake_timeout = _left(deadline)
    _prefer(transport, key_types)
    negotiated = threading.Event()
    try:
        transport.start_client(event=negotiated)
        if negotiated.wait(_left(deadline)) and transport.is_active():
            key = transport.get_remote_server_key()
            transport.set_keepalive(KEEPALIVE_S)
            return Link(transport, proxy, f"{key.get_name()} {key.get_base64()}")
    except (paramiko.SSHException, EOFError, OSError):
        pass  # it ended between the two; reported below
    except BaseException:
        _end(transport, proxy)
        raise
    late = _left(deadline) == 0.0
    failure = transport.get_exception()
    _end(transport, None)
    output = proxy.close() if proxy else ""
    raise _no_answer(route, time.monotonic() - started) if late else _broken_off(route, failure, transport.remote_version, output)


def _prefer(transport: Any, key_types: Sequence[str]) -> None:
    options = transport.get_security_options()
    wanted = {*key_types, "rsa-sha2-512", "rsa-sha2-256"} - {"ssh-rsa"} if "ssh-rsa" in key_types else {*key_types}
    options.key_types = sorted(options.key_types, key=lambda name: name not in wanted)


def _over_tcp(route: Route, deadline: float) -> socket.socket:
    started = time.monotonic()
    found = _addresses(route, deadline)
    failure: OSError | None = None
    for index, (family, kind, protocol, _, address) in enumerate(found):
        sock = socket.socket(family, kind, protocol)
        # An address that does not answer leaves time for the next ones.
        sock.settimeout(max(0.05, _left(deadline) / (len(found) - index)))
        try:
            sock.connect(address)
        except OSError as error:
            sock.close()
            failure = error
            continue
        _tune(sock)
        return sock
    if isinstance(failure, TimeoutError):
        raise _no_answer(route, time.monotonic() - started) from failure
    if isinstance(failure, ConnectionRefusedError):
        raise DeviceUnavailable(
            f"{route.where} refuses connections: no SSH server listens there.",
            "Start it on the board (sudo systemctl enable --now ssh), or give its port.",
        ) from failure
    reason = failure.strerror if failure else "it has no address"
    raise DeviceUnavailable(
        f"{route.where} cannot be reached: {reason}.", "Check the network between this machine and the board."
    ) from failure


def _addresses(route: Route, deadline: float) -> list[Any]:
    # In a thread, because looking up a name has no time limit.
    answer: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            answer.put(list(socket.getaddrinfo(route.host, route.port, type=socket.SOCK_STREAM)))
        except (OSError, UnicodeError, OverflowError) as error:
            answer.put(error)

    threading.Thread(target=resolve, name="ssh-resolve", daemon=True).start()
    try:
        found = answer.get(timeout=max(0.01, _left(deadline)))
    except queue.Empty:
        found = TimeoutError("the name servers do not answer")
    if isinstance(found, Exception):
        reason = found.strerror if isinstance(found, OSError) and found.strerror else str(found)
        raise DeviceUnavailable(
            f"the name {route.host} cannot be resolved: {reason}.", "Check the name, or give the board's address, such as pi@192.168.1.20."
        ) from found
    return found


def _tune(sock: socket.socket) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_S * 1000)


def _through_proxy(route: Route) -> tuple[socket.socket, Proxy]:
    assert route.proxy is not None
    ours, theirs = socket.socketpair()
    errors = tempfile.TemporaryFile()  # noqa: SIM115
    try:
        # A session of its own: an interrupt from the terminal must not cut the connection before the board has been told to stop.
        process = subprocess.Popen(route.proxy, stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=errors, start_new_session=True)
    except OSError as error:
        ours.close()
        errors.close()
        raise DeviceUnavailable(
            f"{route.where} is behind a proxy, whose command {route.proxy[0]} cannot be started: {error.strerror}.",
            "Install it, or change ProxyJump or ProxyCommand in ~/.ssh/config.",
        ) from error
    finally:
        theirs.close()
    return ours, Proxy(process, errors)


def _end(transport: Any, proxy: Proxy | None) -> None:
    with contextlib.suppress(Exception):  # a half-open transport may be in any state
        transport.close()
    if transport.is_alive():
        transport.join(_JOIN_S)
    with contextlib.suppress(OSError):
        transport.sock.close()
    transport.packetizer.complete_handshake()  # cancels its watchdog timer, a thread that would delay the end of the process
    if proxy is not None:
        proxy.close()


def _no_answer(route: Route, waited_s: float) -> DeviceUnavailable:
    return DeviceUnavailable(
        f"{route.where} did not answer within {waited_s:.0f} s.", "Check that the board is switched on, on the network, and not overloaded."
    )


def _broken_off(route: Route, failure: Exception | None, banner: str, output: str) -> DeviceUnavailable:
    if output:
        return DeviceUnavailable(
            f"{route.where} cannot be reached through its proxy: {output.rstrip('.')}.",
            f"Run: ssh {route.ssh_arguments} true (and repair ~/.ssh/config until it works).",
        )
    if isinstance(failure, paramiko.ssh_exception.IncompatiblePeer):
        return DeviceUnavailable(f"{route.where} has no SSH algorithm in common with paramiko: {failure}.", "Update its SSH server.")
    if not banner.startswith("SSH-"):
        return DeviceUnavailable(
            f"{route.where} does not answer as an SSH server does.",
            "Check the port; if it is the right one, try again: the server may be busy.",
        )
    reason = f": {failure}" if failure and str(failure) else ""
    return DeviceUnavailable(
        f"{route.where} broke off the key exchange{reason}.", "Try again; if it persists, look at its SSH server's log."
    )


def _left(deadline: float) -> float:
    return max(0.0, deadline - time.monotonic())


def _silence_paramiko() -> None:
    # Without a handler of its own, the logging module prints its tracebacks to the user's terminal.
    logger = logging.getLogger("paramiko")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())


def new_transport(sock: socket.socket) -> Any:
    """Make a `paramiko.Transport` over `sock`, not negotiated yet, that sends nothing about a channel after that channel's close.

    paramiko writes a message under the channel's lock and sends it after releasing the lock. When the program at the other end ends in
    between, its reader's thread sends the close first, and the message follows it. OpenSSH takes that for a protocol error and ends the
    whole connection ("packet referred to nonexistent channel", channels.c), with everything else that runs over it.
    """
    of_open_channels = {MSG_CHANNEL_WINDOW_ADJUST, MSG_CHANNEL_DATA, MSG_CHANNEL_EXTENDED_DATA, MSG_CHANNEL_EOF, MSG_CHANNEL_REQUEST}

    class OrderedTransport(paramiko.Transport):  # type: ignore[misc]
        def _send_message(self, message: Any) -> None:
            # The last step of sending, which one thread takes at a time: what is closed here has sent its close, or is about to.
            content = message.asbytes()
            if content[0] in of_open_channels and not self._is_open(int.from_bytes(content[1:5], "big")):
                return
            super()._send_message(message)

        def _is_open(self, remote_id: int) -> bool:
            # A channel that is being opened has no number yet, which paramiko writes as 0, and is not active.
            return any(channel.active and not channel.closed and channel.remote_chanid == remote_id for channel in self._channels.values())

    return OrderedTransport(sock)
