"""A power cut in the worst case that POSIX allows: of a folder's files and folders, only what was synced remains."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

#: By inode: what is in a file, and which files are in a folder.
Content = Mapping[int, bytes]
Entries = Mapping[int, Mapping[str, int]]
SOURCE = Path(__file__).with_name("synced.c")


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
        restore(self._content, self._entries, self._root, into, renamed)
        return into

    def close(self) -> None:
        """Let go of the files."""
        for handle in self._open.values():
            os.close(handle)


def restore(content: Content, entries: Entries, now: Path, into: Path, renamed: bool = False) -> None:
    """Make the folder `into` of what was synced of the folder `now`; `renamed` as for `Disk.cut`."""

    def make(number: int, now: Path, into: Path) -> None:
        into.mkdir(parents=True)
        for name, inner in (_entries(str(now)) if renamed and now.is_dir() else entries.get(number, {})).items():
            if inner in entries or (renamed and (now / name).is_dir()):
                make(inner, now / name, into / name)
            else:
                (into / name).write_bytes(content.get(inner, b""))

    make(now.stat().st_ino, now, into)


@contextmanager
def recorded(root: Path, shadow: Path, patch: pytest.MonkeyPatch) -> Iterator[Callable[[Path], Path]]:
    """Programs started inside have their syncs below `root` recorded in `shadow`, on the same disk; yields what makes a folder of them."""
    for name in ("files", "folders", "pins"):
        (shadow / name).mkdir(parents=True)
    library = shadow / "synced.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"], check=True)

    def cut(into: Path) -> Path:
        entries = {int(path.name): dict(_line(line) for line in path.read_text().splitlines()) for path in (shadow / "folders").iterdir()}
        restore({int(path.name): path.read_bytes() for path in (shadow / "files").iterdir()}, entries, root, into)
        return into

    with patch.context() as inside:
        for name, value in (("LD_PRELOAD", library), ("SYNCED_ROOT", root), ("SYNCED_SHADOW", shadow)):
            inside.setenv(name, str(value))
        yield cut


def _line(line: str) -> tuple[str, int]:
    number, _, name = line.partition(" ")
    return name, int(number)


def _entries(folder: int | str) -> dict[str, int]:
    with os.scandir(folder) as found:
        return {entry.name: entry.inode() for entry in found}
