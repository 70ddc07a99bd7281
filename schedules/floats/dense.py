"""Fully connected layers: a vector-matrix product, bound by streaming the weights once."""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.layers import Array, Dense, LayerParameters
from tvmmobile.graph.precision import INT8
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.fixed_point import FixedNest, FixedTile
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.matmul import pack_panels, packed_elements, panels
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.emit.pairs import group_of, grouped, tile_of
from tvmmobile.schedules.emit.small_weights import SmallTile, stored_constants
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import EPILOGUE, STORAGE, THREADS, WEIGHTS, Template, layer_of


class DenseVector(Template):
    """Accepts one fully connected layer with one input row.

    Knobs:
        columns: output channels per register tile.
        unroll: K steps per loop iteration.
        fixed: arithmetic of int8 weights: 1 rounds the row to 16 bits and multiplies integers, 0 converts weights to floats.
    """

    name = "dense"
    version = 1
    handles = EPILOGUE | THREADS | STORAGE | WEIGHTS

    def _space(self, task: Task) -> Space | None:
        if not isinstance(task.region[0], Dense):
            return None
        layer, lanes = task.region[0], task.lanes
        options = {
            "columns": up_to((1, 2, 4, 5, 6, 8, 10, 12, 16, 20, 24), round_up(layer.out_features, lanes), lanes),
            "unroll": up_to((1, 2, 4), round_up(layer.in_features, lanes), lanes),
        }

        def fits(knobs: Knobs) -> bool:
            vectors = knobs["columns"] // lanes
            return vectors >= min(4, max(options["columns"]) // lanes) and vectors + 3 <= task.machine.registers

        usual = {"columns": 10 * lanes, "unroll": lanes}
        if layer.weights == INT8.name:
            options["fixed"], usual["fixed"] = (1, 0), 1
        return Space(self.name, self.version, options, fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size and the waste of the last panel."""
        layer = layer_of(task, Dense)
        return [math.log2(layer.in_features), math.log2(layer.out_features), waste(layer.out_features, knobs["columns"])]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Dense)
        depth, channels, group = layer.in_features, layer.out_features, group_of(task.precision.group, layer.in_features)
        kernel = Kernel(task, grouped=grouped(group, "weight"))
        weight = packed_elements(channels, knobs["columns"], depth, task.lanes)
        with layer_body(kernel, layer, weight, task.lanes) as (buffers, epilogue):
            a, c = Activation(buffers["data"], 1, depth, depth), Activation(buffers["output"], 1, channels, channels)
            tile_type, nest = (SmallTile if layer.weights else tile_of(group)), MatmulNest
            if knobs.get("fixed"):
                tile_type, nest = FixedTile, FixedNest
            tile = tile_type(kernel, a, buffers["weight"], c, knobs["unroll"], epilogue)
            nest(tile, {"rows": 1, "axis": 1}, Pixels(1), panels(channels, knobs["columns"], task.lanes), task.threads).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights packed in panels of `columns`, then the constants."""
        constants = stored_constants(task.region[0], parameters[0])
        group = group_of(task.precision.group, len(constants.weight))
        packed = pack_panels(constants.weight, knobs["columns"], task.lanes, group=group)
        return [packed, *pack_constants(constants, task.lanes)]
