"""NCHW convolutions: depthwise ones, and the first one of a network."""

from __future__ import annotations

import math
from typing import Any

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue
from tvmmobile.schedules.emit.planes import PlaneNest, packed_planes, plane_weights
from tvmmobile.schedules.floats.image_conv import MAX_INPUT_CHANNELS
from tvmmobile.schedules.space import Knobs, Space, up_to, waste
from tvmmobile.schedules.template import EPILOGUE, STORAGE, THREADS, Template, layer_of

#: Registers for inputs and weights, in addition to the accumulators.
OTHERS = 8


class PlaneConv(Template):
    """Accepts one convolution with NCHW input and output: a depthwise one of any kernel size, stride, dilation and padding, or one with at
    most 4 input channels and one group.

    Knobs:
        rows, vectors: register tile in output rows and vectors of a row.
        together: output channels per tile, which share loaded inputs; 1 for a depthwise layer.
        band: output rows whose input rows are copied, with padding, at a time; 0 for all of them.
    """

    name = "plane_conv"
    version = 1
    handles = EPILOGUE | THREADS | STORAGE | {"dilation", "in_layout=NCHW", "out_layout=NCHW"}
    enough_trials = 24

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.channels_first):
            return None
        if not (layer.is_depthwise or (layer.groups == 1 and layer.in_channels <= MAX_INPUT_CHANNELS)):
            return None
        vectors = -(-layer.out_width // task.lanes)
        options = {
            "rows": up_to((1, 2, 3, 4), layer.out_height),
            "vectors": up_to((1, 2, 3, 4, 6, 7, 8), vectors),
            "together": (1,) if layer.is_depthwise else tuple(size for size in (1, 2, 4, 8) if layer.out_channels % size == 0),
            "band": (0, *(rows for rows in (4, 8, 16, 28) if rows < layer.out_height)),
        }
        fewest = min(4, max(options["rows"]) * max(options["vectors"]) * max(options["together"]))

        def fits(knobs: Knobs) -> bool:
            sums = knobs["rows"] * knobs["vectors"] * knobs["together"]
            return fewest <= sums <= task.machine.registers - OTHERS and knobs["rows"] <= (knobs["band"] or layer.out_height)

        return Space(self.name, self.version, options, fits, {"rows": 2, "vectors": 4, "together": 4, "band": 16})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, stride, taps, accumulators, rows copied per output row, a band's size, and the waste at the edges."""
        layer = layer_of(task, Conv2d)
        band = min(knobs["band"] or layer.out_height, layer.out_height)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.out_channels),
            layer.stride[1],
            layer.kernel[0] * layer.kernel[1],
            knobs["rows"] * knobs["vectors"] * knobs["together"],
            ((band - 1) * layer.stride[0] + layer.reach[0]) / band,
            math.log2(band * layer.width),
            waste(layer.out_width, task.lanes),
            waste(band, knobs["rows"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel, together, depth = Kernel(task, knobs), knobs["together"], layer.in_channels // layer.groups
        count = plane_weights(math.prod(layer.kernel), together, task.lanes) * depth * (layer.out_channels // together)
        with layer_body(kernel, layer, count) as (buffers, _):
            PlaneNest(kernel, layer, together, knobs, task.threads, buffers, PlaneEpilogue(kernel, layer, buffers)).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as packed by `packed_planes`, then the constants per channel."""
        return [packed_planes(parameters[0].weight, knobs["together"], task.lanes), *pack_constants(parameters[0])]
