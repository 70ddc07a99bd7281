"""Decides whether this machine can be a board, identifies it, and detects an emulator."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

from tvmmobile.devices.board.registered import LocalAddress
from tvmmobile.devices.local.remote import LocalRemote
from tvmmobile.system.emulators import content_of, emulator_of
from tvmmobile.system.errors import DeviceUnavailable

_ID = Path("/etc/machine-id")
_ARCHITECTURES = ("aarch64", "arm64")


def connect_local(address: LocalAddress) -> LocalRemote:
    """Return the connection to this machine; raise `DeviceUnavailable` if another one was registered."""
    if address.machine != machine_id():
        raise DeviceUnavailable(
            "the device is another machine than this one; both share this user's files.",
            "Run the command there, or remove the device and add it again: tvmmobile device remove NAME --keep-files",
        )
    return LocalRemote()


def local_address(root: str = "/", emulated: bool = False) -> LocalAddress:
    """Return this machine's address.

    Args:
        root: root of the tree whose proc and sys describe it.
        emulated: true if an emulator for its programs was given, so that any Linux will do.

    Raises:
        DeviceUnavailable: it is not AArch64 Linux.
    """
    system, architecture = platform.system(), platform.machine()
    if system != "Linux" or (architecture not in _ARCHITECTURES and not emulated):
        raise DeviceUnavailable(
            f"this machine cannot be a device: it is {system} on {architecture}, not Linux on AArch64.",
            "Add a board: tvmmobile device add pi4 --ssh USER@HOST; or use a virtual one: --device pi4-virtual",
        )
    return LocalAddress(machine=machine_id(), emulator="" if emulated else emulator_of(Path(root)) or _user_mode())


def machine_id() -> str:
    """Return an anonymous number of this machine, derived from `/etc/machine-id`, which must stay private; "" without one."""
    content = content_of(_ID)
    return hashlib.sha256(b"tvmmobile " + content.encode()).hexdigest()[:16] if content else ""


def _user_mode() -> str:
    """Return the emulator of this process, where the system's kernel is of another architecture; "" where there is none.

    The files are never those of a tree: they are about this process.
    """
    kernel = content_of(Path("/proc/sys/kernel/arch"))  # not there before Linux 6.1
    translated = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64").exists()
    return "QEMU" if (kernel and kernel not in _ARCHITECTURES) or translated else ""
