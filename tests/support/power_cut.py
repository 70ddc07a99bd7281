"""What a power cut leaves of a folder in the worst case that POSIX allows: of files and folders only what was synced."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


class Disk:
    """A folder whose syncs are recorded from now on; what is in it is on disk.

    Args:
        root: the folder.
        patch: puts the recorder in the place of `os.fsync`, for this process alone.
        synced: called after each sync, with this.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, synced: Callable[[Disk], None] = lambda _: None) -> None:
        self._root, self._notify = root, synced
        self._sync = os.fsync
        self._content: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, int]] = {}
        self._open: dict[int, int] = {}  # of every file that was synced, so that no other gets its number
        for folder, _, names in os.walk(root):
            for path in (folder, *(os.path.join(folder, name) for name in names)):
                self._keep(os.open(path, os.O_RDONLY))
        patch.setattr(os, "fsync", self._fsync)

    def _fsync(self, handle: int) -> None:
        self._sync(handle)
        self._keep(os.open(f"/proc/self/fd/{handle}", os.O_RDONLY))
        self._notify(self)

    def _keep(self, handle: int) -> None:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            self._entries[status.st_ino] = _entries(handle)
        else:
            self._content[status.st_ino] = os.pread(handle, status.st_size, 0)
        if self._open.setdefault(status.st_ino, handle) != handle:
            os.close(handle)

    def cut(self, into: Path, renamed: bool) -> Path:
        """A new folder with what is left; `renamed`: which files there are, and by which names, got to the disk of its own accord."""
        self._restore(self._root.stat().st_ino, self._root, into, renamed)
        return into

    def _restore(self, number: int, now: Path, into: Path, renamed: bool) -> None:
        into.mkdir(parents=True)
        found = _entries(str(now)) if renamed and now.is_dir() else self._entries.get(number, {})
        for name, inner in found.items():
            if inner in self._entries or (renamed and (now / name).is_dir()):
                self._restore(inner, now / name, into / name, renamed)
            else:
                (into / name).write_bytes(self._content.get(inner, b""))

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._open.values():
            os.close(handle)


def _entries(folder: int | str) -> dict[str, int]:
    with os.scandir(folder) as found:
        return {entry.name: entry.inode() for entry in found}
