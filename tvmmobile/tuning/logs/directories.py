"""Finds the directories of a run's tuning logs, and the current identities of the devices that their folders name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.devices.registry import find_device
from tvmmobile.system.environment import SHIPPED_LOGS, user_data_dir
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.records import Identity

#: The current identity of the device that a folder is named after; `None` if it is unknown here.
Present = Callable[[str], Identity | None]


@dataclass(frozen=True)
class LogDirs:
    """Directories from which tuning records are read, and to which new ones go."""

    sources: tuple[Path, ...]
    target: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """All directories that are read."""
        return tuple(dict.fromkeys((*self.sources, self.target)))


def own_logs() -> Path:
    """Return the user's own logs, which are written unless another directory is named."""
    return user_data_dir() / "tuning_logs"


def log_dirs(logs: Path | None, fresh: Path | None = None) -> LogDirs:
    """Return the directories of a run: it reads the shipped logs, and reads and writes the user's own, or `logs` alone.

    With `fresh`, it begins an empty one, `tuning_logs` below that. Raises `UserError` where both are given.
    """
    if fresh is not None and logs is not None:
        raise UserError("--fresh and --logs exclude each other.", "Give one of them.")
    if fresh is not None:
        return LogDirs((), fresh / "tuning_logs")
    return LogDirs((), logs) if logs is not None else LogDirs((SHIPPED_LOGS,), own_logs())


def identity_of(name: str) -> Identity:
    """Return the current identity of measurements on a device; `name` is the user's. Raises `UserError` if there is no such device."""
    return Identity.of(find_device(name).profile)


def present_identity(device: str) -> Identity | None:
    """Return the current identity of measurements on the device of exactly this name; `None` if it is unknown here."""
    try:
        identity = identity_of(device)
    except UserError:
        return None
    return identity if identity.device == device else None  # pi4 may be the virtual one, which has another folder


def chosen_device(name: str, directories: list[Path]) -> tuple[str, Present]:
    """Return the folder that `--device NAME` means, and where to look up present identities; raise `UserError` where there is neither.

    A folder of that name takes precedence over a device: boards are removed, and their logs stay.
    """
    if name not in ("", ".", "..") and "/" not in name and any((directory / name).is_dir() for directory in directories):
        return name, present_identity
    identity = identity_of(name)
    return identity.device, lambda device: identity if device == identity.device else present_identity(device)
