"""Depthwise convolution, NHWC: a tile of output pixels for a few channels, the input window read once per tile."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.layers import Conv2d
from tvmmobile.schedules.emit import Buffer, Expr, Kernel, Run, partition, tiles
from tvmmobile.schedules.machine import LANES, REGISTERS, up_to, waste
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import Array, LayerParameters, Template
from tvmmobile.tasks import Task


class Depthwise(Template):
    """Takes one depthwise convolution of any kernel size, stride and padding, NHWC, float32.

    Knobs:
        rows, columns: output tile; an input row of the tile is read once and used by every output row it reaches.
        order: 0 runs over channels innermost, 1 keeps channels outermost so that their weights can stay in registers.
        axis: what threads share: 0 rows of tiles, 1 channels.
    """

    name = "depthwise"
    version = 1

    def space(self, task: Task) -> Space | None:
        """See the class."""
        if len(task.region) != 1 or task.dtype != "float32":
            return None
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_depthwise and layer.in_layout == "NHWC"):
            return None
        options = {
            "rows": up_to((1, 2, 3, 4), layer.out_height),
            "columns": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
            "order": (0, 1),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        kernel, stride = layer.kernel[1], layer.stride[1]
        fewest = min(4, max(options["rows"]) * max(options["columns"]))

        def fits(knobs: Knobs) -> bool:
            accumulators = knobs["rows"] * knobs["columns"]
            window = (knobs["columns"] - 1) * stride + kernel
            return accumulators >= fewest and accumulators + window + kernel <= REGISTERS

        return Space(self.name, self.version, options, fits, {"rows": 2, "columns": 5, "order": 0, "axis": 0})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Size, stride, tile, registers used, loads per output, and what the tile wastes at the edges."""
        layer = task.layer
        assert isinstance(layer, Conv2d)
        kernel, stride = layer.kernel[1], layer.stride[1]
        outputs = knobs["rows"] * knobs["columns"]
        window = (knobs["columns"] - 1) * stride + kernel
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.in_channels),
            stride,
            outputs,
            outputs + window + kernel,
            window * ((knobs["rows"] - 1) * stride + kernel) / outputs,
            waste(layer.out_height, knobs["rows"]),
            waste(layer.out_width, knobs["columns"]),
        ]

    def emit(self, task: Task, knobs: Knobs) -> Any:
        """See `Template.emit`."""
        layer = task.layer
        assert isinstance(layer, Conv2d)
        kernel = Kernel(task.symbol)
        taps = layer.kernel[0] * layer.kernel[1]
        channels = layer.in_channels
        shapes = {"data": layer.input_shape, "weight": (taps * channels,), "bias": (channels,), "output": layer.output_shape}
        with kernel.body(**shapes) as (data, weight, bias, output):
            DepthwiseNest(kernel, layer, knobs, whole_output(layer, knobs), (data, weight, bias, output)).emit(task.threads)
        return kernel.finish()

    def pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights as [vector of channels][tap][lane], remaining channels as [channel][tap]; the bias as it is."""
        layer = task.layer
        assert isinstance(layer, Conv2d)
        taps, channels = layer.kernel[0] * layer.kernel[1], layer.in_channels
        weight = parameters[0].weight.reshape(taps, channels)
        whole = channels - channels % LANES
        vectors = weight[:, :whole].reshape(taps, whole // LANES, LANES).transpose(1, 0, 2)
        return [np.concatenate([vectors.ravel(), weight[:, whole:].T.ravel()]), parameters[0].bias]


@dataclass(frozen=True)
class Part:
    """A rectangle of the output, and the buffer it goes to.

    Attributes:
        rows, columns: its tiles, counted from the rectangle's first row and column.
        top, left: where the rectangle begins in the layer's output.
        width: columns of the buffer; the rectangle begins at its first element.
    """

    rows: list[Run]
    columns: list[Run]
    top: Expr
    left: Expr
    width: int


def whole_output(layer: Conv2d, knobs: Knobs) -> Part:
    """All of a layer's output, in its own place."""
    top, left, _, _ = layer.padding
    rows = partition(layer.out_height, knobs["rows"], layer.height, layer.kernel[0], layer.stride[0], top)
    columns = partition(layer.out_width, knobs["columns"], layer.width, layer.kernel[1], layer.stride[1], left)
    return Part(rows, columns, 0, 0, layer.out_width)


