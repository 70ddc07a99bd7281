"""The loop nest of depthwise convolutions and window pools: a tile of output pixels of a few channels loads its input window once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from typing import Any

from tvmmobile.graph.layers import Conv2d, WindowPool
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation, Piece, input_of
from tvmmobile.schedules.emit.epilogue import Ends, Spot, scattered
from tvmmobile.schedules.emit.in_order_block import multiply_window
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, vector_groups
from tvmmobile.schedules.emit.tiles import Run, Taps, joined, partition, taps_along
from tvmmobile.schedules.space import Knobs, Space, up_to, waste

#: Layers whose output channels depend only on the input channel with the same index.
Windowed = Conv2d | WindowPool
#: Windows with more taps have a loop over their rows; others are unrolled. Where they reach into padding, code is emitted for each number
#: of rows and columns inside the image, so that unrolled windows of 31×31 took half a minute to compile.
MOST_UNROLLED = 144
#: Maps (result so far, input value, first channel, tap counted row by row, lanes) to the next result.
Add = Callable[[Expr, Expr, Expr, int, int], Expr]


@dataclass(frozen=True)
class Weighted:
    """The step `Add` of a depthwise convolution: a weighted sum over the window."""

    kernel: Kernel
    layer: Windowed
    weight: Buffer

    def __call__(self, so_far: Expr, value: Expr, channel: Expr, tap: int, lanes: int) -> Expr:
        """Return the sum plus one weighted value."""
        return so_far + value * self.kernel.load(self.weight, self.first(channel) + tap * lanes, lanes)

    def first(self, channel: Expr) -> Expr:
        """Return the index of the first weight of a vector of channels."""
        return channel * math.prod(self.layer.kernel)


def window_space(template: str, version: int, layer: Windowed, task: Task, constants: int, each: int = 1) -> Space:
    """Return the space of tiles that fit the registers.

    Args:
        constants: registers for constants, such as weights.
        each: registers per result; a row of the tile's input window takes registers, too.
    """
    layer = upright(layer)
    block = min(channel_block(layer.in_layout, layer.in_channels), channel_block(layer.out_layout, layer.in_channels))
    looped, width = loops_over_rows(layer), layer.out_width
    options = {
        "rows": up_to((1, 2, 4, 8) if looped else (1, 2, 3, 4), layer.out_height),
        "columns": up_to((1, 2, 3, 4, 5, 6, 7, 8), layer.out_width),
        "channels": (0, *(count for count in (16, 32) if count < block or count == block < layer.in_channels)),
        "axis": (0, 1) if task.threads > 1 else (0,),
    }
    # With a loop, rows of outputs share only weights, and LLVM spills: 9 % more time for 13×13 over 28×28 pixels (modelled, Pi 4).
    one_row = looped and width > 1
    fewest = min(4, max(options["columns"]) * (1 if one_row else max(options["rows"])))

    def fits(knobs: Knobs) -> bool:
        accumulators = knobs["rows"] * knobs["columns"]
        # A loop's step needs the weights and the input values of one column of the window.
        held = accumulators + 1 if looped else window_width(layer, knobs) + constants
        good = accumulators >= fewest and not (one_row and knobs["rows"] > 1)
        return good and accumulators * each + held <= task.machine.registers

    rows, columns = (1 if one_row else 8, min((8, 7), key=lambda columns: waste(width, columns))) if looped else (2, 4)
    return Space(template, version, options, fits, {"rows": rows, "columns": columns, "channels": 0, "axis": 0})


def loops_over_rows(layer: Windowed) -> bool:
    """Return whether the window has too many taps to be unrolled."""
    return math.prod(layer.kernel) > MOST_UNROLLED


def upright(layer: Windowed) -> Windowed:
    """Return the layer, but transposed if it has a single row and a window with a loop over rows: nothing else changes in memory."""
    if not loops_over_rows(layer) or (layer.height, layer.out_height, layer.kernel[0]) != (1, 1, 1):
        return layer
    top, left, bottom, right = layer.padding
    sides: dict[str, Any] = {"height": layer.width, "width": 1, "padding": (left, top, right, bottom)}
    pairs = ("kernel", "stride", "dilation") if isinstance(layer, Conv2d) else ("kernel", "stride")  # pools have no dilation
    return replace(layer, **sides, **{name: getattr(layer, name)[::-1] for name in pairs})


def window_width(layer: Windowed, knobs: Knobs) -> int:
    """Return the number of input columns that a row of a tile reads."""
    columns, taps, step = knobs["columns"], layer.kernel[1], layer.dilation[1]
    return min((columns - 1) * layer.stride[1] + (taps - 1) * step + 1, columns * taps)


def emit_windows(ends: Ends, add: Add, layer: Windowed, knobs: Knobs, buffers: Mapping[str, Buffer], threads: int) -> None:
    """Emit the whole layer, piece by piece if its input has pieces; `buffers` has the buffers of `input_of`, and `output`."""
    layer, channels = upright(layer), layer.in_channels
    source, pieces = input_of(layer, buffers)
    target = Activation(buffers["output"], layer.out_height * layer.out_width, channels, channel_block(layer.out_layout, channels))
    rows = partition(layer, 0, knobs["rows"])
    part = OutputPart(joined(rows) if loops_over_rows(layer) else rows, partition(layer, 1, knobs["columns"]), 0, 0, layer.out_width)
    first = 0
    for piece in pieces or (Piece(source, 0, channels),):
        WindowNest(ends, add, layer, knobs, part, piece.activation, target).emit(threads, Span(first, piece.count, piece.first))
        first += piece.count


@dataclass(frozen=True)
class OutputPart:
    """A rectangle of the output, stored in a buffer that begins with it.

    Attributes:
        rows, columns: tiles of the rectangle, relative to its first row and column.
        top, left: row and column of the rectangle's first element in the layer's output.
        width: columns of the buffer.
    """

    rows: list[Run]
    columns: list[Run]
    top: Expr
    left: Expr
    width: int


@dataclass(frozen=True)
class Span:
    """Consecutive channels of the layer, and their position in the input tensor.

    Attributes:
        first, count: first channel in the layer, and number of channels.
        source: first channel in the input tensor.
    """

    first: int
    count: int
    source: int


@dataclass(frozen=True)
class Channels:
    """A group of channels that the inner loop of a tile runs over.

    Attributes:
        lanes, count: channels per vector, and number of vectors.
        first: first channel in the layer.
        shift: channel index in the layer minus channel index in the input tensor.
    """

    lanes: int
    count: int
    first: Expr
    shift: int


@dataclass(frozen=True)
class WindowNest:
    """The loop nest over channels, rows of tiles and tiles; borders are peeled, so that no tap is tested at run time. Only the first and
    the last row of a window that `loops_over_rows` are found at run time.

    Attributes:
        ends, add: start and finish of a result, and its step for each value of the window.
        data, output: activation that is read, and activation that the part is stored to.
    """

    ends: Ends
    add: Add
    layer: Windowed
    knobs: Knobs
    part: OutputPart
    data: Activation
    output: Activation

    @property
    def kernel(self) -> Kernel:
        """The kernel under construction."""
        return self.ends.kernel

    def emit(self, threads: int, span: Span | None = None) -> None:
        """Emit the whole nest for the channels of `span` (all by default), shared by `threads` threads."""
        T = self.kernel.T  # noqa: N806
        span = span or Span(0, self.layer.in_channels, 0)
        if threads == 1 or self.knobs["axis"] == 1:
            for channels in self._groups(T.serial if threads == 1 else T.parallel, span):
                with channels as group:
                    for run in self.part.rows:
                        with self.kernel.tiles(run) as row:
                            self._row(run, row, group)
        else:
            for run in self.part.rows:
                with T.parallel(0, run.count) as index:
                    for channels in self._groups(T.serial, span):
                        with channels as group:
                            self._row(run, run.start + index * run.size, group)

    def _groups(self, loop: Callable[[int, int], Any], span: Span) -> Iterator[AbstractContextManager[Channels]]:
        """Yield contexts that emit loops over groups of channels: groups of full size, then one of the remaining vectors, then single
        channels.
        """
        most = min(self.knobs["channels"] or span.count, span.count) // self.kernel.lanes
        for group in vector_groups(span.count, self.kernel.lanes, max(most, 1)):
            channels = Channels(group.lanes, group.vectors, span.first + group.first, span.first - span.source)
            yield self._group(loop, group.count, channels)

    @contextmanager
    def _group(self, loop: Callable[[int, int], Any], groups: int, channels: Channels) -> Iterator[Channels]:
        """Emit a loop over `groups` groups, the first of which is `channels`."""
        if groups == 1:
            yield channels
            return
        with loop(0, groups) as index:
            yield replace(channels, first=channels.first + index * (channels.lanes * channels.count))

    def _row(self, run: Run, row: Expr, channels: Channels) -> None:
        """Emit one row of tiles, channels innermost."""
        for column_run in self.part.columns:
            with self.kernel.tiles(column_run) as column:
                if channels.count == 1:
                    self._tile(run, row, column_run, column, channels, 0)
                    continue
                with self.kernel.T.serial(0, channels.count) as index:
                    self._tile(run, row, column_run, column, channels, index)

    def _tile(self, row_run: Run, row: Expr, column_run: Run, column: Expr, channels: Channels, index: Expr) -> None:
        """Emit one tile: `row_run.size` × `column_run.size` outputs of one vector of channels."""
        layer, load, store, lanes = self.layer, self.kernel.load, self.kernel.store, channels.lanes
        height, width = row_run.size, column_run.size
        channel = channels.first + index * lanes
        acc = self.ends.accumulators(height * width * lanes)
        row_taps = self._row_taps(row_run, row)
        spots = list(self._spots(row_run, row, row_taps, column_run, column, channels, index))
        self.ends.fill(acc, spots)
        top = (self.part.top + row) * layer.stride[0] - layer.padding[0]
        left = (self.part.left + column) * layer.stride[1] - layer.padding[1]
        corner = first_of(self.data, top * layer.width + left, channels, index) - channels.shift
        if loops_over_rows(layer):
            for outputs, low, high in row_loops(self.kernel, row_taps):
                with self.kernel.span(low, high) as tap:
                    self._line(acc, outputs, tap, column_run, corner, channel, lanes)
        elif not (self.kernel.inner and self._in_order(acc, row_run, column_run, corner, channel, lanes)):
            for out, y, x, tap in window_products(layer, row_run.taps, column_run.taps):
                value = load(self.data.buffer, corner + (y * layer.width + x) * self.data.block, lanes)
                store(acc, self.add(load(acc, out * lanes, lanes), value, channel, tap, lanes), out * lanes, lanes)
        self.ends.drain(acc, spots, self.output.buffer)

    def _row_taps(self, run: Run, row: Expr) -> Sequence[tuple[Expr, Expr]]:
        """Return, for each output row of a tile, the window rows [low, high) inside the input."""
        layer = self.layer
        if not loops_over_rows(layer) or all(taps == (0, layer.kernel[0]) for taps in taps_along(layer, 0)):
            return run.taps
        T, (taps, step) = self.kernel.T, (layer.kernel[0], layer.dilation[0])  # noqa: N806
        ranges = []
        for out in range(run.size):
            top = T.bind((self.part.top + row + out) * layer.stride[0] - layer.padding[0])
            low, high = (step - 1 - top) // step, (layer.height - top + step - 1) // step
            ranges.append((T.bind(T.min(T.max(low, 0), taps)), T.bind(T.max(T.min(high, taps), 0))))
        return ranges

    def _line(self, acc: Buffer, outputs: range, tap: Expr, column_run: Run, corner: Expr, channel: Expr, lanes: int) -> None:
        """Emit the multiplications of one window row, for some output rows of a tile."""
        layer, load, width = self.layer, self.kernel.load, column_run.size
        starts = [(row * layer.stride[0] + tap * layer.dilation[0]) * layer.width * self.data.block + corner for row in outputs]
        products = list(line_products(layer, column_run.taps))
        if self.kernel.inner and isinstance(self.add, Weighted) and lanes == self.kernel.lanes:
            multiplied = [(row * width + out, y, x, tap_x) for out, x, tap_x in products for y, row in enumerate(outputs)]
            lines = {y: (self.data.buffer, start, self.data.block) for y, start in enumerate(starts)}
            weights = self.add.weight, self.add.first(channel) + tap * (layer.kernel[1] * lanes)
            if multiply_window(self.kernel, acc, multiplied, lines, weights):
                return
        for (out, x, tap_x), (row, start) in itertools.product(products, zip(outputs, starts, strict=True)):
            place = (row * width + out) * lanes
            value = load(self.data.buffer, start + x * self.data.block, lanes)
            total = self.add(load(acc, place, lanes), value, channel, tap * layer.kernel[1] + tap_x, lanes)
            self.kernel.store(acc, total, place, lanes)

    def _in_order(self, acc: Buffer, row_run: Run, column_run: Run, corner: Expr, channel: Expr, lanes: int) -> bool:
        """Emit the tile's multiplications in our own instruction order; return false, and emit nothing, if there is none."""
        if not isinstance(self.add, Weighted) or lanes != self.kernel.lanes:
            return False
        data, block = self.data.buffer, self.data.block
        height = (row_run.size - 1) * self.layer.stride[0] + self.layer.reach[0]
        rows = {y: (data, corner + y * self.layer.width * block, block) for y in range(height)}
        weights = self.add.weight, self.add.first(channel)
        return multiply_window(self.kernel, acc, window_products(self.layer, row_run.taps, column_run.taps), rows, weights)

    def _spots(
        self,
        row_run: Run,
        row: Expr,
        row_taps: Sequence[tuple[Expr, Expr]],
        column_run: Run,
        column: Expr,
        channels: Channels,
        index: Expr,
    ) -> Iterator[Spot]:
        """Yield the spots of a tile, row by row."""
        part, lanes, channel = self.part, channels.lanes, channels.first + index * channels.lanes
        target = first_of(self.output, row * part.width + column, channels, index)
        for (y, tall), (x, wide) in itertools.product(
            *(enumerate(high - low for low, high in taps) for taps in (row_taps, column_run.taps))
        ):

            def place(tensor: Activation, y: int = y, x: int = x) -> Expr:
                return tensor.at((part.top + row + y) * self.layer.out_width + part.left + column + x, channel)

            lane = scattered(self.output, (row + y) * part.width + column + x, channel, lanes)
            yield Spot(channel, target + (y * part.width + x) * self.output.block, place, lanes, lanes, lane, taps=tall * wide)


