"""Takes out of a log what does not belong there, and keeps it beside the log."""

from __future__ import annotations

from pathlib import Path

from tvmmobile.system.files import write_bytes
from tvmmobile.tuning.database import Identity, append_whole, content_of, locked
from tvmmobile.tuning.logs.inspection import Log, inspect


def cut_file(path: Path) -> Path:
    """Where the lines are kept that were cut out of a log."""
    return path.with_name(path.name + ".cut")


def repair(path: Path, present: Identity | None) -> Log:
    """Write a log anew, whole, without its faulty lines, which are appended to `<file>.cut`; returns the log as it was.

    Outdated records stay. Records may be appended by others meanwhile; they wait. Raises `UserError`, the log being as it was, where it
    cannot be read or written.
    """
    found = inspect(path, present)
    if not found.faults:
        return found
    with locked(path, f"{path} cannot be repaired", "The log is as it was; give yourself access, or free some disk space."):
        found = inspect(path, present, content_of(path))  # as it is now that nobody else can change it
        if found.faults:
            # First the copy: a crash in between leaves a line in both places rather than in none.
            append_whole(cut_file(path), _joined([line.text for line in found.faults]))
            write_bytes(path, _joined([line.text for line in found.lines if not line.fault]))
    return found


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
