"""Packages that studies use from the cache, which tvmmobile does without."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

from tvmmobile.system.entry_points import progress
from tvmmobile.system.environment import cache_dir
from tvmmobile.system.files import made_once
from tvmmobile.system.programs import run_tool

_TIMEOUT_S = 1800


def locked_packages(lock: Path, what: str) -> Path:
    """Return the folder in the cache with the packages of a lock file, installed if they are not there yet."""
    recipe = f"{sys.version_info[:2]} {lock.read_text(encoding='utf-8')}"
    name = f"{lock.stem}-{hashlib.sha256(recipe.encode()).hexdigest()[:16]}"
    return installed(name, ["--require-hashes", "-r", str(lock)], what)


def installed(name: str, packages: Sequence[str], what: str) -> Path:
    """Return the folder of that name in the cache with these packages, as pip takes them; installed if they are not there yet."""
    folder = cache_dir() / name
    with made_once(folder) as made:
        if made is not None:
            progress(f"Installing {what} in the cache (once, about a minute) …")
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]
            command = [*pip, "--only-binary=:all:", "--target", str(made), *packages]
            run_tool(command, f"Installing {what}", "Check that pip reaches a package index.", _TIMEOUT_S)
    return folder
