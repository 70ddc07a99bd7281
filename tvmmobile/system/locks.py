"""A lock that is held for long, by one process at a time, and that says by which."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Held(Exception):
    """Another process holds the lock; the message says which, such as `process 4711 on thinkpad`."""


@contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock file `path`, which is created; the kernel lets go of it when this process ends, however that happens.

    Raises:
        Held: another process has it. This is said at once.
        OSError: the file cannot be opened, written or locked.
    """
    # Not truncated when opened: it says who holds it. Processes that this one starts do not inherit it.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Held(_owner(handle)) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)  # the file stays: were it removed, two could hold locks on files of one name
    finally:
        os.close(handle)


def _owner(handle: int) -> str:
    """The first line, which is empty until its owner has come to write it."""
    lines = os.pread(handle, 200, 0).decode(errors="replace").splitlines()
    return "".join(character for character in lines[0] if character.isprintable()) if lines else "another process"
