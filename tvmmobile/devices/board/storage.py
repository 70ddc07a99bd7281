"""Says why a board did not store something, and what to do about it; errors of its C library have the numbers of this machine's."""

from __future__ import annotations

import os
from errno import EDQUOT, ENOSPC, EROFS, errorcode

from tvmmobile.devices.protocol import NotStored
from tvmmobile.system.errors import DeviceUnavailable

_SEE = "See df -h and dmesg there."
#: By the error's number: what is wrong, and what to do. 0 is for agents that do not report it.
_KNOWN = {
    0: ("its disk is full, or read-only", "See df -h there."),
    ENOSPC: ("its disk is full", "Free some megabytes there."),
    EDQUOT: ("its user's quota is used up", "Free some megabytes there."),
    EROFS: ("its disk is read-only", "Restart it, and read dmesg there: Linux makes a failing disk read-only."),
}


def not_stored(path: str, output: str, remedy: str = _SEE, verb: str = "stored") -> DeviceUnavailable:
    """Return the error for a file or folder that cannot be written on the board.

    Args:
        output: the reason, as a program there or an exception has it.
        remedy: remedy for a disk that is neither full nor read-only.
        verb: participle of the verb that failed.
    """
    lines = output.strip().splitlines() or ["no reason was given"]
    number = next((number for number in _KNOWN if number and os.strerror(number) in output), 0)
    reason, remedy = _KNOWN[number] if number else (lines[-1].rstrip("."), remedy)
    return DeviceUnavailable(f"{path} cannot be {verb} on the board: {reason}.", remedy)


def not_stored_by(device: str, error: NotStored) -> DeviceUnavailable:
    """Return the error for a file that a device could not store while it was measuring."""
    reason, remedy = _KNOWN.get(error.number) or (os.strerror(error.number), _SEE)
    return DeviceUnavailable(
        f"{device} cannot store {error.name} ({error.size} bytes): {reason}.",
        f"{remedy} Finished measurements are kept; run the same command again.",
        again=True,
    )


def error_number(message: str, otherwise: int = 0) -> int:
    """Return the error number for a board's message, which ends with a `strerror` text; `otherwise` for any other message."""
    return next((number for number in errorcode if message.strip().endswith(os.strerror(number))), otherwise)
