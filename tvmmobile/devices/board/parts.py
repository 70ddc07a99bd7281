"""Cores by their part numbers, as boards report them, and their properties for compiler and reports (graph/cores.toml)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from tvmmobile.devices.board.registered import LinuxCore
from tvmmobile.graph.cores import Core, all_cores, llvm_name
from tvmmobile.graph.machine import BASELINE, Machine, is_known, machine_of


@dataclass(frozen=True)
class CoreDesign:
    """A core design.

    Attributes:
        cpu: its name.
        mcpu: LLVM's name, of the newest core not newer than it that LLVM 16 schedules for.
        machine: traits of the core that matter to a kernel, with the usual caches.
        product: the only one with this core and implementer; "" where there are others.
        modelled_as: the core that stands for it on virtual boards, as `Board.mcpu`, whether or not there are any.
        lacks: instructions that LLVM takes the core to have and that Linux does not report, by the names of `Machine.has`.
    """

    cpu: str
    mcpu: str
    machine: Machine
    product: str = ""
    modelled_as: str = ""
    lacks: tuple[str, ...] = ()


@functools.cache
def _designs() -> Mapping[int, CoreDesign]:
    """Return the cores whose parts are known, by `implementer << 12 | part`."""
    designs = {part: _design(core, core.products.get(part, "")) for core in all_cores() for part in core.parts}
    return designs | {part: replace(_design(core, ""), cpu=name) for core in all_cores() for part, name in core.names.items()}


def _design(core: Core, product: str) -> CoreDesign:
    own = llvm_name(core.cpu)
    return CoreDesign(core.cpu, core.mcpu, machine_of(own if is_known(own) else core.mcpu), product, core.modelled_as)


#: Core assumed for those that are not listed; every AArch64 core runs code compiled for it.
_GENERIC = CoreDesign("AArch64 core", "generic", BASELINE)


def part_of(implementer: int, part: int) -> CoreDesign:
    """Return the core design with these MIDR fields; a generic one if it is unknown."""
    return _designs().get(implementer << 12 | part, _GENERIC)


def as_reported(design: CoreDesign, has: Sequence[str] | None) -> CoreDesign:
    """Return a design with those of its instructions that Linux reports, which are `None` where they are not known."""
    if has is None:
        return design
    reported = tuple(name for name in design.machine.has if name in has)
    lacks = tuple(name for name in design.machine.has if name not in has)
    return replace(design, machine=replace(design.machine, has=reported), lacks=lacks)


def fastest(cores: Sequence[LinuxCore]) -> list[int]:
    """Return the indices of the cores of the fastest kind, in order; the others are slower."""

    def speed(core: LinuxCore) -> tuple[float, float, int]:
        return part_of(core.implementer, core.part).machine.fma_lanes_per_cycle * core.max_hz, core.max_hz, core.part

    best = max(cores, key=speed)
    return [index for index, core in enumerate(cores) if core == best]
