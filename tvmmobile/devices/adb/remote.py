"""A board behind adb (`Remote`): an Android phone or tablet, or anything else that runs adbd, by USB or over the network."""

from __future__ import annotations

import contextlib
import errno
import posixpath
import re
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path

from tvmmobile.devices.adb.files import receive_file, send_file
from tvmmobile.devices.adb.server import AdbRefused, AdbServer, Gone, NoAnswer, receive, running_server
from tvmmobile.devices.adb.shell import AdbProcess, service_of
from tvmmobile.devices.board.registered import AdbAddress
from tvmmobile.devices.board.remote import RUN_TIMEOUT_S, Completed, LinkLost
from tvmmobile.devices.board.storage import error_number
from tvmmobile.system.errors import DeviceUnavailable
from tvmmobile.system.files import replacing

CONNECT_TIMEOUT_S = 30.0
#: Longest time without progress in a transfer.
STALL_TIMEOUT_S = 20.0
ALIVE_TIMEOUT_S = 3.0
CLOSE_TIMEOUT_S = 2.0
_OPEN_TIMEOUT_S = 15.0
_POLL_S = 0.1
#: Longest time that a device may stay offline before reconnecting.
_OFFLINE_S = 3.0
_NETWORK_SERIAL = re.compile(r"(?:[^:/\s]+|\[[0-9A-Fa-f:.%\w]+\]):\d{1,5}")
_AUTHORIZE = "Unlock its screen, accept this computer's key there, and run the same command again. To be asked again: adb reconnect offline"


def devices() -> list[tuple[str, str]]:
    """Return serial and state of every device that adb knows, `device` for a usable one; raise `DeviceUnavailable` without adb."""
    server = running_server()
    with _server_answers(server):
        return server.devices()


def connect_adb(address: AdbAddress, timeout_s: float = CONNECT_TIMEOUT_S) -> AdbRemote:
    """Connect to a board behind adb, on the network or not; raise `DeviceUnavailable` with the reason and what to do about it."""
    deadline = time.monotonic() + timeout_s
    server, serial = running_server(), address.serial
    with _server_answers(server):
        _wait_until_ready(server, serial, deadline, timeout_s)
    try:
        transport = _transport_of(server, serial, deadline)
        if "shell_v2" not in server.ask(f"host-transport-id:{transport}:features", timeout_s=_left(deadline)).split(","):
            raise DeviceUnavailable(f"{serial} runs an Android older than 7, which does not report exit codes.", "Use a newer device.")
        remote = AdbRemote(server, serial, transport)
        remote.run(["true"], timeout_s=_left(deadline))
    except NoAnswer as error:
        raise _silent(serial, timeout_s) from error
    except (AdbRefused, Gone, LinkLost) as error:
        if time.monotonic() >= deadline:
            raise _silent(serial, timeout_s) from error
        raise DeviceUnavailable(f"{serial} disconnected: {error}.", f"Check its cable, then run: adb -s {serial} shell") from error
    return remote


def _left(deadline: float) -> float:
    return max(0.1, deadline - time.monotonic())


def _silent(serial: str, timeout_s: float) -> DeviceUnavailable:
    return DeviceUnavailable(f"{serial} did not answer within {timeout_s:g} s.", f"Restart it, or run: adb -s {serial} reconnect")


@contextlib.contextmanager
def _server_answers(server: AdbServer) -> Iterator[None]:
    try:
        yield
    except (AdbRefused, NoAnswer, Gone) as error:
        raise DeviceUnavailable(f"adb's server on port {server.port} does not answer: {error}.", "Run: adb kill-server") from error


