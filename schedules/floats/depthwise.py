"""Depthwise convolution: each tile of output pixels × a few channels loads its input window once."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.epilogue import layer_body, pack_constants
from tvmmobile.schedules.emit.kernel import Kernel
from tvmmobile.schedules.emit.window_nest import Weighted, emit_windows, window_space, window_width
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import BLOCKED, EPILOGUE, PIECES, STORAGE, THREADS, Template, layer_of


class Depthwise(Template):
    """Accepts one depthwise convolution of any kernel size, stride, dilation and padding, with or without a residual, NHWC or blocked; the
    output may also be NCHW. If the input consists of pieces, these and the output are NHWC.

    Knobs:
        rows, columns: output tile; an input row of the tile is loaded once and used by every output row it reaches.
        channels: channels per pass over the image, 0 for all of them; with few, input rows stay in L1 until the next tiles read them.
        axis: loop that threads share: 0 rows of tiles, 1 channels.
    """

    name = "depthwise"
    version = 2
    handles = BLOCKED | EPILOGUE | PIECES | THREADS | STORAGE | {"residual", "dilation", "out_layout=NCHW"}
    enough_trials = 16
    multiplies = True

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_depthwise):
            return None
        if layer.pieces and (layer.in_layout, layer.out_layout) != ("NHWC", "NHWC"):
            return None
        return window_space(self.name, self.version, layer, task, constants=layer.kernel[1])

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, stride, tile, registers used, loads per output, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        kernel, stride = layer.kernel[1], layer.stride[1]
        outputs, window = knobs["rows"] * knobs["columns"], window_width(layer, knobs)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.in_channels),
            stride,
            outputs,
            outputs + window + kernel,
            window * ((knobs["rows"] - 1) * stride + layer.reach[0]) / outputs,
            waste(layer.out_height, knobs["rows"]),
            waste(layer.out_width, knobs["columns"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel = Kernel(task, knobs)
        with layer_body(kernel, layer, layer.kernel[0] * layer.kernel[1] * layer.in_channels) as (buffers, epilogue):
            emit_windows(epilogue, Weighted(kernel, layer, buffers["weight"]), layer, knobs, buffers, task.threads)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as a flat array; per piece [vector of channels][tap][lane], then the remaining channels as [channel][tap]."""
        layer = layer_of(task, Conv2d)
        taps, channels = layer.kernel[0] * layer.kernel[1], layer.in_channels
        weight = parameters[0].weight.reshape(taps, channels)
        parts = []
        for count in [count for _, _, count in layer.pieces] or [channels]:
            lanes = task.lanes
            whole = count - count % lanes
            vectors = weight[:, :whole].reshape(taps, whole // lanes, lanes).transpose(1, 0, 2)
            parts += [vectors.ravel(), weight[:, whole:count].T.ravel()]
            weight = weight[:, count:]
        return [np.concatenate(parts), *pack_constants(parameters[0])]