class DepthwiseNest:
    """Loops over channels, rows of tiles and tiles, borders peeled so that no tap is tested at run time."""

    def __init__(self, kernel: Kernel, layer: Conv2d, knobs: Knobs, part: Part, buffers: tuple[Buffer, ...]) -> None:
        self.kernel, self.layer, self.knobs, self.part = kernel, layer, knobs, part
        self.data, self.weight, self.bias, self.output = buffers
        self.rows, self.columns = part.rows, part.columns
        whole = layer.in_channels // LANES
        #: (lanes, number of vectors, first channel)
        self.channels = [(LANES, whole, 0)] if whole else []
        if layer.in_channels % LANES:
            self.channels.append((1, layer.in_channels % LANES, whole * LANES))

    def emit(self, threads: int) -> None:
        """The whole nest, shared by `threads`."""
        T = self.kernel.T  # noqa: N806
        if threads == 1:
            self._serial()
        elif self.knobs["axis"] == 1:
            for lanes, count, first in self.channels:
                with T.parallel(0, count) as index:
                    self._plane(lanes, index, first)
        else:
            for run in self.rows:
                with T.parallel(0, run.count) as index:
                    for lanes, count, first in self.channels:
                        self._row(run, run.start + index * run.size, lanes, count, first)

    def _serial(self) -> None:
        T = self.kernel.T  # noqa: N806
        for lanes, count, first in self.channels:
            if self.knobs["order"] == 1:
                with T.serial(0, count) as index:
                    self._plane(lanes, index, first)
                continue
            for run in self.rows:
                with tiles(run) as row:
                    self._row(run, row, lanes, count, first)

    def _plane(self, lanes: int, index: Expr, first: int) -> None:
        """All pixels of one vector of channels."""
        for row_run, column_run in itertools.product(self.rows, self.columns):
            with tiles(row_run) as row, tiles(column_run) as column:
                self._tile(row_run, row, column_run, column, lanes, index, first)

    def _row(self, run: Run, row: Expr, lanes: int, count: int, first: int) -> None:
        """One row of tiles, channels innermost."""
        T = self.kernel.T  # noqa: N806
        for column_run in self.columns:
            with tiles(column_run) as column, T.serial(0, count) as index:
                self._tile(run, row, column_run, column, lanes, index, first)

    def _tile(self, row_run: Run, row: Expr, column_run: Run, column: Expr, lanes: int, index: Expr, first: int) -> None:
        """One tile: `row_run.size` × `column_run.size` outputs of `lanes` channels."""
        layer, load, store = self.layer, self.kernel.load, self.kernel.store
        height, width = row_run.size, column_run.size
        channels = layer.in_channels
        channel = first + index * lanes
        taps_y, taps_x = layer.kernel
        weights = first * taps_y * taps_x + index * (lanes * taps_y * taps_x)
        acc = self.kernel.accumulators(height * width * lanes)
        for position in range(height * width):
            store(acc, load(self.bias, channel, lanes), position * lanes, lanes)
        top = (self.part.top + row) * layer.stride[0] - layer.padding[0]
        left = (self.part.left + column) * layer.stride[1] - layer.padding[1]
        for y in range((height - 1) * layer.stride[0] + taps_y):
            for out_y in range(height):
                tap_y = y - out_y * layer.stride[0]
                if not row_run.taps[out_y][0] <= tap_y < row_run.taps[out_y][1]:
                    continue
                for tap_x, out_x in itertools.product(range(taps_x), range(width)):
                    if not column_run.taps[out_x][0] <= tap_x < column_run.taps[out_x][1]:
                        continue
                    x = out_x * layer.stride[1] + tap_x
                    value = load(self.data, ((top + y) * layer.width + left + x) * channels + channel, lanes)
                    filter_tap = load(self.weight, weights + (tap_y * taps_x + tap_x) * lanes, lanes)
                    position = (out_y * width + out_x) * lanes
                    store(acc, load(acc, position, lanes) + value * filter_tap, position, lanes)
        for out_y, out_x in itertools.product(range(height), range(width)):
            value = self.kernel.clamp(load(acc, (out_y * width + out_x) * lanes, lanes), layer.clamp, lanes)
            target = ((row + out_y) * self.part.width + column + out_x) * channels + channel
            store(self.output, value, target, lanes)
