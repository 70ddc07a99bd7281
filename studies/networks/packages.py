"""Packages that studies import from the cache, which tvmmobile does without."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

from studies.formats.export_models import installed
from tvmmobile.system.entry_points import progress


def locked_packages(lock: Path, what: str) -> Path:
    """Return the folder in the cache with the packages of a lock file, installed if they are not there yet."""
    recipe = f"{sys.version_info[:2]} {lock.read_text(encoding='utf-8')}"
    name = f"{lock.stem}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    return installed(name, ["--require-hashes", "-r", str(lock)], what, progress)