def window_products(layer: Windowed, taps_y: Taps, taps_x: Taps) -> Iterator[tuple[int, int, int, int]]:
    """Yield (output, input row, input column, tap) for each product of a tile; rows and columns are relative to the tile's window."""
    for y, (out_y, (top, bottom)) in itertools.product(range((len(taps_y) - 1) * layer.stride[0] + layer.reach[0]), enumerate(taps_y)):
        tap_y, between = divmod(y - out_y * layer.stride[0], layer.dilation[0])
        if between or not top <= tap_y < bottom:
            continue
        for out_x, x, tap_x in line_products(layer, taps_x):
            yield out_y * len(taps_x) + out_x, y, x, tap_y * layer.kernel[1] + tap_x


def line_products(layer: Windowed, taps_x: Taps) -> Iterator[tuple[int, int, int]]:
    """Yield (output, input column, tap) for each product of one window row with one input row of a tile."""
    for tap_x, (out_x, (left, right)) in itertools.product(range(layer.kernel[1]), enumerate(taps_x)):
        if left <= tap_x < right:
            yield out_x, out_x * layer.stride[1] + tap_x * layer.dilation[1], tap_x


def row_loops(kernel: Kernel, row_taps: Sequence[tuple[Expr, Expr]]) -> Iterator[tuple[range, Expr, Expr]]:
    """Yield (output rows, first window row, one past the last) for the loops of a tile: one for the window rows that all output rows have
    inside the input, then those for the other window rows of each output row.
    """
    T, last = kernel.T, len(row_taps) - 1  # noqa: N806
    if not last or isinstance(row_taps[0][0], int):
        yield range(last + 1), *row_taps[0]
        return
    # A later output row reads further down, so that its range starts and ends no later.
    begin, end = row_taps[0][0], T.bind(T.max(row_taps[0][0], row_taps[last][1]))
    yield range(last + 1), begin, end
    for row, (low, high) in enumerate(row_taps):
        if row > 0:
            yield range(row, row + 1), low, T.max(low, T.min(begin, high))
        if row < last:
            start = T.max(end, low)
            yield range(row, row + 1), start, T.max(start, high)


def first_of(activation: Activation, pixel: Expr, channels: Channels, index: Expr) -> Expr:
    """Return the index of the first channel of the group's vector `index`; if one block holds the group, it is found once per group."""
    if activation.block % (channels.lanes * channels.count) == 0:
        return activation.at(pixel, channels.first) + index * channels.lanes
    return activation.at(pixel, channels.first + index * channels.lanes)
