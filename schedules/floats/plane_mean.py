"""Global average pool, NCHW: the sums of a few channels at a time."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, Pool
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Kernel, parts_of
from tvmmobile.schedules.floats.pool import PixelShare
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of


class PlaneMean(Template):
    """Accepts one global average pool, NCHW. Threads share the channels.

    Knobs:
        channels: number of channels summed together.
    """

    name = "plane_mean"
    version = 1
    handles = THREADS | STORAGE | {"in_layout=NCHW"}

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Pool) or layer.in_layout != "NCHW":
            return None
        return Space(self.name, self.version, {"channels": up_to((1, 2, 4, 8), layer.channels)}, lambda knobs: True, {"channels": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the number of pixels, of channels, and of channels summed together."""
        layer = layer_of(task, Pool)
        return [math.log2(layer.height * layer.width), math.log2(layer.channels), knobs["channels"]]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Pool)
        kernel, pixels = Kernel(task), layer.height * layer.width
        with kernel.body(data=layer.input_shape, share=(1,), output=layer.output_shape) as (data, share, output):
            for size, count, start in parts_of(layer.channels, knobs["channels"], 1):
                with kernel.T.parallel(0, count) if task.threads > 1 and count > 1 else kernel.loop(count) as group:
                    factor = PixelShare(share, pixels).of(kernel, 1)
                    first = start + group * size
                    means = [self._sum(kernel, data, (first + member) * pixels, pixels) for member in range(size)]
                    for member, total in enumerate(means):
                        kernel.store(output, kernel.narrowed(total * factor, 1), first + member, 1)
        return kernel.finish()

    @staticmethod
    def _sum(kernel: Kernel, data: Any, first: Any, pixels: int) -> Any:
        return kernel.reduced(
            first, pixels, lambda index, lanes: kernel.widened(kernel.load(data, index, lanes), lanes), lambda left, right: left + right
        )

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the factor from sum to mean, one over the number of pixels; shape (1,)."""
        layer = layer_of(task, Pool)
        return [np.array([1 / (layer.height * layer.width)], task.precision.arithmetic.numpy)]