def _wait_until_ready(server: AdbServer, serial: str, deadline: float, timeout_s: float) -> None:
    """Return once the device's state is `device`."""
    network = bool(_NETWORK_SERIAL.fullmatch(serial))
    reason, offline_since = "", time.monotonic()
    while True:
        listed = dict(server.devices())
        if network and not reason and serial not in listed:
            reason = _connect(server, serial, deadline) or "no answer"
            continue
        state = listed.get(serial, "")
        if state == "device":
            return
        if state == "unauthorized":
            raise DeviceUnavailable(f"{serial} does not trust this computer.", _AUTHORIZE, again=True)
        if state.startswith("no permissions"):
            raise DeviceUnavailable(
                f"this user may not use {serial}: {state}.", "Run: apt-get install -y android-sdk-platform-tools-common"
            )
        if not state:
            raise _unknown(serial, listed, reason)
        if state not in ("offline", "connecting", "authorizing"):
            raise DeviceUnavailable(f"{serial} is in state {state}.", f"Boot Android on it: adb -s {serial} reboot")
        if time.monotonic() >= deadline:
            if state == "offline":
                raise DeviceUnavailable(f"{serial} is offline.", f"Check its cable or network, then run: adb -s {serial} reconnect")
            raise _silent(serial, timeout_s)
        if network and state == "offline" and time.monotonic() - offline_since > _OFFLINE_S:
            with contextlib.suppress(AdbRefused, NoAnswer):
                server.ask(f"host:disconnect:{serial}")
            reason, offline_since = _connect(server, serial, deadline), time.monotonic()
        time.sleep(_POLL_S)


def _connect(server: AdbServer, serial: str, deadline: float) -> str:
    """Run `adb connect`; return its output or the reason for a failure."""
    try:
        return server.ask(f"host:connect:{serial}", timeout_s=_left(deadline))
    except AdbRefused as error:
        return str(error)
    except NoAnswer:
        return "no answer"


def _unknown(serial: str, listed: dict[str, str], reason: str) -> DeviceUnavailable:
    if reason:
        return DeviceUnavailable(
            f"{serial} cannot be reached: {reason}.", f"Check the address, and turn on network debugging: adb connect {serial}"
        )
    names = ", ".join(f"{other} ({state})" for other, state in sorted(listed.items())) or "none at all"
    return DeviceUnavailable(
        f"adb knows no device {serial}; it knows {names}.", "Connect it, turn on USB debugging, and look for it with: adb devices"
    )


def _transport_of(server: AdbServer, serial: str, deadline: float) -> int:
    """Return adb's number for this connection to the device; it changes when the device is unplugged."""
    with server.open(f"host:tport:serial:{serial}", timeout_s=_left(deadline)) as connection:
        return int.from_bytes(receive(connection, 8), "little")


def _listed(text: str) -> set[int]:
    """Return the listening ports, from lines such as `SERIAL tcp:5000 tcp:6000`."""
    return {int(port) for port in re.findall(r"^\S+ tcp:(\d+) ", text, re.MULTILINE)}


