"""adb's server on this machine: starts it if none runs, and asks it for devices and their services.

Each request is its length in four hexadecimal digits and its text, answered with OKAY or FAIL: `SERVICES.TXT` of Android's adb.
"""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass

from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import DeviceUnavailable

START_TIMEOUT_S = 20.0
#: For requests that the server answers itself.
ASK_TIMEOUT_S = 5.0
#: Most bytes per `recv`, which allocates them in advance.
_AT_ONCE = 1 << 16
_HOST = "127.0.0.1"
_INSTALL = "Run: apt-get install -y adb"


class AdbRefused(Exception):
    """Raised when the server or a device refuses; the message is its own."""


class NoAnswer(Exception):
    """Raised when no answer comes in time."""


class Gone(Exception):
    """Raised when the connection ends, or there is no server any more."""


@dataclass(frozen=True)
class AdbServer:
    """Sends requests to a running server.

    Attributes:
        port: the server's port on 127.0.0.1 of this machine.
    """

    port: int

    def open(self, *requests: str, timeout_s: float) -> socket.socket:
        """Send the server requests, each once the one before is accepted; return a connection to the service.

        It fails with `TimeoutError` after `timeout_s`.

        Raises:
            AdbRefused, NoAnswer, Gone: a request is not accepted.
        """
        with _answers():
            connection = socket.create_connection((_HOST, self.port), timeout_s)
        try:
            for request in requests:
                content = request.encode(errors="surrogateescape")
                if len(content) > 0xFFFF:
                    raise AdbRefused("the command is too long for adb")
                send(connection, b"%04x" % len(content) + content)
                _check_okay(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def ask(self, *requests: str, timeout_s: float = ASK_TIMEOUT_S, confirmed: bool = False) -> str:
        """Return the answer to the last request; `confirmed`: a second OKAY precedes it. Raises `AdbRefused`, `NoAnswer` or `Gone`."""
        with self.open(*requests, timeout_s=timeout_s) as connection:
            if confirmed:
                _check_okay(connection)
            return _text(connection)

    def order(self, *requests: str, timeout_s: float = ASK_TIMEOUT_S) -> None:
        """Give an order, the last of the requests, and wait until it is done; raise `AdbRefused`, `NoAnswer` or `Gone` if it fails."""
        with self.open(*requests, timeout_s=timeout_s) as connection:
            _check_okay(connection)

    def devices(self) -> list[tuple[str, str]]:
        """Return serial and state of every device: `device` for one that can be used, `offline`, `unauthorized`, `no permissions; …`.

        Raises:
            AdbRefused, NoAnswer, Gone: the server refuses or does not answer.
        """
        rows = (line.partition("\t") for line in self.ask("host:devices").splitlines() if line)
        return [(serial, state.strip()) for serial, _, state in rows]


def send(connection: socket.socket, content: bytes) -> None:
    """Send all the data; raise `NoAnswer` or `Gone` on failure."""
    with _answers():
        connection.sendall(content)


def receive(connection: socket.socket, size: int) -> bytes:
    """Receive exactly that many bytes; raise `NoAnswer` or `Gone` on failure."""
    content = bytearray()
    while len(content) < size:
        with _answers():
            arrived = connection.recv(min(size - len(content), _AT_ONCE))
        if not arrived:
            raise Gone("the connection ended")
        content += arrived
    return bytes(content)


@contextlib.contextmanager
def _answers() -> Iterator[None]:
    try:
        yield
    except TimeoutError as error:
        raise NoAnswer("nothing moved in time") from error
    except OSError as error:
        raise Gone("the connection ended") from error


def _text(connection: socket.socket) -> str:
    size = receive(connection, 4)
    try:
        return receive(connection, int(size, 16)).decode(errors="replace")
    except ValueError as error:
        raise Gone(f"{size!r} is not how adb answers") from error


def _check_okay(connection: socket.socket) -> None:
    status = receive(connection, 4)
    if status == b"FAIL":
        raise AdbRefused(_text(connection).partition("\n")[0])
    if status != b"OKAY":
        raise Gone(f"unexpected answer from adb: {status!r}")


def running_server() -> AdbServer:
    """Return the server, started if needed; raise `DeviceUnavailable` if that fails or if it accepts connections from other machines."""
    port = adb_server_port()
    if not _listens(port):
        _start(port)
    if _listens_to_others(port):
        raise DeviceUnavailable(
            f"adb's server on port {port} takes connections from other machines, and would open forwarded ports to them too.",
            "Run: adb kill-server (it was started with -a; a safe one is started when it is needed)",
        )
    return AdbServer(port)


def _start(port: int) -> None:
    program = shutil.which("adb")
    if program is None:
        raise DeviceUnavailable("adb is not installed on this machine.", _INSTALL)
    try:
        command = [program, "-P", str(port), "start-server"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise DeviceUnavailable(f"adb did not start its server within {START_TIMEOUT_S:g} s.", "Run: adb start-server") from error
    if done.returncode != 0:
        reason = " ".join((done.stderr or done.stdout).split())[-300:]
        raise DeviceUnavailable(f"adb cannot start its server on port {port}: {reason}.", "Run: adb start-server")


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), timeout=ASK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _listens_to_others(port: int) -> bool:
    """Return whether something listens on that port for other machines too; False if the system does not tell."""
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return False
    listening = [one.laddr for one in found if one.status == psutil.CONN_LISTEN and one.laddr]
    return any(place.port == port and not place.ip.startswith(("127.", "::1", "::ffff:127.")) for place in listening)
