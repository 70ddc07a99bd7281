"""Digests that name files in the cache after everything that decides their content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def digest_of(files: Iterable[Path], more: str = "") -> str:
    """Return 16 hexadecimal digits that change with the name or content of any of the files, or with `more`."""
    digest = hashlib.sha256(more.encode())
    for path in files:
        digest.update(f"\0{path.name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]
