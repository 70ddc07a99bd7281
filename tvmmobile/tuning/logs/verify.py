"""All logs of a directory looked through, and repaired."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from tvmmobile.tuning.database import Identity
from tvmmobile.tuning.logs.directories import own_logs
from tvmmobile.tuning.logs.inspection import Log, inspect, logs_in
from tvmmobile.tuning.logs.present import chosen_device, present_identity
from tvmmobile.tuning.logs.repair import repair


def looked_through(logs: Path | None, device: str | None, repairing: bool) -> Iterator[tuple[Log, Identity | None]]:
    """Each log as soon as it is read, with the identity that its device has now, if that is known here; see `verify_logs`."""
    place = logs or own_logs()
    folder, present = chosen_device(device, [place]) if device is not None else (None, present_identity)
    for path in logs_in(place, folder):
        now = present(path.parent.name)
        yield (repair if repairing else inspect)(path, now), now


def verify_logs(logs: str | Path | None = None, device: str | None = None, *, repair: bool = False) -> list[Log]:
    """Look through the user's own logs, or those in `logs`; `repair` cuts faulty lines, which are kept in a file beside the log.

    Raises `UserError` where there is no such directory or device, or no log.
    """
    return [log for log, _ in looked_through(None if logs is None else Path(logs), device, repair)]
