"""Trials go where the plan may use them: every kernel has a few, the rest is for those that some network may still be compiled with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tvmmobile.database import Database
from tvmmobile.plan import VariantTasks, detours
from tvmmobile.tasks import Task

#: Trials that every kernel has: by then a template's best is seldom more than a few percent away.
FIRST_TRIALS = 8
#: What more trials may still gain, as a share of the kernel's latency.
MAY_GAIN = 0.04


def promising(variants: Sequence[VariantTasks], database: Database, tasks: Mapping[Task, Any]) -> dict[Task, Any]:
    """Of `tasks`, those never measured, and those that a variant's best plan would have if more trials made them faster by `MAY_GAIN`."""

    def latency_us(task: Task) -> float | None:
        best = database.best(task)
        return None if best is None else best.latency_us

    chosen = {task for task in tasks if latency_us(task) is None}
    for variant in variants:
        for (_, _, task), detour_us in detours(variant.nodes, variant.regions, latency_us).items():
            if detour_us <= MAY_GAIN * (latency_us(task) or 0.0):
                chosen.add(task)
    return {task: source for task, source in tasks.items() if task in chosen}
