"""Depthwise convolution: a tile of output pixels for a few channels, the input window read once per tile."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.layers import Conv2d, channel_block
from tvmmobile.schedules.emit import Activation, Buffer, Expr, Kernel, Run, partition, tiles
from tvmmobile.schedules.machine import LANES, REGISTERS, up_to, waste
from tvmmobile.schedules.space import Knobs, Space
from tvmmobile.schedules.template import Array, LayerParameters, Template
from tvmmobile.tasks import Task


class Depthwise(Template):
    """Takes one depthwise convolution of any kernel size, stride and padding, float32, channels together or in blocks.

    Knobs:
        rows, columns: output tile; an input row of the tile is read once and used by every output row it reaches.
        channels: how many are carried through the whole image at a time, innermost; 0 for all of them. Few have rows that stay in the
            first-level cache until the next ones need them.
        axis: what threads share: 0 rows of tiles, 1 channels.
    """

    name = "depthwise"
    version = 2
    enough_trials = 16

    def space(self, task: Task) -> Space | None:
        """See the class."""
        if len(task.region) != 1 or task.dtype != "float32":
            return None
        layer = task.region[0]
        if not (
            isinstance(layer, Conv2d) and layer.is_depthwise and not layer.residual and "NCHW" not in (layer.in_layout, layer.out_layout)
        ):
            return None
        block = min(channel_block(layer.in_layout, layer.in_channels), channel_block(layer.out_layout, layer.in_channels))
        options = {
            "rows": up_to((1, 2, 3, 4), layer.out_height),
            "columns": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
            "channels": (0, *(count for count in (16, 32) if count < block or count == block < layer.in_channels)),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        kernel, stride = layer.kernel[1], layer.stride[1]
        fewest = min(4, max(options["rows"]) * max(options["columns"]))

        def fits(knobs: Knobs) -> bool:
            accumulators = knobs["rows"] * knobs["columns"]
            window = (knobs["columns"] - 1) * stride + kernel
            return accumulators >= fewest and accumulators + window + kernel <= REGISTERS

        return Space(self.name, self.version, options, fits, {"rows": 2, "columns": 4, "channels": 0, "axis": 0})

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
            source = Activation(data, layer.height * layer.width, channels, channel_block(layer.in_layout, channels))
            target = Activation(output, layer.out_height * layer.out_width, channels, channel_block(layer.out_layout, channels))
            DepthwiseNest(kernel, layer, knobs, whole_output(layer, knobs), source, (weight, bias), target).emit(task.threads)
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


@dataclass(frozen=True)
class _Channels:
    """Channels that are carried through the image together.

    Attributes:
        lanes, count: so many vectors of so many channels.
        first: the first one.
    """

    lanes: int
    count: int
    first: Expr


class DepthwiseNest:
    """Loops over channels, rows of tiles and tiles, borders peeled so that no tap is tested at run time."""

    def __init__(
        self,
        kernel: Kernel,
        layer: Conv2d,
        knobs: Knobs,
        part: Part,
        data: Activation,
        constants: tuple[Buffer, Buffer],
        output: Activation,
    ) -> None:
        self.kernel, self.layer, self.knobs, self.part = kernel, layer, knobs, part
        self.data, (self.weight, self.bias), self.output = data, constants, output
        self.rows, self.columns = part.rows, part.columns

    def emit(self, threads: int) -> None:
        """The whole nest, shared by `threads`."""
        T = self.kernel.T  # noqa: N806
        if threads == 1:
            for channels in self._groups(T.serial):
                with channels as group:
                    for run in self.rows:
                        with tiles(run) as row:
                            self._row(run, row, group)
        elif self.knobs["axis"] == 1:
            for channels in self._groups(T.parallel):
                with channels as group:
                    for run in self.rows:
                        with tiles(run) as row:
                            self._row(run, row, group)
        else:
            for run in self.rows:
                with T.parallel(0, run.count) as index:
                    for channels in self._groups(T.serial):
                        with channels as group:
                            self._row(run, run.start + index * run.size, group)

    def _groups(self, loop: Callable[[int, int], Any]) -> Iterator[AbstractContextManager[_Channels]]:
        """The channels in groups: those of equal size in a loop, then what remains, then single ones."""
        total = self.layer.in_channels
        whole = total // LANES * LANES
        size = min(self.knobs["channels"] or whole, whole)
        if whole:
            count, rest = divmod(whole, size)
            yield self._group(loop, count, LANES, size // LANES, 0)
            if rest:
                yield self._group(loop, 1, LANES, rest // LANES, count * size)
        if total % LANES:
            yield self._group(loop, 1, 1, total % LANES, whole)

    @contextmanager
    def _group(self, loop: Callable[[int, int], Any], groups: int, lanes: int, count: int, first: int) -> Iterator[_Channels]:
        """A loop over `groups` groups of `count` vectors."""
        if groups == 1:
            yield _Channels(lanes, count, first)
            return
        with loop(0, groups) as index:
            yield _Channels(lanes, count, first + index * (lanes * count))

    def _row(self, run: Run, row: Expr, channels: _Channels) -> None:
        """One row of tiles, channels innermost."""
        for column_run in self.columns:
            with tiles(column_run) as column:
                if channels.count == 1:
                    self._tile(run, row, column_run, column, channels, 0)
                    continue
                with self.kernel.T.serial(0, channels.count) as index:
                    self._tile(run, row, column_run, column, channels, index)

    def _tile(self, row_run: Run, row: Expr, column_run: Run, column: Expr, channels: _Channels, index: Expr) -> None:
        """One tile: `row_run.size` × `column_run.size` outputs of one vector of channels."""
        layer, load, store, lanes = self.layer, self.kernel.load, self.kernel.store, channels.lanes
        height, width = row_run.size, column_run.size
        taps_y, taps_x = layer.kernel
        channel = channels.first + index * lanes
        weights = channel * (taps_y * taps_x)
        acc = self.kernel.accumulators(height * width * lanes)
        for position in range(height * width):
            store(acc, load(self.bias, channel, lanes), position * lanes, lanes)
        top = (self.part.top + row) * layer.stride[0] - layer.padding[0]
        left = (self.part.left + column) * layer.stride[1] - layer.padding[1]
        corner = _first(self.data, top * layer.width + left, channels, index)
        for y in range((height - 1) * layer.stride[0] + taps_y):
            for out_y in range(height):
                tap_y = y - out_y * layer.stride[0]
                if not row_run.taps[out_y][0] <= tap_y < row_run.taps[out_y][1]:
                    continue
                for tap_x, out_x in itertools.product(range(taps_x), range(width)):
                    if not column_run.taps[out_x][0] <= tap_x < column_run.taps[out_x][1]:
                        continue
                    x = out_x * layer.stride[1] + tap_x
                    value = load(self.data.buffer, corner + (y * layer.width + x) * self.data.block, lanes)
                    filter_tap = load(self.weight, weights + (tap_y * taps_x + tap_x) * lanes, lanes)
                    position = (out_y * width + out_x) * lanes
                    store(acc, load(acc, position, lanes) + value * filter_tap, position, lanes)
        target = _first(self.output, row * self.part.width + column, channels, index)
        for out_y, out_x in itertools.product(range(height), range(width)):
            value = self.kernel.clamp(load(acc, (out_y * width + out_x) * lanes, lanes), layer.clamp, lanes)
            store(self.output.buffer, value, target + (out_y * self.part.width + out_x) * self.output.block, lanes)


def _first(activation: Activation, pixel: Expr, channels: _Channels, index: Expr) -> Expr:
    """Index of a vector's first channel; the block is worked out once for all vectors of a group that lies in one."""
    if activation.block % (channels.lanes * channels.count) == 0:
        return activation.at(pixel, channels.first) + index * channels.lanes
    return activation.at(pixel, channels.first + index * channels.lanes)
