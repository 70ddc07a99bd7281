"""Python for AArch64 under QEMU, as on a board: what is in the cache already for the programs that check libraries there."""

from __future__ import annotations

from studies.peers.systems import chosen_systems
from tvmmobile.virtual.board import load_board
from tvmmobile.virtual.sysroot import python_sysroot


def board_python() -> list[str]:
    """Return the words that start it, with NumPy and TVM's wheels for it."""
    [ours] = chosen_systems(["ours"])
    sysroot = python_sysroot(load_board("pi4"), ours.requirements)
    return ["qemu-aarch64", "-L", str(sysroot), str(sysroot / "usr/bin/python3")]
