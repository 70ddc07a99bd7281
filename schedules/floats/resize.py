"""Image resizing: each output pixel is a copy of one input pixel, or interpolated between four; tables hold their positions and weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, LayerParameters, Resize
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, parts_of, share
from tvmmobile.schedules.space import Knobs, Space, up_to
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of

#: Names of the arguments with positions of input elements, and of those with interpolation weights.
_PLACES, _SHARES = ("rows", "columns"), ("row_shares", "column_shares")


class Resample(Template):
    """Accepts one resize, nearest or bilinear, of an NHWC image. Threads share the output's rows.

    Each row of an NCHW output is computed in NHWC, in a buffer that stays in cache, and transposed from there.

    Knobs:
        passes: 2 interpolates a whole row between two input rows first, in a buffer that stays in cache; 1 does both directions at once.
        vectors: vectors of channels at a time.
    """

    name = "resize"
    version = 1
    handles = THREADS | STORAGE | {"out_layout=NCHW"}
    enough_trials = 6

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Resize):
            return None
        several = up_to((1, 2, 4), layer.channels // task.lanes)
        options = {"passes": (1, 2), "vectors": several} if layer.method == "linear" else {"passes": (1,), "vectors": several[-1:]}
        usual = {"passes": 2 if layer.width < layer.out_width else 1, "vectors": 2}
        return Space(self.name, self.version, options, lambda knobs: True, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the output's size, its ratios to the input's height and width, channels, and whether it is bilinear."""
        layer = layer_of(task, Resize)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.out_height / layer.height),
            math.log2(layer.out_width / layer.width),
            math.log2(layer.channels),
            float(layer.method == "linear"),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, Resize), _TableKernel(task)
        shapes = {"data": layer.input_shape, **_table_shapes(layer), "output": layer.output_shape}
        with kernel.named_body(**shapes) as buffers, kernel.team(task.threads) as thread:
            line = kernel.scratch(layer.out_width * layer.channels) if layer.out_layout == "NCHW" else None
            nest = _ResizeNest(kernel, layer, knobs["vectors"], buffers, line)
            rows = share(thread, task.threads, layer.out_height)
            if layer.method != "linear":
                nest.nearest(rows)
            elif knobs["passes"] == 1:
                nest.between_four(rows)
            else:
                nest.rows_first(rows)
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the tables of `_tables`, with weights in the precision that kernels compute in."""
        tables = _tables(layer_of(task, Resize), parameters[0])
        return [array.astype(task.precision.arithmetic.numpy) if name in _SHARES else array for name, array in tables.items()]


def _table_shapes(layer: Resize) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the tables by argument name."""
    outputs = layer.out_height, layer.out_width
    shapes: dict[str, tuple[int, ...]] = {name: (2 * count,) for name, count in zip(_PLACES, outputs, strict=True)}
    return shapes | ({name: (count,) for name, count in zip(_SHARES, outputs, strict=True)} if layer.method == "linear" else {})


def _tables(layer: Resize, parameters: LayerParameters) -> dict[str, Array]:
    """Return the tables by argument name: for each output row and column, the index of the first and of the last input row or column it is
    interpolated between, and, for bilinear resizing, the last one's weight.
    """
    positions, shares = {}, {}
    pitches = layer.width * layer.channels, layer.channels
    for places, ratios, pitch, (first, last, ratio) in zip(_PLACES, _SHARES, pitches, layer.pixels(parameters), strict=True):
        positions[places] = (np.stack([first, last], 1).reshape(-1) * pitch).astype(np.int32)
        shares[ratios] = ratio
    return positions | (shares if layer.method == "linear" else {})


class _TableKernel(Kernel):
    """A kernel with arguments that are tables of positions."""

    def type_of(self, argument: str) -> str:
        """Return the type of an argument's elements: int32 for tables of positions."""
        return "int32" if argument in _PLACES else super().type_of(argument)


@dataclass(frozen=True)
class _Between:
    """The two values to interpolate between (their indices in a buffer), and the last one's weight."""

    first: Expr
    last: Expr
    ratio: Expr


