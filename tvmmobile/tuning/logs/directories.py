"""Finds the directories of a run's tuning logs, and the current identities of the devices that their folders are named after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.registry import find_device
from tvmmobile.system.environment import SHIPPED_LOGS, user_data_dir
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.records import Identity

#: Maps the name of a device's folder to the device's current identity; `None` if the device is unknown here.
Present = Callable[[str], Identity | None]


@dataclass(frozen=True)
class LogDirs:
    """The directories from which tuning records are read, and the one to which new records are written."""

    sources: tuple[Path, ...]
    target: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """All directories that are read."""
        return tuple(dict.fromkeys((*self.sources, self.target)))


def own_logs() -> Path:
    """Return the directory of the user's own logs, the default for new records."""
    return user_data_dir() / "tuning_logs"


def log_dirs(logs: Path | None, fresh: Path | None = None) -> LogDirs:
    """Return the directories of a run: the shipped logs (read) and the user's own (read and written), or only `logs`.

    With `fresh`, only the directory `fresh/tuning_logs`, which starts empty.

    Raises:
        UserError: if both `logs` and `fresh` are given.
    """
    if fresh is not None and logs is not None:
        raise UserError("--fresh and --logs exclude each other.", "Give one of them.")
    if fresh is not None:
        return LogDirs((), fresh / "tuning_logs")
    return LogDirs((), logs) if logs is not None else LogDirs((SHIPPED_LOGS,), own_logs())


def identity_of(name: str) -> Identity:
    """Return the current identity of measurements on the device that the user calls `name`; raise `UserError` if there is none."""
    return Identity.of(find_device(name).profile)


def present_identity(device: str) -> Identity | None:
    """Return the current identity of measurements on the device with exactly this name; `None` if it is unknown here."""
    try:
        identity = identity_of(device)
    except UserError:
        return None
    return identity if identity.device == device else None  # pi4 may be the virtual one, which has another folder


def chosen_device(name: str, directories: list[Path]) -> tuple[str, Present]:
    """Return the folder that `--device NAME` means, and the function that gives current identities.

    A folder of that name takes precedence over a device, because logs outlive removed boards.

    Raises:
        UserError: if there is neither a folder nor a device of that name.
    """
    if name not in ("", ".", "..") and "/" not in name and any((directory / name).is_dir() for directory in directories):
        return name, present_identity
    identity = identity_of(name)
    return identity.device, lambda device: identity if device == identity.device else present_identity(device)
