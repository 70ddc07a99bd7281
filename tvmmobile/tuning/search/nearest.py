"""Starting points for a kernel without its own records: the best schedules of the nearest shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator

from tvmmobile.graph.layers import Conv2d, Dense, Layer, MaxPool, Pool, Resize
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Template, template_named
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record

#: Neighbours whose best schedules are tried first.
NEIGHBOURS = 3


def nearest_schedules(task: Task, database: Database, template: Template) -> list[KnobSchedule]:
    """Schedules of a template for `task`, most promising first: the best of the nearest tasks with records, moved into this task's space.

    Empty if nothing similar was tuned.
    """
    return [schedule for schedule, _ in _neighbours(task, database, template)]


def nearest_record(task: Task, database: Database) -> tuple[KnobSchedule, Record] | None:
    """The best schedule of the nearest task, of any template, moved into this task's space, and its record."""
    return next(iter(_neighbours(task, database, None)), None)


def _neighbours(task: Task, database: Database, only: Template | None) -> list[tuple[KnobSchedule, Record]]:
    found: dict[KnobSchedule, Record] = {}
    for other in _by_distance(task, [other for other in database.tasks() if other != task]):
        best = best_with_knobs(database, other, only)
        if best is not None:
            assert isinstance(best.schedule, KnobSchedule)
            template = template_named(best.schedule.template, best.schedule.version)
            space = template.space(task) if template else None
            schedule = space.nearest(best.schedule) if space else None
            if schedule is not None:
                found.setdefault(schedule, best)
        if len(found) == NEIGHBOURS:
            break
    return list(found.items())


def _by_distance(task: Task, others: list[Task]) -> Iterator[Task]:
    """The nearest first; dissimilar ones are compared only after the others are used up."""
    alike = [other for other in others if len(other.region) == len(task.region) and other.dtype == task.dtype]
    yield from sorted(alike, key=lambda other: (distance(task, other), other.name))
    yield from sorted(set(others) - set(alike), key=lambda other: (distance(task, other), other.name))


def best_with_knobs(database: Database, task: Task, only: Template | None) -> Record | None:
    """The fastest record of a task's that has knobs, of one template if `only` is given."""
    good = [
        record
        for record in database.records(task)
        if record.latency_us is not None
        and isinstance(record.schedule, KnobSchedule)
        and (only is None or (record.schedule.template, record.schedule.version) == (only.name, only.version))
    ]
    return min(good, key=lambda record: (record.latency_us, str(record.schedule)), default=None)


def distance(one: Task, other: Task) -> float:
    """Dissimilarity of two tasks of one template: differences of the logarithms of their extents; other strides or threads weigh more."""
    far = 4.0 * (one.threads != other.threads) + 100.0 * (len(one.region) != len(other.region) or one.dtype != other.dtype)
    for layer, counterpart in zip(one.region, other.region, strict=False):
        for mine, theirs in zip(_extents(layer), _extents(counterpart), strict=False):
            far += abs(math.log2(mine / theirs))
        far += 3.0 * (getattr(layer, "stride", None) != getattr(counterpart, "stride", None))
        far += 3.0 * (getattr(layer, "kernel", None) != getattr(counterpart, "kernel", None))
        far += 3.0 * (getattr(layer, "dilation", None) != getattr(counterpart, "dilation", None))
        far += 1.0 * (getattr(layer, "in_layout", None) != getattr(counterpart, "in_layout", None))
        far += 1.0 * (getattr(layer, "out_layout", None) != getattr(counterpart, "out_layout", None))
        far += 1.0 * (getattr(layer, "scaled", None) != getattr(counterpart, "scaled", None))
        far += 1.0 * (bool(getattr(layer, "pieces", ())) != bool(getattr(counterpart, "pieces", ())))
        far += 0.1 * (getattr(layer, "clamp", None) != getattr(counterpart, "clamp", None))
    return far


def _extents(layer: Layer) -> tuple[float, ...]:
    if isinstance(layer, Conv2d):
        return layer.out_height, layer.out_width, layer.in_channels, layer.out_channels
    if isinstance(layer, Dense):
        return layer.in_features, layer.out_features
    if isinstance(layer, Pool):
        return layer.height, layer.width, layer.channels
    if isinstance(layer, MaxPool | Resize):
        return layer.out_height, layer.out_width, layer.channels
    return tuple(float(extent) for extent in layer.input_shape)
