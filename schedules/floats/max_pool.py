"""The largest value of a window, channel by channel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, MaxPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import Ends, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.floats.window_pool import WindowPooling
from tvmmobile.schedules.space import Knobs


class WindowMax(WindowPooling):
    """Takes one max pool."""

    name = "max_pool"
    version = 1
    kind = MaxPool
    constant = "least"

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        return self.emitted(
            task,
            knobs,
            lambda kernel, buffers: _Ends(kernel, buffers[self.constant]),
            lambda kernel, largest, value: kernel.T.max(largest, value),
        )

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """The smallest value."""
        return [np.array([-np.inf], task.precision.numpy)]


@dataclass(frozen=True)
class _Ends(Ends):
    """Begins with the smallest value."""

    least: Buffer

    def begin(self, spot: Spot) -> Expr:
        """See `Ends.begin`."""
        return self.kernel.splat(self.least[0], spot.lanes)

    def finish(self, value: Expr, spot: Spot) -> Expr:
        """The value itself."""
        return value
