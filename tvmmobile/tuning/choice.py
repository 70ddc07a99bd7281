"""Chooses the schedule that a task is compiled with: its own best record's, else the nearest shape's, else a first guess."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.tasks import Task
from tvmmobile.kernels.serial import Schedule
from tvmmobile.schedules import KnobSchedule, Template, template_for, template_named, templates_for
from tvmmobile.system.errors import UserError, please_report
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.plan import Plan, Price, make_plan
from tvmmobile.tuning.records import Record
from tvmmobile.tuning.regions import Region
from tvmmobile.tuning.search.fallback import FallbackSpace
from tvmmobile.tuning.search.nearest import best_with_knobs, nearest_record, nearest_with_threads


@dataclass(frozen=True)
class Choice:
    """A schedule and its expected latency."""

    schedule: Schedule
    price: Price


def choose(task: Task, source: Any, database: Database, target: Mapping[str, Any]) -> Choice:
    """Return the schedule for `task`, and its price.

    Args:
        source: TIR function of an opaque task.
        target: TVM target for which MetaSchedule samples a schedule if no template accepts the task and no record exists.

    Raises:
        UserError: if MetaSchedule finds no valid schedule.
    """
    best = database.best(task)
    if best is not None:
        count = len(database.trials(task))
        return Choice(best.schedule, Price(best.latency_us, f"best of {count} records" if count > 1 else "the only record"))
    near = nearest_record(task, database)
    promising = next((template for template in templates_for(task) if template.promises(task)), None)
    if promising is not None and (near is None or _says_nothing(near[1], promising, task, database)):
        space = promising.space(task)
        assert space is not None
        schedule = nearest_with_threads(task, database, promising) or space.default
        return Choice(schedule, Price(None, f"not tuned: {promising.name} is estimated to be faster than a direct kernel"))
    if near is not None and not _loses(task, near[0]):
        return Choice(near[0], Price(None, f"best of the nearest tuned shape, {near[1].task.name}"))
    template = template_for(task)
    space = template.space(task) if template else None
    if space is not None:
        reason = "nothing alike was tuned" if near is None else "the nearest tuned shape's algorithm is estimated to be slower here"
        return Choice(space.default, Price(None, f"{reason}: the template's usual knobs"))
    sampled = FallbackSpace(task, source, target).members(1)
    if not sampled:
        raise UserError(f"MetaSchedule finds no valid schedule for {task.name}.", please_report("network"))
    return Choice(sampled[0], Price(None, "not tuned: MetaSchedule's first sample"))


def _says_nothing(near: Record, promising: Template, task: Task, database: Database) -> bool:
    """Return whether the nearest record neither speaks against a template that promises to be faster nor has knobs for it: nobody measured
    that template there, or it was the best, but for another number of threads.
    """
    measured = best_with_knobs(database, near.task, promising)
    return measured is None or (measured == near and near.task.threads != task.threads)


def _loses(task: Task, schedule: KnobSchedule) -> bool:
    """Return whether a schedule's algorithm is estimated to be slower than a direct kernel."""
    template = template_named(schedule.template, schedule.version)
    return template is not None and template.loses(task, schedule.values)


def plan_by_records(nodes: int, regions: Sequence[Region], database: Database) -> Plan:
    """Return the best plan by a database's records alone; kernels without a record have no price, and get no schedule."""

    def price(task: Task) -> Price:
        best = database.best(task)
        return Price(None if best is None else best.latency_us, "")

    return make_plan(nodes, regions, price)
