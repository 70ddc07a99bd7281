"""Errors that a user can fix, with the command that fixes them, and the exit codes of the command line."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

from tvmmobile.system.keywords import in_calls

#: Most characters of an error message, because quoted text may have any length.
_MOST_SAID = 1200
#: Most characters of a quoted value or field name in a message.
MOST_SHOWN = 60
#: Page that says how to report a wrong result.
_REPORTING = "docs/README.md"
_LINE_END = re.compile(r"\s*[^\S ]\s*")


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
    """A failure that the user can repair: the problem, its place, the remedy (if possible a command), and the exit code.

    The message is always one printable line, although quoted names and program output may hold line ends and escape codes. Both texts are
    written in terms of the command line and read in terms of calls; `as_typed` has them as written.

    Attributes:
        keywords: the keywords of the failed call, if known; messages name these.
        again: whether the remedy says to run the same command again.
    """

    def __init__(self, message: str, remedy: str = "", exit_code: ExitCode = ExitCode.USAGE, again: bool = False) -> None:
        self.as_typed = in_one_line(message, _MOST_SAID), remedy
        self.exit_code, self.again = exit_code, again
        self.keywords: frozenset[str] = frozenset()
        super().__init__(self.as_typed[0])

    @property
    def message(self) -> str:
        """The failure, in terms of calls."""
        return in_calls(self.as_typed[0], self.keywords)

    @property
    def remedy(self) -> str:
        """The advice, in terms of calls; "" if there is none."""
        return in_calls(self.as_typed[1], self.keywords)

    def __str__(self) -> str:
        return f"{self.message}\n{self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Errors travel between worker processes; subclasses fix their exit code themselves.
        own = (self.exit_code, self.again) if type(self) is UserError else (self.again,)
        return type(self), (*self.as_typed, *own), {"keywords": self.keywords}


class DeviceUnavailable(UserError):
    """The device cannot be reached or cannot do the work (exit 3)."""

    def __init__(self, message: str, remedy: str = "", again: bool = False) -> None:
        super().__init__(message, remedy, ExitCode.DEVICE_UNAVAILABLE, again)


class Disagreement(UserError):
    """A compiled library disagrees with PyTorch (exit 5); `library` names the file whose outputs differ."""

    def __init__(self, message: str, remedy: str = "", library: str = "") -> None:
        super().__init__(message, remedy, ExitCode.DISAGREES)
        self.library = library

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (*self.as_typed, self.library), {"keywords": self.keywords}


def please_report(attachment: str) -> str:
    """Return the advice for failures that only a change of tvmmobile can fix: to report it, and what to attach."""
    return f"Please report this with the {attachment}, as {_REPORTING} says."


def shown(value: object) -> str:
    """Quote a value for a message: printable ASCII, shortened."""
    if isinstance(value, int) and abs(value) > 1e18:
        return "a huge number"  # Python refuses to print numbers with thousands of digits
    text = ascii(value)
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."


def in_one_line(text: str, most: int) -> str:
    """Put text on one line: line ends and blanks around them become one blank, other unprintable characters are escaped; cut at `most`."""
    line = _LINE_END.sub(" ", text[: 4 * most])
    plain = line if line.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)
    return plain if len(plain) <= most else f"{plain[:most]}..."


def one_line(error: BaseException, most: int = 200) -> str:
    """Return the message of a foreign exception, as one printable line without the full stop."""
    return in_one_line(str(error), most).rstrip(".") or type(error).__name__


def some_of(names: Sequence[str], most: int = 3, between: str = ", ") -> str:
    """List the first few names for a message, and count the others."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{between.join(names[:most])}{more}"
