"""What a device would be measured as now."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tvmmobile.devices.registry import find_device
from tvmmobile.system.errors import UserError
from tvmmobile.tuning.database import Identity

#: The present identity of the device that a folder is called after; `None` where no such device is known here.
Present = Callable[[str], Identity | None]


def identity_of(name: str) -> Identity:
    """The identity that measurements on a device have now; `name` is as users give it. Raises `UserError` where there is no such device."""
    return Identity.of(find_device(name).profile)


def present_identity(device: str) -> Identity | None:
    """The identity that measurements on the device of exactly this name have now; `None` where it is not known here."""
    try:
        identity = identity_of(device)
    except UserError:
        return None
    return identity if identity.device == device else None  # pi4 may be the virtual one, which has another folder


def chosen_device(name: str, directories: list[Path]) -> tuple[str, Present]:
    """The folder that `--device NAME` means, and where to look up present identities; raises `UserError` where there is neither.

    A folder of that name is meant before the device is asked for: boards are forgotten, and their logs stay.
    """
    if name not in ("", ".", "..") and "/" not in name and any((directory / name).is_dir() for directory in directories):
        return name, present_identity
    identity = identity_of(name)
    return identity.device, lambda device: identity if device == identity.device else present_identity(device)
