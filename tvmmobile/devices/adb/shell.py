"""A program on an Android device, over adb's shell protocol v2, which separates its streams and reports its exit status.

Packets are one byte (which stream), the content's length as 32 bits and the content: `shell_protocol.h` of Android's adb.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from shlex import join

from tvmmobile.devices.board.remote import LinkLost
from tvmmobile.devices.board.streams import LAST_WORDS_CHARACTERS, WRITE_TIMEOUT_S

_STDIN, _STDOUT, _STDERR, _EXIT, _CLOSE_STDIN = range(5)
_PACKET_BYTES = 16384
_MOST_ERRORS = 1 << 20
_JOIN_S = 2.0


def service_of(words: Sequence[str]) -> str:
    """Return the service that runs these words. With `exec` the shell becomes the program, so that signals reach the program."""
    return f"shell,v2,raw:exec {join(words)}"


class AdbProcess:
    """Controls a running program (`RemoteProcess`). A thread receives its output.

    Args:
        connection: connection to the service; this object owns it from now on.
        name: the device's name, for messages.
        ended: called once when the program's stream ends, with whether its exit status had arrived.
    """

    def __init__(self, connection: socket.socket, name: str, ended: Callable[[AdbProcess, bool], None]) -> None:
        self._connection, self._name, self._ended = connection, name, ended
        self._changed = threading.Condition()
        self._output, self._errors = bytearray(), bytearray()
        self._status: int | None = None
        self._over = self._stopped = False
        self._writing = threading.Lock()
        connection.settimeout(None)
        self._limit_writes(WRITE_TIMEOUT_S)
        self._reader = threading.Thread(target=self._read, name=f"adb {name}", daemon=True)
        self._reader.start()

    def read_line(self, timeout_s: float) -> str:
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while b"\n" not in self._output and not self._over:
                if not self._changed.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise LinkLost(f"{self._name}: the program wrote no line within {timeout_s:g} s")
            if b"\n" not in self._output and self._status is None:
                raise self._lost()
            line, _, rest = self._output.partition(b"\n")
            self._output = rest
        return line.decode(errors="replace")

    def write(self, content: bytes) -> None:
        with self._writing:
            try:
                for start in range(0, len(content), _PACKET_BYTES):
                    part = content[start : start + _PACKET_BYTES]
                    self._connection.sendall(struct.pack("<BI", _STDIN, len(part)) + part)
            except OSError as error:
                raise self._lost() from error
            if self._over:  # what was sent is lost
                raise self._lost()

    def end_input(self) -> None:
        """Close the program's standard input."""
        with self._writing:
            try:
                self._connection.sendall(struct.pack("<BI", _CLOSE_STDIN, 0))
            except OSError as error:
                raise self._lost() from error

    def poll(self) -> int | None:
        with self._changed:
            return self._status if self._status is not None or not self._over else -1

    def last_words(self) -> str:
        with self._changed:
            return self._errors.decode(errors="replace").strip()[-LAST_WORDS_CHARACTERS:]

    def outcome(self, stdin: bytes, timeout_s: float, deadline: float) -> tuple[int, str, str]:
        """Send all its input and wait for its end; return its status, standard output and standard error.

        The `deadline` is one of `time.monotonic`; `timeout_s`, which led to it, is for messages.
        """
        self._limit_writes(max(0.1, deadline - time.monotonic()))
        with contextlib.suppress(LinkLost):  # the program may end without reading its input
            if stdin:
                self.write(stdin)
            self.end_input()
        with self._changed:
            if not self._changed.wait_for(lambda: self._over, max(0.0, deadline - time.monotonic())):
                raise LinkLost(f"{self._name}: the program did not end within {timeout_s:g} s")
            if self._status is None:
                raise self._lost()
            return self._status, self._output.decode(errors="replace"), self._errors.decode(errors="replace")

    def stop(self) -> None:
        """Close the program's streams; adbd then hangs up (SIGHUP) on a program that still runs."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        if threading.current_thread() is not self._reader:
            self._reader.join(_JOIN_S)  # a Ctrl-C at the wrong moment leaves its lock with this thread
            with self._writing:
                self._connection.close()

    def _limit_writes(self, timeout_s: float) -> None:
        """Limit writes only: Python's own timeout would also apply to the reading thread."""
        whole = int(timeout_s)
        limit = struct.pack("ll", whole, max(1, int((timeout_s - whole) * 1e6)))
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _lost(self) -> LinkLost:
        if self._stopped:
            return LinkLost(f"{self._name}: the program was stopped")
        return LinkLost(f"{self._name}: the program has ended" if self._status is not None else f"{self._name}: the connection is gone")

    def _read(self) -> None:
        packets = bytearray()
        with contextlib.suppress(OSError):
            while self._status is None and (arrived := self._connection.recv(1 << 18)):
                packets += arrived
                self._take(packets)
        with self._changed:
            self._over = True
            self._changed.notify_all()
        if not self._stopped:
            self._ended(self, self._status is not None)

    def _take(self, packets: bytearray) -> None:
        """Remove complete packets from the front."""
        start = 0
        with self._changed:
            while len(packets) - start >= 5:
                kind, size = struct.unpack_from("<BI", packets, start)
                if len(packets) - start < 5 + size:
                    break
                content = packets[start + 5 : start + 5 + size]
                start += 5 + size
                if kind == _STDOUT:
                    self._output += content
                elif kind == _STDERR:
                    self._errors += content
                    del self._errors[:-_MOST_ERRORS]
                elif kind == _EXIT and size:
                    self._status = content[0]
            self._changed.notify_all()
        del packets[:start]
