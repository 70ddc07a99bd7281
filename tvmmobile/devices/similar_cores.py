"""Decides which device's kernels each core runs when a library holds several sets (`graph/cores.toml`)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.graph.cores import all_cores
from tvmmobile.native.instructions import typical_features
from tvmmobile.native.sets import Suitability, SuitedCore
from tvmmobile.system.errors import UserError


@dataclass(frozen=True)
class OrderedCore:
    """A core and its place among others.

    Attributes:
        name: the core's name, such as `Cortex-A72`.
        parts: `implementer << 12 | part` in the main ID register of each version of it.
        place: rank among the cores, from small ones to large ones.
        group: group of cores of its kind.
        in_order: starts instructions in the order of the program.
    """

    name: str
    parts: tuple[int, ...]
    place: int
    group: int
    in_order: bool

    def distance(self, other: OrderedCore) -> tuple[bool, int, int]:
        """Return how far a schedule for the other core may be from one that suits this core."""
        return self.in_order != other.in_order, abs(self.group - other.group), abs(self.place - other.place)


@functools.cache
def ordered_cores() -> tuple[OrderedCore, ...]:
    """Return all known cores, from small ones to large ones."""
    return tuple(OrderedCore(core.cpu, core.parts + core.kin, core.place, core.group, core.in_order) for core in all_cores())


def suitability(profiles: Sequence[DeviceProfile]) -> Suitability:
    """Return which devices' kernels suit which core; raise `UserError` for two devices with the same core, or an unknown core."""
    known = {relative.name: relative for relative in ordered_cores()}
    named = {name: known[core.cpu] for core in all_cores() for name in core.names.values()} | known
    cores: list[OrderedCore] = []
    for profile in profiles:
        core = named.get(profile.cpu)
        if core is None:
            raise UserError(
                f"{profile.name} has a core called {profile.cpu}, which a library cannot recognise when it runs.",
                f"Compile a library for {profile.name} alone. Known cores: {', '.join(known)}.",
            )
        if core in cores:
            raise UserError(
                f"{profiles[cores.index(core)].name} and {profile.name} both have a {profile.cpu}: a library tells cores apart.",
                "Give one device for each core.",
            )
        cores.append(core)
    places = range(len(cores))
    rows = []
    for relative in ordered_cores():
        order = sorted(places, key=lambda place: (relative.distance(cores[place]), place))
        rows += [SuitedCore(part, int(cores[order[0]] is relative), tuple(order)) for part in relative.parts]
    largest = sorted(places, key=lambda place: -cores[place].place)
    return Suitability(tuple(rows), tuple(largest), tuple(typical_features(profile.machine) for profile in profiles))
