"""Arm's cores by their part numbers (`parts.toml`), and their properties for compiler and reports."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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
        product: the only one with this core and implementer; "" where there are others.
    """

    cpu: str
    mcpu: str
    machine: Machine
    product: str = ""


def _design(cpu: str, mcpu: str = "", product: str = "", **caches: Any) -> CoreDesign:
    mcpu = mcpu or cpu.lower().replace(" ", "-")
    return CoreDesign(cpu, mcpu, replace(machine_of(mcpu), **caches), product)


_FILE = Path(__file__).with_name("parts.toml")
_PARTS = {int(part, 16): _design(**core) for part, core in tomllib.loads(_FILE.read_text(encoding="utf-8")).items()}
#: Core assumed for those that are not listed; every AArch64 core runs code compiled for it.
_GENERIC = _design("AArch64 core", "generic")


def part_of(implementer: int, part: int) -> CoreDesign:
    """Return the core design with these MIDR fields; a generic one if it is unknown."""
    return _PARTS.get(part if implementer == ARM else implementer << 12 | part, _GENERIC)


def fastest(cores: Sequence[LinuxCore]) -> list[int]:
    """Return the numbers of the cores of the fastest kind, in order; the others are slower."""

    def speed(core: LinuxCore) -> tuple[float, float, int]:
        return part_of(core.implementer, core.part).machine.fma_lanes_per_cycle * core.max_hz, core.max_hz, core.part

    best = max(cores, key=speed)
    return [number for number, core in enumerate(cores) if core == best]
