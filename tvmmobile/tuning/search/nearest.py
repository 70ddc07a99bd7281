"""Starting points for a kernel without records: the best schedules of the nearest shapes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
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

#: Weights of the fields that make layers of any kind dissimilar, by name, see `Layer.unlike`.
_FORMS = {name: weight for kind in KINDS.values() for name, weight in kind.unlike.items()}
#: Most layers per task, and extents per layer, that are compared.
_MOST_LAYERS, _MOST_EXTENTS = 4, 6
#: Features of the tasks of each database, as of the last query.
_KNOWN: WeakKeyDictionary[Database, _TaskFeatures] = WeakKeyDictionary()
#: Number of neighbours whose best schedules are tried first.
NEIGHBOURS = 3


def nearest_schedules(task: Task, database: Database, template: Template) -> list[KnobSchedule]:
    """Return schedules of a template for `task`, most promising first: the best ones of the nearest tasks with records, moved into this
    task's space. The list is empty if nothing similar was tuned.
    """
    return [schedule for schedule, _ in islice(_neighbours(task, database, template), NEIGHBOURS)]


def nearest_with_threads(task: Task, database: Database, template: Template) -> KnobSchedule | None:
    """Return the first of `nearest_schedules` whose record is for as many threads as the task; `None` if no such task was tuned."""
    found = (schedule for schedule, record in _neighbours(task, database, template) if record.task.threads == task.threads)
    return next(found, None)


def nearest_record(task: Task, database: Database) -> tuple[KnobSchedule, Record] | None:
    """Return the best schedule of the nearest task, of any template, moved into this task's space, and its record; `None` without one."""
    return next(_neighbours(task, database, None), None)


def nearest_alike(task: Task, database: Database) -> tuple[Record, float] | None:
    """Return the best record of the nearest single-layer task in the same precision, and the ratio of `task`'s multiply-adds (or bytes, if
    it has none) to that task's; `None` if nothing similar was tuned.
    """
    if len(task.region) > 1 or isinstance(task.layer, Opaque):
        return None
    near = nearest_record(task, database)
    if near is None or near[1].task.dtype != task.dtype or len(near[1].task.region) > 1:
        return None
    neighbour = near[1].task
    return near[1], task.macs / neighbour.macs if task.macs and neighbour.macs else task.least_bytes / neighbour.least_bytes


def estimated_us(task: Task, database: Database) -> float | None:
    """Estimate the latency in microseconds of a task without a record; `None` if nothing similar was tuned."""
    near = nearest_alike(task, database)
    return None if near is None or near[0].latency_us is None else near[0].latency_us * near[1]


def _neighbours(task: Task, database: Database, only: Template | None) -> Iterator[tuple[KnobSchedule, Record]]:
    yielded: set[KnobSchedule] = set()

    @cache
    def space_of(name: str, version: int) -> Space | None:
        template = template_named(name, version)
        return template.space(task) if template else None

    for neighbour in _by_distance(task, database):
        best = best_with_knobs(database, neighbour, only)
        if best is not None:
            assert isinstance(best.schedule, KnobSchedule)
            space = space_of(best.schedule.template, best.schedule.version)
            schedule = _moved(best.schedule, space, neighbour.threads == task.threads) if space else None
            if schedule is not None and schedule not in yielded:
                yielded.add(schedule)
                yield schedule, best


def _moved(schedule: KnobSchedule, space: Space, same_threads: bool) -> KnobSchedule | None:
    """Return the member of a space that is nearest to a schedule. One for another number of threads does not say what threads share: the
    knob `axis` has its usual value then.
    """
    if not same_threads and "axis" in space.usual:
        schedule = replace(schedule, knobs=tuple({**schedule.values, "axis": space.usual["axis"]}.items()))
    return space.nearest(schedule)


def _by_distance(task: Task, database: Database) -> Iterator[Task]:
    features, tasks = _KNOWN.setdefault(database, _TaskFeatures()), database.described()
    features.add(tasks[len(features) :])
    return features.by_distance(task)


def best_with_knobs(database: Database, task: Task, only: Template | None) -> Record | None:
    """Return a task's fastest record with a template's schedule, of the template `only` if given; `None` if there is none."""
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
    """The features by which a database's tasks are compared, with a row per task."""

    def __init__(self) -> None:
        self._numbers: dict[object, int] = {}
        self._tasks: list[Task] = []
        self._names = np.array([], str)
        self._rows = np.zeros((0, 3 + _MOST_LAYERS * (_MOST_EXTENTS + len(_FORMS))))

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, tasks: Sequence[Task]) -> None:
        """Append rows for new tasks."""
        if tasks:
            self._tasks += tasks
            self._names = np.array([task.name for task in self._tasks])
            self._rows = np.concatenate([self._rows, [self._row(task) for task in tasks]])

    def by_distance(self, task: Task) -> Iterator[Task]:
        """Yield all other tasks, nearest first: by differences of the logarithms of extents; different strides or threads weigh more.

        Tasks with another dtype or number of layers come last.
        """
        own, (layers, dtypes, threads) = self._row(task), self._rows[:, :3].T
        differences = self._rows[:, 3:] - own[3:]
        extents, forms = np.split(np.nan_to_num(differences), [_MOST_LAYERS * _MOST_EXTENTS], axis=1)
        weights = np.tile(list(_FORMS.values()), _MOST_LAYERS)
        far = np.abs(extents).sum(axis=1) + (forms != 0) @ weights + 4.0 * (threads != own[2])
        # Logarithms of equal ratios differ in their last digits.
        rows = np.lexsort((self._names, far.round(9), (layers != own[0]) | (dtypes != own[1])))
        yield from (other for other in map(self._tasks.__getitem__, rows) if other != task)

    def _row(self, task: Task) -> NDArray[np.float64]:
        """Return a task's row: number of layers, number for its dtype, threads, the logarithms of all layers' extents, and numbers for
        their forms in the order of `_FORMS`; NaN for those it lacks.
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
