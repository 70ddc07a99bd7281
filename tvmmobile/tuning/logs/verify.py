"""Checks all logs of a directory; a repair moves faulty lines to a file beside the log."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tvmmobile.devices.protocol import Device
from tvmmobile.system.files import write_bytes
from tvmmobile.tuning.logs.directories import chosen_device, own_logs, present_identity
from tvmmobile.tuning.logs.files import append_whole, content_of, locked
from tvmmobile.tuning.logs.inspection import Log, inspect, logs_in
from tvmmobile.tuning.records import Identity


def looked_through(logs: Path | None, device: str | None, repairing: bool) -> Iterator[tuple[Log, Identity | None]]:
    """Yield each log, as it is read, with its device's current identity (`None` if unknown here); see `verify_logs`."""
    place = logs or own_logs()
    folder, present = chosen_device(device, [place]) if device is not None else (None, present_identity)
    for path in logs_in(place, folder):
        now = present(path.parent.name)
        yield (repair if repairing else inspect)(path, now), now


def verify_logs(logs: str | Path | None = None, device: str | Device | None = None, *, repair: bool = False) -> list[Log]:
    """Check every line of tuning logs.

    Args:
        logs: directory of the logs; without it, the user's own.
        device: the device whose logs to check, by name or as `find_device` returns it; without it, all.
        repair: true to move faulty lines to a file beside their log.

    Returns:
        The logs as they were before a repair, with the fault of each faulty line.

    Raises:
        UserError: there is no such directory or device, or no log.
    """
    name = device if device is None or isinstance(device, str) else device.profile.name
    return [log for log, _ in looked_through(None if logs is None else Path(logs), name, repair)]


def cut_file(path: Path) -> Path:
    """Return the path of the file for lines that were cut from a log."""
    return path.with_name(path.name + ".cut")


def repair(path: Path, present: Identity | None) -> Log:
    """Rewrite a log without its faulty lines, which are appended to `<file>.cut`; return the log as it was before.

    Outdated records are kept. Processes that append records meanwhile have to wait.

    Raises:
        UserError: if the log cannot be read or written; it is then unchanged.
    """
    found = inspect(path, present)
    if not found.faults:
        return found
    with locked(path, f"{path} cannot be repaired", "The log is as it was; give yourself access, or free some disk space."):
        found = inspect(path, present, content_of(path))  # read again under the lock
        if found.faults:
            # Cut lines are saved first: after a crash in between, a line is in both files rather than in neither.
            append_whole(cut_file(path), joined_lines([line.text for line in found.faults]))
            write_bytes(path, joined_lines([line.text for line in found.lines if not line.fault]))
    return found


def joined_lines(lines: list[bytes]) -> bytes:
    """Return lines without line ends as the content of a file."""
    return b"".join(line + b"\n" for line in lines)