@dataclass(frozen=True)
class _ResizeNest:
    """Emits loops over rows, columns and vectors of channels.

    Attributes:
        vectors: vectors of channels at a time.
        buffers: buffers by argument name.
        line: buffer for an output row in NHWC; `None` if the output is NHWC itself.
    """

    kernel: Kernel
    layer: Resize
    vectors: int
    buffers: dict[str, Buffer]
    line: Buffer | None

    def nearest(self, rows: tuple[Expr, Expr]) -> None:
        """Emit copies of the nearest pixels."""
        kernel, data = self.kernel, self.buffers["data"]
        with self._pixels(rows) as (row, column, line, target):
            source = kernel.T.bind(self.buffers["rows"][2 * row] + self.buffers["columns"][2 * column])
            for channel, lanes in self._channels(self.layer.channels):
                with channel as first:
                    kernel.store(line, kernel.load(data, source + first, lanes), target + first, lanes)

    def between_four(self, rows: tuple[Expr, Expr]) -> None:
        """Emit values interpolated between four pixels."""
        with self._pixels(rows) as (row, column, line, target):
            above, columns = self._between(0, row), self._between(1, column)
            for channel, lanes in self._channels(self.layer.channels):
                with channel as first:
                    left, right = (self._middle(self.buffers["data"], above, end + first, lanes) for end in (columns.first, columns.last))
                    self.kernel.store(line, self._mixed(left, right, columns.ratio, lanes), target + first, lanes)

    def rows_first(self, rows: tuple[Expr, Expr]) -> None:
        """Emit values interpolated between two rows, then between columns of the result."""
        kernel, layer = self.kernel, self.layer
        between = kernel.scratch(layer.width * layer.channels)
        with kernel.span(*rows) as row:
            above = self._between(0, row)
            for place, lanes in self._channels(layer.width * layer.channels):
                with place as first:
                    kernel.store(between, self._middle(self.buffers["data"], above, first, lanes), first, lanes)
            with self._columns(row) as (column, line, target):
                columns = self._between(1, column)
                for channel, lanes in self._channels(layer.channels):
                    with channel as first:
                        kernel.store(line, self._middle(between, columns, first, lanes), target + first, lanes)

    @contextmanager
    def _pixels(self, rows: tuple[Expr, Expr]) -> Iterator[tuple[Expr, Expr, Buffer, Expr]]:
        """Emit loops over the output's pixels; yield row, column, the buffer that the pixel is stored to, and its index there."""
        with self.kernel.span(*rows) as row, self._columns(row) as (column, line, target):
            yield row, column, line, target

    @contextmanager
    def _columns(self, row: Expr) -> Iterator[tuple[Expr, Buffer, Expr]]:
        """Emit a loop over the pixels of a row; yield column, buffer and the pixel's index there. An NCHW row is then transposed."""
        kernel, layer, output = self.kernel, self.layer, self.buffers["output"]
        line, first = (output, row * layer.out_width) if self.line is None else (self.line, 0)
        with kernel.loop(layer.out_width) as column:
            yield column, line, (first + column) * layer.channels
        if self.line is not None:
            with kernel.loop(layer.channels) as channel, kernel.loop(layer.out_width) as column:
                place = (channel * layer.out_height + row) * layer.out_width + column
                kernel.store(output, kernel.load(line, column * layer.channels + channel, 1), place, 1)

    def _channels(self, count: int) -> Iterator[tuple[Any, int]]:
        """Yield (loop over consecutive elements, elements per iteration): several vectors, one vector, one element."""
        for lanes, steps, first in parts_of(count, self.vectors * self.kernel.lanes, self.kernel.lanes, 1):
            yield self.kernel.pieces(first, steps, lanes), lanes

    def _between(self, axis: int, place: Expr) -> _Between:
        """Return the input rows (axis 0) or columns (axis 1) that an output row or column is interpolated between."""
        lines, ratios, bind = self.buffers[_PLACES[axis]], self.buffers[_SHARES[axis]], self.kernel.T.bind
        return _Between(bind(lines[2 * place]), bind(lines[2 * place + 1]), bind(ratios[place]))

    def _middle(self, buffer: Buffer, ends: _Between, offset: Expr, lanes: int) -> Expr:
        """Return values interpolated between elements of a buffer."""
        first, last = (self.kernel.load(buffer, end + offset, lanes) for end in (ends.first, ends.last))
        return self._mixed(first, last, ends.ratio, lanes)

    def _mixed(self, first: Expr, last: Expr, ratio: Expr, lanes: int) -> Expr:
        first = self.kernel.T.bind(first)
        return first + (last - first) * self.kernel.splat(ratio, lanes)
