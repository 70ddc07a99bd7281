"""The classifier: one row times a matrix, bound by reading the weights once."""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.layers import Array, Dense, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Activation, Kernel
from tvmmobile.schedules.machine import LANES, REGISTERS, round_up, up_to, waste
from tvmmobile.schedules.matmul import MatmulTile, pack_bias, pack_panels, packed_shapes, panels
from tvmmobile.schedules.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import ACTIVATIONS, THREADS, Template


class DenseVector(Template):
    """Takes one fully connected layer with one input row, float32.

    Knobs:
        columns: output channels accumulated at once.
        unroll: K steps per loop iteration.
    """

    name = "dense"
    version = 1
    handles = ACTIVATIONS | THREADS

    def _space(self, task: Task) -> Space | None:
        """See the class."""
        if not isinstance(task.region[0], Dense):
            return None
        layer = task.region[0]
        options = {
            "columns": up_to((4, 8, 16, 20, 24, 32, 40, 48, 64, 80, 96), round_up(layer.out_features, LANES)),
            "unroll": up_to((4, 8, 16), round_up(layer.in_features, LANES)),
        }

        def fits(knobs: Knobs) -> bool:
            return knobs["columns"] // LANES >= min(4, max(options["columns"]) // LANES) and knobs["columns"] // LANES + 3 <= REGISTERS

        return Space(self.name, self.version, options, fits, {"columns": 40, "unroll": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size and what the last panel wastes."""
        layer = task.layer
        assert isinstance(layer, Dense)
        return [math.log2(layer.in_features), math.log2(layer.out_features), waste(layer.out_features, knobs["columns"])]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        """See `Template.emit`."""
        layer = task.layer
        assert isinstance(layer, Dense)
        kernel, depth, channels = Kernel(task.symbol), layer.in_features, layer.out_features
        packed = packed_shapes(depth, channels, knobs["columns"])
        with kernel.body(data=layer.input_shape, **packed, output=layer.output_shape) as (data, weight, bias, output):
            a, c = Activation(data, 1, depth, depth), Activation(output, 1, channels, channels)
            tile = MatmulTile(kernel, a, weight, bias, c, knobs["unroll"], layer.clamp)
            MatmulNest(tile, {"rows": 1, "axis": 1}, Pixels(1), panels(channels, knobs["columns"]), task.threads).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`, bias padded to whole vectors."""
        return [pack_panels(parameters[0].weight, knobs["columns"]), pack_bias(parameters[0].bias)]
