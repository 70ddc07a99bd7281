"""Names the state of this package, for caches of what it computes."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

from tvmmobile import __version__
from tvmmobile.system.environment import cache_dir

_PACKAGE = Path(__file__).parents[1]


def package_facts() -> tuple[str, int]:
    """Return the version of this package and the time of its last change."""
    return __version__, _newest_source_ns()


def cached_file(folder: str, facts: object, suffix: str) -> Path:
    """Return the cache file for results that this package computes from `facts` alone; their `repr` must distinguish them from others.

    Args:
        folder: its folder in the cache.
        suffix: its suffix, such as `.json`.
    """
    text = repr((package_facts(), facts))
    return cache_dir() / folder / f"{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:32]}{suffix}"


@cache
def _newest_source_ns() -> int:
    """Return when this package was last changed."""
    return max(path.stat().st_mtime_ns for folder in (_PACKAGE, _PACKAGE / "schedules") for path in folder.rglob("*.py"))
