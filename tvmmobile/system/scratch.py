"""Folders for temporary files. Those of a process that was killed are removed by the next one."""

from __future__ import annotations

import atexit
import contextlib
import fcntl
import functools
import multiprocessing
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tvmmobile.system.interrupts import deferred

#: Names of our folders: purpose, owner (for people; programs look at the lock) and a random part.
_NAME = re.compile(r"tvmmobile-[a-z]+-\d+-\w{8}")
#: Longest path of a Unix socket (sun_path in unix(7), without the final NUL), and of a socket's name in its folder.
_LONGEST_SOCKET, _SOCKET_NAME = 107, len("/listener-12345678")


@contextmanager
def scratch(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Make a folder in `parent`, or in the system's place for temporary files, until the context ends; `purpose` is a word for its name.

    It is locked until then. Unlocked folders were left by processes that were killed, and are removed now.
    """
    with ExitStack() as held:
        with deferred():
            folder, lock = _locked(purpose, Path(parent or tempfile.gettempdir()))
            held.callback(os.close, lock)
            held.callback(shutil.rmtree, folder, ignore_errors=True)
        yield folder


def scratch_folder(purpose: str) -> Path:
    """Make a scratch folder, which is removed when this process ends."""
    held = ExitStack()
    folder = held.enter_context(scratch(purpose))
    atexit.register(held.close)
    return folder


def place_sockets() -> None:
    """Let `multiprocessing` keep this process's sockets in a folder that is removed even if the process is killed.

    If the folder's path is too long for a socket, the open folder's name in /proc is used.
    """
    config = vars(multiprocessing.current_process())["_config"]  # what `multiprocessing.util.get_temp_dir` looks at
    if config.get("tempdir") is None:
        folder = str(scratch_folder("sockets"))
        if len(os.fsencode(folder)) + _SOCKET_NAME > _LONGEST_SOCKET:
            folder = f"/proc/self/fd/{os.open(folder, os.O_RDONLY | os.O_DIRECTORY)}"
        config["tempdir"] = folder


def _locked(purpose: str, parent: Path) -> tuple[Path, int]:
    """Make a folder and lock it with a file descriptor, which the system releases when the process dies."""
    _sweep(parent)
    while True:
        folder = tempfile.mkdtemp(prefix=f"tvmmobile-{purpose}-{os.getpid()}-", dir=parent)
        with contextlib.suppress(FileNotFoundError):  # another process removed it before it was locked
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):  # some network file systems have no locks; then no folder is locked and none is removed
                fcntl.flock(lock, fcntl.LOCK_SH)  # waits for a process that is removing it
            if os.path.exists(folder):
                return Path(folder), lock
            os.close(lock)


@functools.lru_cache
def _sweep(parent: Path) -> None:
    """Remove what this user's killed processes have left there; once in each process."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(parent):
            if _NAME.fullmatch(entry.name) and entry.stat(follow_symlinks=False).st_uid == os.geteuid():
                with contextlib.suppress(OSError):
                    _remove_unlocked(entry.path)


def _remove_unlocked(folder: str) -> None:
    """Remove an unlocked folder; raise `OSError` if it is locked."""
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
