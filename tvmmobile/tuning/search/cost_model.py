"""A cost model that learns across kernels: XGBoost on features of the task and the knobs, one model per template.

It predicts the logarithm of the latency per multiply-add, so that it can learn from kernels of all sizes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from tvmmobile.graph.machine import BASELINE, Machine
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Template, template_named
from tvmmobile.tuning.database import Database
from tvmmobile.tuning.records import Record

#: Fewest successful records for a useful model.
MIN_RECORDS = 12
#: Latency per multiply-add assumed for a failed candidate, as a multiple of the slowest successful one.
_FAILURE_FACTOR = 2.0


class CostModel:
    """Predicts which schedules of one version of a template are fast on a core; records of others are ignored.

    Raises:
        ValueError: if there is no such template.
    """

    def __init__(self, template: str, version: int, machine: Machine = BASELINE) -> None:
        named = template_named(template, version)
        if named is None:
            raise ValueError(f"no template {template}@{version}")
        self._template, self._machine = named, machine
        self._rows: list[tuple[list[float], dict[str, int]]] = []
        self._targets: list[float] = []
        self._booster: Any = None
        self._fitted = 0
        #: Names of the knobs in the records that the booster was fitted to.
        self._knobs: list[str] = []

    def add(self, records: Iterable[Record]) -> None:
        """Add records, which the next prediction learns from."""
        for record in records:
            schedule = record.schedule
            if not isinstance(schedule, KnobSchedule) or schedule.template != self._template.name:
                continue
            if schedule.version != self._template.version:
                continue
            self._rows.append(self._features(replace(record.task, machine=self._machine), schedule))
            failed = record.latency_us is None
            self._targets.append(math.nan if failed else math.log((record.latency_us or 0.0) / max(record.task.macs, 1)))

    @property
    def trained(self) -> bool:
        """True if there are enough records to predict from."""
        return sum(1 for target in self._targets if not math.isnan(target)) >= MIN_RECORDS

    def predict(self, task: Task, schedules: Sequence[KnobSchedule]) -> npt.NDArray[np.float64]:
        """Return a score per schedule, lower is faster; scores of different tasks are not comparable."""
        self._fit()
        matrix = self._matrix([self._features(task, schedule) for schedule in schedules])
        return np.asarray(self._booster.predict(matrix), np.float64)

    def _fit(self) -> None:
        import xgboost

        if self._fitted == len(self._targets):
            return
        targets = np.array(self._targets)
        worst = np.nanmax(targets)
        targets = np.where(np.isnan(targets), worst + math.log(_FAILURE_FACTOR), targets)
        self._knobs = list(dict.fromkeys(name for _, knobs in self._rows for name in knobs))
        matrix = self._matrix(self._rows, targets - np.nanmin(targets))
        options = {"max_depth": 5, "eta": 0.2, "subsample": 0.9, "min_child_weight": 1, "nthread": 1, "seed": 0, "verbosity": 0}
        self._booster = xgboost.train(options, matrix, num_boost_round=80)
        self._fitted = len(self._targets)

    def _features(self, task: Task, schedule: KnobSchedule) -> tuple[list[float], dict[str, int]]:
        return self._template.features(task, schedule.values), dict(schedule.knobs)

    def _matrix(self, rows: Sequence[tuple[list[float], dict[str, int]]], label: npt.NDArray[np.float64] | None = None) -> Any:
        """Return a matrix with a row per kernel and a column per feature and knob; knobs that a kernel lacks are NaN, e.g. `inner`."""
        import xgboost

        values = [[*features, *(math.log2(1 + knobs.get(name, math.nan)) for name in self._knobs)] for features, knobs in rows]
        return xgboost.DMatrix(np.array(values, np.float32), label=label)


class CostModels:
    """The cost models of all templates, shared by all tasks; each is created with a database's records when it is first needed."""

    def __init__(self, database: Database, machine: Machine = BASELINE) -> None:
        self.database, self._machine = database, machine
        self._models: dict[str, CostModel] = {}

    def of(self, template: Template) -> CostModel:
        """Return the model of a template."""
        if template.name not in self._models:
            model = self._models[template.name] = CostModel(template.name, template.version, self._machine)
            for task in self.database.tasks():
                model.add(self.database.records(task))
        return self._models[template.name]

    def add(self, records: Sequence[Record]) -> None:
        """Add records to all models."""
        for model in self._models.values():
            model.add(records)
