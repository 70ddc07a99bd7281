"""Names the state of this package, for caches of what it computes."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tvmmobile import __version__

_PACKAGE = Path(__file__).parents[1]


def package_facts() -> tuple[str, int]:
    """Return the version of this package and the time of its last change."""
    return __version__, _newest_source_ns()


@cache
def _newest_source_ns() -> int:
    """Return when this package was last changed."""
    return max(path.stat().st_mtime_ns for folder in (_PACKAGE, _PACKAGE / "schedules") for path in folder.rglob("*.py"))
