"""Says why a board did not store something, and what to do about it."""

from __future__ import annotations

import os
from errno import EDQUOT, ENOSPC, EROFS

from tvmmobile.system.errors import DeviceUnavailable

#: By the C library's words for an error: ours, and what to do.
_KNOWN = {
    os.strerror(ENOSPC): ("its disk is full", "Free some megabytes there."),
    os.strerror(EDQUOT): ("its user's quota is used up", "Free some megabytes there."),
    os.strerror(EROFS): ("its disk is read-only", "Restart it, and read dmesg there: Linux makes a failing disk read-only."),
}


def not_stored(path: str, said: str, remedy: str = "See df -h and dmesg there.", verb: str = "stored") -> DeviceUnavailable:
    """Return the error for a file or folder that cannot be written on the board.

    Args:
        said: the reason, as a program there or an exception has it.
        remedy: where the disk is neither full nor read-only.
        verb: what failed, as a participle.
    """
    lines = said.strip().splitlines() or ["no reason was given"]
    reason, remedy = next((known for words, known in _KNOWN.items() if words in said), (lines[-1].rstrip("."), remedy))
    return DeviceUnavailable(f"{path} cannot be {verb} on the board: {reason}.", remedy)
