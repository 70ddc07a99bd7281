"""Which directories of tuning logs a run reads, and where its new records go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tvmmobile.system.environment import SHIPPED_LOGS, user_data_dir
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class LogDirs:
    """Where tuning records are read from, and where new ones go."""

    sources: tuple[Path, ...]
    target: Path

    @property
    def all(self) -> tuple[Path, ...]:
        """Every directory that is read."""
        return tuple(dict.fromkeys((*self.sources, self.target)))


def own_logs() -> Path:
    """The user's own logs, which are written unless another directory is named."""
    return user_data_dir() / "tuning_logs"


def log_dirs(logs: Path | None, fresh: Path | None = None) -> LogDirs:
    """The directories of a run: it reads the shipped logs, and reads and writes the user's own, or `logs` alone.

    With `fresh`, it begins an empty one, `tuning_logs` below that. Raises `UserError` where both are given.
    """
    if fresh is not None and logs is not None:
        raise UserError("--fresh and --logs exclude each other.", "Give one of them.")
    if fresh is not None:
        return LogDirs((), fresh / "tuning_logs")
    return LogDirs((), logs) if logs is not None else LogDirs((SHIPPED_LOGS,), own_logs())
