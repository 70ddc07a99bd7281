"""Starting points for a kernel without its own records: the best schedules of the nearest shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from tvmmobile.graph.layers import KINDS, Layer, Opaque
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, Template, template_named
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record

#: What makes layers of any kind unlike, and by how much, see `Layer.unlike`.
_FORMS = {name: weight for kind in KINDS.values() for name, weight in kind.unlike.items()}
#: Layers and extents of a layer that are compared, at most.
_MOST_LAYERS, _MOST_EXTENTS = 4, 6
#: Tasks of each database, as of the last query.
_KNOWN: WeakKeyDictionary[Database, _TaskFeatures] = WeakKeyDictionary()
#: Neighbours whose best schedules are tried first.
NEIGHBOURS = 3


def nearest_schedules(task: Task, database: Database, template: Template) -> list[KnobSchedule]:
    """Return schedules of a template for `task`, most promising first: the best of the nearest tasks with records, moved into this task's
    space.

    Empty if nothing similar was tuned.
    """
    return [schedule for schedule, _ in islice(_neighbours(task, database, template), NEIGHBOURS)]


def nearest_record(task: Task, database: Database) -> tuple[KnobSchedule, Record] | None:
    """Return the best schedule of the nearest task, of any template, moved into this task's space, and its record."""
    return next(_neighbours(task, database, None), None)


def nearest_alike(task: Task, database: Database) -> tuple[Record, float] | None:
    """Return the record of the nearest single-layer task in the same precision, and the ratio of the task's work to its, by multiply-adds
    or else bytes; `None` where nothing like it was tuned.
    """
    if len(task.region) > 1 or isinstance(task.layer, Opaque):
        return None
    near = nearest_record(task, database)
    if near is None or near[1].task.dtype != task.dtype or len(near[1].task.region) > 1:
        return None
    other = near[1].task
    return near[1], task.macs / other.macs if task.macs and other.macs else task.least_bytes / other.least_bytes


def estimated_us(task: Task, database: Database) -> float | None:
    """Estimate the latency of a task without a record, in microseconds; `None` where nothing like it was tuned."""
    near = nearest_alike(task, database)
    return None if near is None or near[0].latency_us is None else near[0].latency_us * near[1]


def _neighbours(task: Task, database: Database, only: Template | None) -> Iterator[tuple[KnobSchedule, Record]]:
    found: set[KnobSchedule] = set()

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
            if schedule is not None and schedule not in found:
                found.add(schedule)
                yield schedule, best


def _by_distance(task: Task, database: Database) -> Iterator[Task]:
    known, tasks = _KNOWN.setdefault(database, _TaskFeatures()), database.described()
    known.add(tasks[len(known) :])
    return known.by_distance(task)


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


class _TaskFeatures:
    """Features by which a database's tasks are compared, a row each."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._tasks: list[Task] = []
        self._names = np.array([], str)
        self._rows = np.zeros((0, 3 + _MOST_LAYERS * (_MOST_EXTENTS + len(_FORMS))))

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, tasks: Sequence[Task]) -> None:
        """Append tasks that became known."""
        if tasks:
            self._tasks += tasks
            self._names = np.array([task.name for task in self._tasks])
            self._rows = np.concatenate([self._rows, [self._row(task) for task in tasks]])

    def by_distance(self, task: Task) -> Iterator[Task]:
        """Yield all other tasks by their dissimilarity: differences of the logarithms of extents; other strides or threads weigh more.

        Those with other types or numbers of layers come after all that are alike in both.
        """
        own, (layers, kinds, threads) = self._row(task), self._rows[:, :3].T
        differences = self._rows[:, 3:] - own[3:]
        extents, forms = np.split(np.nan_to_num(differences), [_MOST_LAYERS * _MOST_EXTENTS], axis=1)
        weights = np.tile(list(_FORMS.values()), _MOST_LAYERS)
        far = np.abs(extents).sum(axis=1) + (forms != 0) @ weights + 4.0 * (threads != own[2])
        # Logarithms of equal ratios differ in their last digits.
        rows = np.lexsort((self._names, far.round(9), (layers != own[0]) | (kinds != own[1])))
        yield from (other for other in map(self._tasks.__getitem__, rows) if other != task)

    def _row(self, task: Task) -> NDArray[np.float64]:
        """Return how many layers a task has, numbers for its type and threads, the logarithms of each layer's extents, and numbers for its
        forms in the order of `_FORMS`; nan where it lacks them.
        """
        extents, forms = np.full((_MOST_LAYERS, _MOST_EXTENTS), np.nan), np.full((_MOST_LAYERS, len(_FORMS)), np.nan)
        for place, layer in enumerate(task.region[:_MOST_LAYERS]):
            compared = [getattr(layer, name) for name in layer.extents] or layer.input_shape
            logarithms = [math.log2(extent) for extent in compared[:_MOST_EXTENTS]]
            extents[place, : len(logarithms)] = logarithms
            forms[place] = [self._number(form) for form in _forms(layer)]
        return np.array([len(task.region), self._number(task.dtype), task.threads, *extents.flat, *forms.flat])

    def _number(self, value: object) -> int:
        return self._numbers.setdefault(value, len(self._numbers))


def _forms(layer: Layer) -> tuple[object, ...]:
    return tuple(getattr(layer, name) if name in layer.unlike else None for name in _FORMS)
