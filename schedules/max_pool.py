"""The largest value of a window, channel by channel; the window is read once per tile of output pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, MaxPool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Buffer, Expr, Kernel
from tvmmobile.schedules.epilogue import Ends, Spot
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import PIECES, STORAGE, THREADS, Template, layer_of
from tvmmobile.schedules.window_nest import emit_windows, window_space, window_width


class WindowMax(Template):
    """Takes one max pool of any window, stride and padding, NHWC, its input in one tensor or in pieces.

    Knobs: those of `Depthwise`.
    """

    name = "max_pool"
    version = 1
    handles = PIECES | THREADS | STORAGE
    enough_trials = 16

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, MaxPool):
            return None
        return window_space(self.name, self.version, layer, task, constants=0)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, window, stride, tile, loads per output, and what the tile wastes at the edges."""
        layer = layer_of(task, MaxPool)
        kernel, stride = layer.kernel[0], layer.stride[0]
        outputs, window = knobs["rows"] * knobs["columns"], window_width(layer, knobs)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.channels),
            kernel,
            stride,
            outputs,
            window * ((knobs["rows"] - 1) * stride + kernel) / outputs,
            waste(layer.out_height, knobs["rows"]),
            waste(layer.out_width, knobs["columns"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, MaxPool), Kernel(task)
        with kernel.named_body(data=layer.input_shape, **layer.side_shapes, least=(1,), output=layer.output_shape) as buffers:
            ends = _Ends(kernel, buffers["least"])
            emit_windows(ends, lambda largest, value, *_: kernel.T.max(largest, value), layer, knobs, buffers, task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """The smallest value. (Relax checks whether a kernel of one argument is a reshape, and fails if it has no blocks.)"""
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
