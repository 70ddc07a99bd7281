"""Starting points for a device without records: the best schedules of the most similar core with shipped records, measured again."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path

from tvmmobile.devices.protocol import DeviceProfile
from tvmmobile.devices.registry import find_device
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Template
from tvmmobile.system.environment import SHIPPED_LOGS
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Identity
from tvmmobile.tuning.search.nearest import nearest_schedules
from tvmmobile.tuning.search.twin import best_of_twin

#: Number of the similar core's best schedules that are tried per kernel and template.
FROM_SIMILAR_CORE = 3


def similar_core_identity(profile: DeviceProfile, shipped: Path) -> Identity | None:
    """Return the identity of the shipped records of the core most similar to a device's, except the device's own; `None` without any."""
    from tvmmobile.virtual.board import VIRTUAL_SUFFIX, board_names

    names = [f"{name}{VIRTUAL_SUFFIX}" for name in board_names()]
    others = [find_device(name).profile for name in names if name != profile.name and (shipped / name).is_dir()]
    if not others:
        return None
    nearest = min(others, key=lambda other: (other.mcpu != profile.virtual_mcpu, unlikeness(profile.machine, other.machine), other.name))
    return Identity.of(nearest)


def similar_core_database(profile: DeviceProfile, sources: Iterable[Path]) -> Database | None:
    """Return the records of `similar_core_identity`; `None` if there are none, or if `sources` include the device's own shipped records."""
    if SHIPPED_LOGS in sources and (SHIPPED_LOGS / profile.name).is_dir():
        return None
    identity = similar_core_identity(profile, SHIPPED_LOGS)
    return None if identity is None else Database(identity, (SHIPPED_LOGS,), None)


def unlikeness(left: Machine, right: Machine) -> float:
    """Return the dissimilarity of two cores: whether they issue in order, then the ratios of their FMA throughput and cache sizes."""
    sizes = ((machine.fma_lanes_per_cycle, machine.l1d_bytes, machine.cached_bytes) for machine in (left, right))
    factors = sum(abs(math.log2(mine / theirs)) for mine, theirs in zip(*sizes, strict=True))
    return 8.0 * (left.in_order != right.in_order) + factors


def first_guesses(task: Task, template: Template, database: Database, similar: Database | None) -> list[KnobSchedule]:
    """Return the first schedules to try, most promising first: the similar core's best ones for this or the nearest tasks, the template's
    usual knobs, and this device's best ones for the nearest tasks, interleaved.
    """
    space = template.space(task)
    assert space is not None
    near = nearest_schedules(task, database, template)
    if similar is None:
        return [*near, space.default]
    best = best_of_twin(similar, task, template)[:FROM_SIMILAR_CORE] or nearest_schedules(task, similar, template)
    theirs = [moved for schedule in best if (moved := space.nearest(schedule)) is not None]
    return list(dict.fromkeys([*theirs[:1], space.default, *near[:1], *theirs[1:], *near[1:]]))
