"""The interface of connections to a board (`Remote`), by SSH or adb: run programs, copy files, forward ports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

#: Time limit of a command that answers at once.
RUN_TIMEOUT_S = 30.0


class LinkLost(Exception):
    """Raised when the connection to the board is gone, or does not answer in time; it is unknown what ran there. The message says which.

    All methods of `Remote` and `RemoteProcess` may raise it, except `poll`, `alive`, `stop` and `close`.
    """


@dataclass(frozen=True)
class Completed:
    """Result of a program on the board.

    Attributes:
        status: its exit status.
        stdout, stderr: the program's output and errors, as text (bytes that are no UTF-8 replaced).
    """

    status: int
    stdout: str
    stderr: str


class RemoteProcess(Protocol):
    """Controls a running program on the board. It ends with the connection at the latest."""

    def read_line(self, timeout_s: float) -> str:
        """Return the next line of its standard output, without the newline; "" once that has ended."""

    def write(self, content: bytes) -> None:
        """Write to its standard input; a program that has ended is `LinkLost` too."""

    def poll(self) -> int | None:
        """Return its exit status; `None` while it runs. A lost connection counts as -1."""

    def last_words(self) -> str:
        """Return the end of what it wrote to standard error, at most 600 characters."""

    def stop(self) -> None:
        """Close its standard input and output; never raises."""


class Remote(Protocol):
    """Runs programs and copies files on a board. Words of commands are passed on unchanged; no shell on the board interprets them.

    Usable from several threads.
    """

    def run(self, words: Sequence[str], stdin: bytes = b"", timeout_s: float = RUN_TIMEOUT_S) -> Completed:
        """Run a program to its end."""

    def start(self, words: Sequence[str]) -> RemoteProcess:
        """Start a program and leave it running."""

    def push(self, source: Path, target: str) -> None:
        """Copy a file to the board, with its permission bits; `target` is absolute and whole at any time, its folder exists.

        Raises:
            OSError: the file cannot be read here, or cannot be written there (ENOSPC where its disk is full).
        """

    def pull(self, source: str, target: Path) -> None:
        """Copy a file from the board; `target` is whole at any time.

        Raises:
            OSError: it cannot be read there, or cannot be written here.
        """

    def forward(self, port: int) -> int:
        """Open a port on this machine's 127.0.0.1 that leads to `port` of the board's 127.0.0.1, until the connection ends; return it."""

    def reverse(self, port: int) -> int:
        """Open a port on the board's 127.0.0.1 that leads to `port` of this machine's 127.0.0.1, until the connection ends; return it.

        Raises:
            DeviceUnavailable: the board refuses to forward ports.
        """

    def alive(self) -> bool:
        """Return whether the board still answers; takes at most a few seconds."""

    def close(self) -> None:
        """End the connection and everything that runs over it; never raises."""
