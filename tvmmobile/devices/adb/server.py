"""adb's server on this machine: started where none runs, and asked for its devices and their services."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tvmmobile.system.environment import adb_server_port
from tvmmobile.system.errors import DeviceUnavailable

START_TIMEOUT_S = 20.0
#: For what the server answers by itself.
ASK_TIMEOUT_S = 5.0
_HOST = "127.0.0.1"
_INSTALL = "Run: apt-get install -y adb"


class AdbRefused(Exception):
    """The server, or a device, says no; the message is its own."""


class NoAnswer(Exception):
    """Nothing was said in time."""


class Gone(Exception):
    """The connection ended, or there is no server any more."""


@dataclass(frozen=True)
class AdbServer:
    """A server that runs.

    Attributes:
        port: on this machine's 127.0.0.1.
    """

    port: int

    def open(self, *requests: str, timeout_s: float) -> Any:
        """Give the server requests, one after another once the last one is accepted; the connection (adbutils) is then the service's.

        Its `conn` is the socket, which fails with `TimeoutError` after `timeout_s`.

        Raises:
            Refused, NoAnswer, Gone: a request is not accepted.
        """
        from adbutils import AdbClient, AdbError

        if not _listens(self.port):  # adbutils would start a server, which knows nothing of our connections
            raise Gone("adb's server has ended")
        with answers():
            connection = AdbClient(_HOST, self.port).make_connection(timeout=timeout_s)
        with contextlib.ExitStack() as undo, answers():
            undo.callback(connection.conn.close)
            for request in requests:
                content = request.encode(errors="surrogateescape")
                if len(content) > 0xFFFF:
                    raise AdbError("the command is too long for adb")
                connection.conn.sendall(b"%04x" % len(content) + content)
                connection.check_okay()
            undo.pop_all()
        return connection

    def ask(self, *requests: str, timeout_s: float = ASK_TIMEOUT_S, confirmed: bool = False) -> str:
        """What is answered to the last of the requests; `confirmed` where a second OKAY precedes it.

        Raises:
            Refused, NoAnswer, Gone: nothing is.
        """
        connection = self.open(*requests, timeout_s=timeout_s)
        with contextlib.closing(connection.conn), answers():
            if confirmed:
                connection.check_okay()
            return str(connection.read_string_block())

    def order(self, *requests: str, timeout_s: float = ASK_TIMEOUT_S) -> None:
        """Give an order, the last of the requests, and see it carried out.

        Raises:
            Refused, NoAnswer, Gone: it is not.
        """
        connection = self.open(*requests, timeout_s=timeout_s)
        with contextlib.closing(connection.conn), answers():
            connection.check_okay()

    def devices(self) -> list[tuple[str, str]]:
        """Serial and state of every device: `device` for one that can be used, `offline`, `unauthorized`, `no permissions; …`.

        Raises:
            Refused, NoAnswer, Gone: there is no answer.
        """
        rows = (line.partition("\t") for line in self.ask("host:devices").splitlines() if line)
        return [(serial, state.strip()) for serial, _, state in rows]


@contextlib.contextmanager
def answers() -> Iterator[None]:
    """Tells apart what adbutils and sockets raise: `AdbRefused`, `NoAnswer`, `Gone`."""
    from adbutils import errors

    try:
        yield
    except (TimeoutError, errors.AdbTimeout) as error:
        raise NoAnswer("adb does not answer") from error
    except (EOFError, OSError, ValueError) as error:
        raise Gone(str(error) or "the connection ended") from error
    except errors.AdbError as error:
        said = str(error).splitlines()[0] if str(error) else ""
        if said == "connection closed" or said.startswith("Unknown data") or isinstance(error, errors.AdbConnectionError):
            raise Gone("the connection ended") from error
        raise AdbRefused(said) from error


def running_server() -> AdbServer:
    """The server, started where none runs.

    Raises:
        DeviceUnavailable: there is no adb program, it starts no server, or the server takes connections from other machines.
    """
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
    from adbutils import adb_path
    from adbutils.errors import AdbError

    try:
        command = [adb_path(), "-P", str(port), "start-server"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=START_TIMEOUT_S, check=False)
    except (AdbError, OSError) as error:
        raise DeviceUnavailable("There is no adb program on this machine.", _INSTALL) from error
    except subprocess.TimeoutExpired as error:
        raise DeviceUnavailable(f"adb did not start its server within {START_TIMEOUT_S:g} s.", "Run: adb start-server") from error
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[-300:]
        raise DeviceUnavailable(f"adb cannot start its server on port {port}: {said}.", "Run: adb start-server")


def _listens(port: int) -> bool:
    try:
        socket.create_connection((_HOST, port), timeout=ASK_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _listens_to_others(port: int) -> bool:
    """Whether something listens on that port for more than this machine; False where the system does not tell."""
    import psutil

    try:
        found = psutil.net_connections("tcp")
    except (psutil.Error, OSError):
        return False
    listening = [one.laddr for one in found if one.status == psutil.CONN_LISTEN and one.laddr]
    return any(place.port == port and not place.ip.startswith(("127.", "::1", "::ffff:127.")) for place in listening)
