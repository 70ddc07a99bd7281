"""A template whose one knob chooses how its kernel goes wrong. With `TVMMOBILE_PLUGINS=broken_templates`, every process knows it."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Dense, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules import KnobSchedule, Space, Template, register
from tvmmobile.schedules.emit.kernel import Buffer, Kernel
from tvmmobile.schedules.space import Knobs

#: The only task this template takes.
TASK = Task((Dense(5, 3),))
GOOD, CRASHES, HANGS, WRONG, NOT_A_NUMBER, DOES_NOT_BUILD, KILLS_THE_COMPILER, HANGS_THE_COMPILER = range(8)
_FAR_AWAY = 1 << 44
_FOR_EVER = 1 << 60


class Broken(Template):
    """Takes `TASK`; the knob `fault` is one of the names above."""

    name = "broken"
    version = 1

    def _space(self, task: Task) -> Space | None:
        """Every fault."""
        if task != TASK:
            return None
        return Space(self.name, self.version, {"fault": tuple(range(8))}, lambda knobs: True, {"fault": CRASHES})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return nothing that would distinguish the good one from the others."""
        return [1.0]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        """Return a dot product for each output, and the fault."""
        layer = task.layer
        assert isinstance(layer, Dense)
        if knobs["fault"] == DOES_NOT_BUILD:
            raise ValueError("this schedule has no loops\nat all")
        if knobs["fault"] == KILLS_THE_COMPILER:
            os.kill(os.getpid(), signal.SIGSEGV)
        if knobs["fault"] == HANGS_THE_COMPILER:
            while True:
                pass
        kernel = Kernel(task)
        shapes = {
            "data": layer.input_shape,
            "weight": (layer.in_features * layer.out_features,),
            "bias": (layer.out_features,),
            "output": layer.output_shape,
        }
        with kernel.body(**shapes) as (data, weight, bias, output):
            for column in range(layer.out_features):
                total = kernel.load(bias, column, 1)
                for k in range(layer.in_features):
                    total = total + kernel.load(data, k, 1) * kernel.load(weight, k * layer.out_features + column, 1)
                kernel.store(output, total, column, 1)
            _spoil(kernel, knobs["fault"], output)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights and bias as they are, flat."""
        return [np.ascontiguousarray(parameters[0].weight).ravel(), parameters[0].bias]


def _spoil(kernel: Kernel, fault: int, output: Buffer) -> None:
    T = kernel.T  # noqa: N806
    if fault == CRASHES:
        kernel.store(output, kernel.load(output, T.int64(_FAR_AWAY), 1), 0, 1)
    elif fault == HANGS:
        with T.serial(T.int64(0), T.int64(_FOR_EVER)) as _:
            kernel.store(output, kernel.load(output, 0, 1) * T.float32(0.5) + T.float32(1), 0, 1)
    elif fault == WRONG:
        kernel.store(output, kernel.load(output, 1, 1) * T.float32(1.01), 1, 1)
    elif fault == NOT_A_NUMBER:
        kernel.store(output, T.float32(float("nan")), 2, 1)


def schedule(fault: int) -> KnobSchedule:
    """Return the schedule with this fault."""
    return KnobSchedule(Broken.name, Broken.version, (("fault", fault),))


register(Broken())
