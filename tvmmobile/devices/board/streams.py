"""Helpers for programs on a board, however they are reached: lines of output, the end of their errors, time limits."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from tvmmobile.devices.board.remote import LinkLost, RemoteProcess

#: Most characters of `RemoteProcess.last_words`.
LAST_WORDS_CHARACTERS = 600
#: Time limit for a program to read its input.
WRITE_TIMEOUT_S = 30.0
#: Exit status that a shell reports for a program that a signal ended, less the signal's number.
ENDED_BY_SIGNAL = 128

_Process = TypeVar("_Process", bound=RemoteProcess)


class Lines:
    """Cuts a program's output into lines."""

    def __init__(self) -> None:
        self._received = b""

    def next(self, receive: Callable[[], bytes]) -> str:
        """Return the next line without its newline, the rest after the last newline, or "" at the end.

        Args:
            receive: waits for more output; returns b"" at its end. What came before an error that it raises is kept.
        """
        while b"\n" not in self._received and (chunk := receive()):
            self._received += chunk
        line, _, self._received = self._received.partition(b"\n")
        return line.decode(errors="replace")


class ErrorTail:
    """Keeps the end of what a program writes to standard error."""

    def __init__(self) -> None:
        self._kept = bytearray()

    def add(self, chunk: bytes) -> None:
        """Append what arrived."""
        self._kept += chunk
        del self._kept[: -4 * LAST_WORDS_CHARACTERS]  # a character has at most four bytes

    def __str__(self) -> str:
        return self._kept.decode(errors="replace")


class Running(Generic[_Process]):
    """Lists the programs that a connection has left running, to stop them at its end. Usable from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: list[_Process] = []

    def add(self, process: _Process) -> _Process:
        """Add a program, and forget those that have ended; return it."""
        with self._lock:
            self._processes = [*(other for other in self._processes if other.poll() is None), process]
        return process

    def stop(self) -> None:
        """Stop them all; never raises."""
        with self._lock:
            processes, self._processes = self._processes, []
        for process in processes:
            process.stop()


def no_line(program: str, timeout_s: float) -> LinkLost:
    """Return the error for a program that is silent for too long."""
    return LinkLost(f"{program} wrote no line within {timeout_s:g} s")


def not_read(program: str) -> LinkLost:
    """Return the error for a program that leaves its input unread."""
    return LinkLost(f"{program} did not read its input within {WRITE_TIMEOUT_S:g} s")


def not_ended(program: str, timeout_s: float) -> LinkLost:
    """Return the error for a program that runs for too long."""
    return LinkLost(f"{program} did not end within {timeout_s:g} s")


def has_ended(program: str) -> LinkLost:
    """Return the error for input to a program that has ended."""
    return LinkLost(f"{program} has ended")
