"""What a user can fix, with the command that fixes it, and the exit codes of the command line."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every `tvmmobile` verb."""

    DONE = 0
    USAGE = 1
    REGRESSION = 2
    DEVICE_UNAVAILABLE = 3
    TOO_NOISY = 4
    DISAGREES = 5
    INTERNAL = 70
    INTERRUPTED = 130


class UserError(Exception):
    """A failure the user can repair: what was wrong and where, what to do about it (a command where there is one), and the exit code."""

    def __init__(self, message: str, remedy: str = "", exit_code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.exit_code = exit_code

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between worker processes; subclasses fix their exit code themselves.
        arguments = (self.message, self.remedy)
        return type(self), (*arguments, self.exit_code) if type(self) is UserError else arguments


class DeviceUnavailable(UserError):
    """The device cannot be reached or cannot do the work (exit 3)."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, ExitCode.DEVICE_UNAVAILABLE)


class Disagreement(UserError):
    """A compiled library does not compute what PyTorch computes (exit 5)."""

    def __init__(self, message: str, remedy: str = "") -> None:
        super().__init__(message, remedy, ExitCode.DISAGREES)


def some_of(names: Sequence[str], most: int = 3) -> str:
    """The first few names for a message, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"