class AdbRemote:
    """Runs programs and copies files on a board behind adb (see `Remote`).

    The connection goes through adb's server, which may reconnect to the device by itself. Programs and ports are gone then, so this object
    stays lost once it has noticed.
    """

    def __init__(self, server: AdbServer, serial: str, transport: int) -> None:
        self._server, self._serial, self._transport = server, serial, f"host:transport-id:{transport}"
        self._prefix = f"host-transport-id:{transport}"
        self._lost = ""
        self._processes: weakref.WeakSet[AdbProcess] = weakref.WeakSet()
        self._forwards: set[int] = set()
        self._reverses: set[int] = set()
        self._lock = threading.Lock()

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Completed:
        deadline = time.monotonic() + timeout_s
        process = self._start(words, timeout_s)
        try:
            return Completed(*process.outcome(stdin, timeout_s, deadline))
        finally:
            process.stop()

    def start(self, words: Sequence[str]) -> AdbProcess:
        return self._start(words, _OPEN_TIMEOUT_S)

    def push(self, source: Path, target: str) -> None:
        part = f"{target}.part"
        with source.open("rb") as content:
            mode, size = source.stat().st_mode & 0o777, source.stat().st_size
            try:
                with self._files() as connection:
                    send_file(connection, content, part, mode)
                moved = self.run(["mv", "-f", part, target])
                if moved.status != 0:
                    raise OSError(error_number(moved.stderr, errno.EIO), moved.stderr.strip(), target)
            except BaseException as error:  # Ctrl-C, too
                with contextlib.suppress(LinkLost):
                    failed = isinstance(error, OSError) and error.errno == errno.EIO
                    full = failed and self._free_bytes(posixpath.dirname(target)) < size
                    self.run(["rm", "-f", part])
                    if full:
                        raise OSError(errno.ENOSPC, str(getattr(error, "strerror", "")), target) from error
                raise

    def pull(self, source: str, target: Path) -> None:
        with replacing(target) as part, part.open("wb") as content, self._files() as connection:
            receive_file(connection, source, content)

    def forward(self, port: int) -> int:
        with self._link():
            opened = int(self._server.ask(f"{self._prefix}:forward:tcp:0;tcp:{port}", confirmed=True))
        with self._lock:
            self._forwards.add(opened)
        return opened

    def reverse(self, port: int) -> int:
        request = f"reverse:forward:tcp:0;tcp:{port}"
        with self._link():
            opened = int(self._server.ask(self._transport, request, timeout_s=_OPEN_TIMEOUT_S, confirmed=True))
        with self._lock:
            self._reverses.add(opened)
        return opened

    def alive(self) -> bool:
        """Return whether the device answers with all its ports: a missing one means that adb has reconnected."""
        deadline = time.monotonic() + ALIVE_TIMEOUT_S
        try:
            with self._link():
                if self._server.ask(f"{self._prefix}:get-state", timeout_s=_left(deadline)) != "device":
                    return False
                if not self._ports_are_open(deadline):
                    self._lost = self._lost or "adb has connected to it anew"
                    return False
            return self.run(["true"], timeout_s=_left(deadline)).status == 0
        except LinkLost:
            return False

    def _ports_are_open(self, deadline: float) -> bool:
        with self._lock:
            forwards, reverses = set(self._forwards), set(self._reverses)
        here = self._server.ask("host:list-forward", timeout_s=_left(deadline)) if forwards else ""
        there = self._server.ask(self._transport, "reverse:list-forward", timeout_s=_left(deadline)) if reverses else ""
        return _listed(here).issuperset(forwards) and _listed(there).issuperset(reverses)

    def close(self) -> None:
        """Remove only what this object opened; the device stays connected to adb."""
        self._lost, lost = self._lost or "it was closed", bool(self._lost)
        for process in list(self._processes):
            process.stop()
        with self._lock:
            forwards, self._forwards = self._forwards, set()
            reverses, self._reverses = self._reverses, set()
        for port in forwards:
            with contextlib.suppress(AdbRefused, NoAnswer, Gone):
                self._server.order(f"{self._prefix}:killforward:tcp:{port}", timeout_s=CLOSE_TIMEOUT_S)
        for port in reverses if not lost else ():
            try:
                self._server.order(self._transport, f"reverse:killforward:tcp:{port}", timeout_s=CLOSE_TIMEOUT_S)
            except (AdbRefused, Gone):
                continue
            except NoAnswer:
                break  # it would not answer the remaining requests either

    def _start(self, words: Sequence[str], timeout_s: float) -> AdbProcess:
        with self._link():
            connection = self._server.open(self._transport, service_of(words), timeout_s=timeout_s)
        process = AdbProcess(connection, self._serial, self._process_ended)
        self._processes.add(process)
        return process

    def _process_ended(self, _: AdbProcess, properly: bool) -> None:
        if not properly:
            self._lost = self._lost or "the connection ended"

    @contextlib.contextmanager
    def _files(self) -> Iterator[socket.socket]:
        """Open a connection to the device's files."""
        with self._link():
            files = self._server.open(self._transport, "sync:", timeout_s=STALL_TIMEOUT_S)
        with files:
            try:
                yield files
            except (NoAnswer, Gone) as error:
                self._lost = self._lost or str(error)
                raise LinkLost(f"{self._serial}: {error}") from error

    @contextlib.contextmanager
    def _link(self) -> Iterator[None]:
        """Turn adb's errors into `LinkLost`."""
        if self._lost:
            raise LinkLost(f"{self._serial}: {self._lost}")
        try:
            yield
        except NoAnswer as error:
            raise LinkLost(f"{self._serial} does not answer") from error
        except (AdbRefused, Gone) as error:
            if str(error) != "closed":  # the device refuses one service and keeps working
                self._lost = self._lost or str(error)
            raise LinkLost(f"{self._serial}: {error}") from error

    def _free_bytes(self, folder: str) -> float:
        """Return free bytes of the folder's file system; infinity if the device does not tell."""
        rows = self.run(["df", "-k", folder]).stdout.splitlines()
        words = rows[-1].split() if rows else []
        return int(words[3]) * 1024.0 if len(words) > 3 and words[3].isdigit() else float("inf")
