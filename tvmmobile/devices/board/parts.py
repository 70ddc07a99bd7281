"""Arm's cores by the part numbers that Linux shows in /proc/cpuinfo, and what the compiler and reports need to know of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tvmmobile.devices.board.registered import LinuxCore
from tvmmobile.graph.machine import Machine, machine_of

ARM = 0x41


@dataclass(frozen=True)
class CoreDesign:
    """A core design.

    Attributes:
        cpu: its name.
        mcpu: LLVM's name, of the newest core not newer than it that LLVM 16 schedules for.
        machine: what it offers a kernel, with the usual caches.
    """

    cpu: str
    mcpu: str
    machine: Machine


def _design(cpu: str, mcpu: str = "") -> CoreDesign:
    mcpu = mcpu or cpu.lower().replace(" ", "-")
    return CoreDesign(cpu, mcpu, machine_of(mcpu))


_PARTS = {
    0xD03: _design("Cortex-A53"),
    0xD04: _design("Cortex-A35"),
    0xD05: _design("Cortex-A55"),
    0xD07: _design("Cortex-A57"),
    0xD08: _design("Cortex-A72"),
    0xD09: _design("Cortex-A73"),
    0xD0A: _design("Cortex-A75"),
    0xD0B: _design("Cortex-A76"),
    0xD0C: _design("Neoverse N1"),
    0xD0D: _design("Cortex-A77"),
    0xD41: _design("Cortex-A78"),
    0xD44: _design("Cortex-X1"),
    0xD46: _design("Cortex-A510"),
    0xD47: _design("Cortex-A710"),
    0xD48: _design("Cortex-X2"),
    0xD4B: _design("Cortex-A78C"),
    0xD4D: _design("Cortex-A715"),
    0xD4E: _design("Cortex-X3"),
    0xD80: _design("Cortex-A520", "cortex-a510"),
    0xD81: _design("Cortex-A720", "cortex-a715"),
    0xD82: replace(_design("Cortex-X4", "cortex-x3"), machine=replace(machine_of("cortex-x3"), l2_bytes=2 << 20)),
}
#: For cores this list does not have; every AArch64 core runs what is compiled for it.
_GENERIC = _design("AArch64 core", "generic")


def part_of(implementer: int, part: int) -> CoreDesign:
    """The core design with these MIDR fields; a generic one where it is not known."""
    return _PARTS.get(part, _GENERIC) if implementer == ARM else _GENERIC


def fastest(cores: Sequence[LinuxCore]) -> list[int]:
    """The numbers of the cores of the fastest kind, in order; the others are slower ones."""

    def speed(core: LinuxCore) -> tuple[float, float, int]:
        return part_of(core.implementer, core.part).machine.fma_lanes_per_cycle * core.max_hz, core.max_hz, core.part

    best = max(cores, key=speed)
    return [number for number, core in enumerate(cores) if core == best]
