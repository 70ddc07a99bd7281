"""Starting points for a kernel without its own records: the best schedules of the nearest shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from weakref import WeakKeyDictionary

from tvmmobile.graph.layers import Conv2d, Dense, Layer, Pool, Resize, WindowPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, Template, template_named
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record

#: Attributes of layers, and how far apart two layers are that differ in one; `pieces`: that one has any.
_FORMS = {"stride": 3.0, "kernel": 3.0, "dilation": 3.0, "in_layout": 1.0, "out_layout": 1.0, "scaled": 1.0, "clamp": 0.1, "pieces": 1.0}
#: Of each database's tasks, as many as it had when it was last asked.
_FEATURES: WeakKeyDictionary[Database, list[_Features]] = WeakKeyDictionary()
#: Neighbours whose best schedules are tried first.
NEIGHBOURS = 3


def nearest_schedules(task: Task, database: Database, template: Template) -> list[KnobSchedule]:
    """Return schedules of a template for `task`, most promising first: the best of the nearest tasks with records, moved into this task's
    space.

    Empty if nothing similar was tuned.
    """
    return [schedule for schedule, _ in _neighbours(task, database, template)]


def nearest_record(task: Task, database: Database) -> tuple[KnobSchedule, Record] | None:
    """Return the best schedule of the nearest task, of any template, moved into this task's space, and its record."""
    return next(iter(_neighbours(task, database, None)), None)


def _neighbours(task: Task, database: Database, only: Template | None) -> list[tuple[KnobSchedule, Record]]:
    found: dict[KnobSchedule, Record] = {}

    @cache
    def space_of(name: str, version: int) -> Space | None:
        template = template_named(name, version)
        return template.space(task) if template else None

    for other in _by_distance(task, database):
        best = best_with_knobs(database, other, only)
        if best is not None:
            assert isinstance(best.schedule, KnobSchedule)
            space = space_of(best.schedule.template, best.schedule.version)
            schedule = space.nearest(best.schedule) if space else None
            if schedule is not None:
                found.setdefault(schedule, best)
        if len(found) == NEIGHBOURS:
            break
    return list(found.items())


def _by_distance(task: Task, database: Database) -> Iterator[Task]:
    """Order tasks by distance; dissimilar ones are compared only after the others are used up."""
    own, known = _Features.of(task), _features_in(database)
    for alike in (True, False):
        group = [other for other in known if (other.kind == own.kind) == alike and other.task != task]
        yield from (other.task for other in sorted(group, key=lambda other: (own.distance(other), other.name)))


def best_with_knobs(database: Database, task: Task, only: Template | None) -> Record | None:
    """Return the fastest record of a task's that has knobs, of one template if `only` is given."""
    good = [
        record
        for record in database.records(task)
        if record.latency_us is not None
        and isinstance(record.schedule, KnobSchedule)
        and (only is None or (record.schedule.template, record.schedule.version) == (only.name, only.version))
    ]
    least = min((record.latency_us for record in good if record.latency_us is not None), default=None)
    return min((record for record in good if record.latency_us == least), key=lambda record: str(record.schedule), default=None)


@dataclass(frozen=True)
class _Features:
    """Features that make a task like another.

    Attributes:
        kind: those of tasks that are compared first.
        layers: the logarithms of each layer's extents, and its forms, in the order of `_FORMS`.
    """

    task: Task
    name: str
    kind: tuple[int, str]
    layers: tuple[tuple[tuple[float, ...], tuple[object, ...]], ...]

    @classmethod
    def of(cls, task: Task) -> _Features:
        """Return a task's features."""
        layers = tuple((tuple(map(math.log2, _extents(layer))), _forms(layer)) for layer in task.region)
        return cls(task, task.name, (len(task.region), task.dtype), layers)

    def distance(self, other: _Features) -> float:
        """Return the dissimilarity: differences of the logarithms of extents; other strides or threads weigh more."""
        far = 4.0 * (self.task.threads != other.task.threads) + 100.0 * (self.kind != other.kind)
        for (extents, forms), (their_extents, their_forms) in zip(self.layers, other.layers, strict=False):
            for mine, theirs in zip(extents, their_extents, strict=False):
                far += abs(mine - theirs)
            if forms != their_forms:
                far += sum(weight for weight, mine, theirs in zip(_FORMS.values(), forms, their_forms, strict=True) if mine != theirs)
        return round(far, 9)  # logarithms of equal ratios differ in their last digits


def _forms(layer: Layer) -> tuple[object, ...]:
    return *(getattr(layer, name, None) for name in _FORMS if name != "pieces"), bool(getattr(layer, "pieces", ()))


def _features_in(database: Database) -> list[_Features]:
    found = _FEATURES.setdefault(database, [])
    found += map(_Features.of, database.described()[len(found) :])
    return found


def _extents(layer: Layer) -> tuple[float, ...]:
    if isinstance(layer, Conv2d):
        return layer.out_height, layer.out_width, layer.in_channels, layer.out_channels
    if isinstance(layer, Dense):
        return layer.in_features, layer.out_features
    if isinstance(layer, Pool):
        return layer.height, layer.width, layer.channels
    if isinstance(layer, WindowPool | Resize):
        return layer.out_height, layer.out_width, layer.channels
    return tuple(float(extent) for extent in layer.input_shape)
