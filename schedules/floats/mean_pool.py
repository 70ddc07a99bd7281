"""The mean of a window's values, channel by channel; padding counts as none of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, MeanPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import Ends, Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.floats.window_pool import WindowPooling
from tvmmobile.schedules.space import Knobs


class WindowMean(WindowPooling):
    """Takes one average pool that does not count padding."""

    name = "mean_pool"
    version = 1
    kind = MeanPool
    constant = "nothing"

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        return self.emitted(
            task,
            knobs,
            lambda kernel, buffers: _Ends(kernel, buffers[self.constant]),
            lambda _kernel, total, value: total + value,
        )

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Zero, with which sums begin."""
        return [np.zeros(1, task.precision.numpy)]


@dataclass(frozen=True)
class _Ends(Ends):
    """Begins with zero, and divides by how many values there were."""

    nothing: Buffer

    def begin(self, spot: Spot) -> Expr:
        """See `Ends.begin`."""
        return self.kernel.splat(self.nothing[0], spot.lanes)

    def finish(self, value: Expr, spot: Spot) -> Expr:
        """The sum's share."""
        return value * self.kernel.vectors(spot.lanes).number(1 / spot.taps)
