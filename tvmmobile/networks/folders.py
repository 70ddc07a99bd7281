"""Lists files in folders that users name: only readable ones, within a limit, and none that would block."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from tvmmobile.system.errors import UserError

#: Files and folders that are looked at; ImageNet has 1.4 million.
MOST_ENTRIES = 2_000_000
_SMALLER = "Give a folder with the images alone."


def files_below(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files with these suffixes at any depth below a folder, sorted; hidden ones are left alone, as are links to folders, pipes,
    sockets and devices.

    Raises:
        UserError: a folder cannot be read, or there are more than `MOST_ENTRIES` files and folders.
    """
    found: list[Path] = []
    entries = 0

    def unreadable(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # it was deleted after it was listed
            raise UserError(f"{error.filename} cannot be read: {error.strerror}.", _SMALLER) from error

    for place, folders, names in os.walk(folder, onerror=unreadable):
        folders[:] = [name for name in folders if not name.startswith(".")]
        entries += len(folders) + len(names)
        if entries > MOST_ENTRIES:
            raise UserError(f"{folder} has more than {MOST_ENTRIES:,} files and folders.", _SMALLER)
        paths = (Path(place, name) for name in names if not name.startswith("."))
        found += [path for path in paths if path.suffix.lower() in suffixes and os.path.isfile(path)]
    return sorted(found)
