"""Arm's cores by the part numbers that Linux shows in /proc/cpuinfo, and what the compiler and reports need to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.devices.board.registered import LinuxCore

ARM = 0x41


@dataclass(frozen=True)
class CoreDesign:
    """A core design.

    Attributes:
        cpu: its name.
        mcpu: LLVM's name, of the newest core not newer than it that LLVM 16 schedules for.
        fma_lanes_per_cycle: fp32 fused multiply-adds a core can start per cycle (Arm's optimisation guides).
        l1d_bytes, l2_bytes: usual sizes, for boards whose kernel does not show them.
    """

    cpu: str
    mcpu: str
    fma_lanes_per_cycle: int
    l1d_bytes: int
    l2_bytes: int


_KIB, _MIB = 1 << 10, 1 << 20
_PARTS = {
    0xD03: CoreDesign("Cortex-A53", "cortex-a53", 4, 32 * _KIB, 512 * _KIB),
    0xD04: CoreDesign("Cortex-A35", "cortex-a35", 4, 32 * _KIB, 512 * _KIB),
    0xD05: CoreDesign("Cortex-A55", "cortex-a55", 4, 32 * _KIB, 256 * _KIB),
    0xD07: CoreDesign("Cortex-A57", "cortex-a57", 4, 32 * _KIB, 2 * _MIB),
    0xD08: CoreDesign("Cortex-A72", "cortex-a72", 4, 32 * _KIB, 1 * _MIB),
    0xD09: CoreDesign("Cortex-A73", "cortex-a73", 4, 64 * _KIB, 1 * _MIB),
    0xD0A: CoreDesign("Cortex-A75", "cortex-a75", 8, 64 * _KIB, 256 * _KIB),
    0xD0B: CoreDesign("Cortex-A76", "cortex-a76", 8, 64 * _KIB, 512 * _KIB),
    0xD0C: CoreDesign("Neoverse N1", "neoverse-n1", 8, 64 * _KIB, 1 * _MIB),
    0xD0D: CoreDesign("Cortex-A77", "cortex-a77", 8, 64 * _KIB, 512 * _KIB),
    0xD41: CoreDesign("Cortex-A78", "cortex-a78", 8, 64 * _KIB, 512 * _KIB),
    0xD44: CoreDesign("Cortex-X1", "cortex-x1", 16, 64 * _KIB, 1 * _MIB),
    0xD46: CoreDesign("Cortex-A510", "cortex-a510", 8, 32 * _KIB, 256 * _KIB),
    0xD47: CoreDesign("Cortex-A710", "cortex-a710", 8, 64 * _KIB, 512 * _KIB),
    0xD48: CoreDesign("Cortex-X2", "cortex-x2", 16, 64 * _KIB, 1 * _MIB),
    0xD4B: CoreDesign("Cortex-A78C", "cortex-a78c", 8, 64 * _KIB, 512 * _KIB),
    0xD4D: CoreDesign("Cortex-A715", "cortex-a715", 8, 64 * _KIB, 512 * _KIB),
    0xD4E: CoreDesign("Cortex-X3", "cortex-x3", 16, 64 * _KIB, 1 * _MIB),
    0xD80: CoreDesign("Cortex-A520", "cortex-a510", 8, 32 * _KIB, 256 * _KIB),
    0xD81: CoreDesign("Cortex-A720", "cortex-a715", 8, 64 * _KIB, 512 * _KIB),
    0xD82: CoreDesign("Cortex-X4", "cortex-x3", 16, 64 * _KIB, 2 * _MIB),
}
#: For cores this list does not have; every AArch64 core runs what is compiled for it.
_GENERIC = CoreDesign("AArch64 core", "generic", 4, 32 * _KIB, 512 * _KIB)


def part_of(implementer: int, part: int) -> CoreDesign:
    """The core design with these MIDR fields; a generic one where it is not known."""
    return _PARTS.get(part, _GENERIC) if implementer == ARM else _GENERIC


def fastest(cores: Sequence[LinuxCore]) -> list[int]:
    """The numbers of the cores of the fastest kind, in order; the others are slower ones."""

    def speed(core: LinuxCore) -> tuple[float, float, int]:
        return part_of(core.implementer, core.part).fma_lanes_per_cycle * core.max_hz, core.max_hz, core.part

    best = max(cores, key=speed)
    return [number for number, core in enumerate(cores) if core == best]
