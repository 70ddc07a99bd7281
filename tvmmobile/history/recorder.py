"""Adds the results of a command to a history, which is checked before the command's work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tvmmobile.history.commits import Commit, commit_of
from tvmmobile.history.file import open_history
from tvmmobile.results.file import Results
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class Recorder:
    """Destination of results, and their commit; `path` is `None` if no history was requested."""

    path: Path | None
    commit: Commit

    def add(self, results: Results, source: str, verdicts: Mapping[str, str] | None = None) -> None:
        """Add results; see `History.add`."""
        if self.path is not None:
            with open_history(self.path, add=True) as history:
                history.add(results, self.commit, source, verdicts)


def recorder(path: Path | None, commit: str | None) -> Recorder:
    """Return a recorder that adds results to the history at `path`, if any, as those of a commit, by default the one checked out.

    Raises:
        UserError: the file cannot be added to, the commit is not known, or a commit is given without a history.
    """
    if path is None:
        if commit is not None:
            raise UserError("--commit is for a history.", "Name its file with --history.")
        return Recorder(None, Commit(""))
    found = commit_of(commit)
    with open_history(path, add=True):
        return Recorder(path, found)
