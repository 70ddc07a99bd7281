"""The commit that a result belongs to, as git names it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.system.errors import UserError

_TIMEOUT_S = 60.0
#: Most characters of a commit's subject that are kept.
_MOST_SUBJECT = 120


@dataclass(frozen=True)
class Commit:
    """A commit.

    Attributes:
        name: its full hash; what the user called it if git does not know it.
        dirty: tracked files differed from it.
        time: time of the commit, in seconds since 1970; `None` if git does not know it.
        subject: the first line of its message.
        ancestors: number of commits that it follows, itself included: it orders commits of the same second, as rebasing makes them.
    """

    name: str
    dirty: bool = False
    time: int | None = None
    subject: str = ""
    ancestors: int = 0


def commit_of(given: str | None, folder: Path | None = None) -> Commit:
    """Return the commit that is called `given`, by default the one that is checked out in `folder`, the current directory.

    Raises:
        UserError: nothing is given, and git knows no commit there; or what is given cannot be a commit's name.
    """
    if given is not None and (not given or given.startswith("-") or not given.isprintable() or len(given) > 200):
        raise UserError(f"{given!r} cannot be the name of a commit.", "Give --commit a hash, or another name without blanks at its start.")
    shown = _git(["show", "--no-patch", "--format=%H%n%ct%n%s", f"{given or 'HEAD'}^{{commit}}", "--"], folder)
    if shown is None:
        if given is None:
            raise UserError("the current directory is not a git checkout with a commit.", "Say which commit it was with --commit.")
        return Commit(given)
    name, time, subject = shown.split("\n")[:3]
    dirty = given is None and bool(_git(["status", "--porcelain", "--untracked-files=no"], folder))
    ancestors = _git(["rev-list", "--count", name, "--"], folder)
    return Commit(name, dirty, int(time), subject[:_MOST_SUBJECT], int(ancestors or 0))


def _git(words: list[str], folder: Path | None) -> str | None:
    """Return git's output; `None` if it fails or is not installed."""
    try:
        # A user's setting may print signatures before the requested output.
        command = ["git", "--no-optional-locks", "-c", "log.showSignature=false", *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
