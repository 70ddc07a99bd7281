"""NCHW convolutions: rows of an input plane are copied into a padded buffer, where each tap of a vector of neighbouring outputs is a
contiguous vector. With a stride, the buffer's columns are sorted by phase (column modulo stride).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share
from tvmmobile.schedules.emit.plane_epilogue import PlaneEpilogue, plane_spot
from tvmmobile.schedules.space import Knobs, round_up


@dataclass(frozen=True)
class PaddedRows:
    """The shape of the padded buffer that a band of output rows reads.

    Attributes:
        band: number of output rows.
        lanes: elements per vector.
    """

    layer: Conv2d
    band: int
    lanes: int

    @property
    def rows(self) -> int:
        """Number of input rows that a band reads."""
        return (self.band - 1) * self.layer.stride[0] + self.layer.reach[0]

    @property
    def phases(self) -> int:
        """Number of phases of columns, the horizontal stride: all outputs read a tap from columns of one phase."""
        return self.layer.stride[1]

    @property
    def pitch(self) -> int:
        """Elements per row and phase, whole vectors."""
        columns = max(self.layer.out_width * self.phases + self.layer.reach[1], self.layer.padding[1] + self.layer.width)
        return round_up(-(-columns // self.phases), self.lanes) + self.lanes

    @property
    def size(self) -> int:
        """Elements per plane."""
        return self.rows * self.phases * self.pitch

    def place(self, row: Expr, column: int) -> Expr:
        """Return the index of a row and a column, both counted from the start of the padding."""
        return (row * self.phases + column % self.phases) * self.pitch + column // self.phases


@dataclass(frozen=True)
class PlaneNest:
    """The loop nest over channels (or groups of them), bands, rows and columns.

    Attributes:
        together: output channels per tile, which share loaded inputs; 1 for a depthwise layer.
        knobs: `rows`, `vectors` and `band`.
    """

    kernel: Kernel
    layer: Conv2d
    together: int
    knobs: Knobs
    threads: int
    buffers: Mapping[str, Buffer]
    epilogue: PlaneEpilogue

    @cached_property
    def lanes(self) -> int:
        """Elements per vector of outputs, at most the columns of a row."""
        return max(size for size in (1, 2, 4, 8, 16) if size <= min(self.kernel.lanes, self.layer.out_width) or size == 1)

    @cached_property
    def padded(self) -> PaddedRows:
        """Shape of one plane of the padded buffer."""
        return PaddedRows(self.layer, min(self.knobs["band"] or self.layer.out_height, self.layer.out_height), self.lanes)

    @property
    def depth(self) -> int:
        """Number of input planes that an output reads."""
        return self.layer.in_channels // self.layer.groups

    @property
    def destination(self) -> Buffer:
        """Buffer that outputs are stored to."""
        return self.buffers["output"]

    def place(self, channel: Expr, row: Expr, line: Expr, column: Expr) -> Expr:
        """Return the output's index of a column, in line `line` of the band that begins at row `row`."""
        return (channel * self.layer.out_height + row + line) * self.layer.out_width + column

    def emit(self) -> None:
        """Emit the whole nest."""
        kernel, band = self.kernel, self.padded.band
        bands, channels = -(-self.layer.out_height // band), self.layer.out_channels
        by_channels = self.layer.is_depthwise
        outer, inner = (channels, bands) if by_channels else (bands, channels // self.together)
        with kernel.team(self.threads) as thread:
            lines = self.blank_lines()
            with kernel.span(*share(thread, self.threads, outer)) as index:
                if not by_channels:
                    self.copy(lines, 0, self._first(index))
                with kernel.loop(inner) as inner_index:
                    channel, row = (index, self._first(inner_index)) if by_channels else (inner_index * self.together, self._first(index))
                    if by_channels:
                        self.copy(lines, channel, row)
                    self.compute(lines, channel, row)

    def blank_lines(self) -> Buffer:
        """Allocate the padded buffer and fill it with zeros."""
        kernel, size = self.kernel, self.depth * self.padded.size
        lines = kernel.scratch(size)
        with kernel.loop(size // self.lanes) as place:
            kernel.store(lines, kernel.splat(kernel.number(0.0), self.lanes), place * self.lanes, self.lanes)
        return lines

    def _first(self, band: Expr) -> Expr:
        """Return a band's first row; the last band overlaps with the one before if bands do not divide the rows."""
        size, rows = self.padded.band, self.layer.out_height
        return band * size if rows % size == 0 else self.kernel.T.min(band * size, rows - size)

    def copy(self, lines: Buffer, channel: Expr, row: Expr) -> None:
        """Copy a band's input rows into the buffer, with zeros for rows outside the input."""
        kernel, layer, padded = self.kernel, self.layer, self.padded
        top = row * layer.stride[0] - layer.padding[0]
        with kernel.loop(self.depth) as plane, kernel.loop(padded.rows) as line:
            source, target = (channel + plane) * layer.height + top + line, plane * padded.rows + line
            if not layer.padding[0] and not layer.padding[2]:
                self._copy_row(lines, source, target)
            else:
                with kernel.T.If(kernel.T.And(top + line >= 0, top + line < layer.height)):
                    with kernel.T.Then():
                        self._copy_row(lines, source, target)
                    with kernel.T.Else(), kernel.loop(padded.phases * padded.pitch // self.lanes) as vector:
                        zero = kernel.splat(kernel.number(0.0), self.lanes)
                        kernel.store(lines, zero, padded.place(target, 0) + vector * self.lanes, self.lanes)

    def _copy_row(self, lines: Buffer, source: Expr, target: Expr) -> None:
        """Copy a row of a plane, sorted by phase: with vectors for one or two phases, else element by element."""
        kernel, layer, padded, lanes = self.kernel, self.layer, self.padded, self.lanes
        left, phases, start = layer.padding[1], padded.phases, source * layer.width
        step = phases * lanes
        whole = layer.width // step if phases <= 2 else 0
        data = self.buffers["data"]
        places = [number * step for number in range(whole)]
        if whole and layer.width % step:
            places.append(layer.width - step)  # overlaps
        for first in places:
            column = left + first
            if phases == 1:
                kernel.store(lines, kernel.load(data, start + first, lanes), padded.place(target, column), lanes)
                continue
            halves = [kernel.T.bind(kernel.load(data, start + first + part * lanes, lanes)) for part in (0, 1)]
            for phase in (0, 1):
                columns = kernel.T.Shuffle(halves, list(range(phase, 2 * lanes, 2))) if lanes > 1 else halves[phase]
                kernel.store(lines, columns, padded.place(target, column + phase), lanes)
        if not whole:
            for x in range(layer.width):
                kernel.store(lines, kernel.load(data, start + x, 1), padded.place(target, left + x), 1)

    def compute(self, lines: Buffer, channel: Expr, row: Expr) -> None:
        """Emit the outputs of a band."""
        kernel, lanes, width, band = self.kernel, self.lanes, self.layer.out_width, self.padded.band
        rows, columns = min(self.knobs["rows"], band), self.knobs["vectors"]
        places = [min(first, width - lanes) for first in range(0, width, lanes)]
        groups: list[list[int]] = [places[first : first + columns] for first in range(0, len(places), columns)]
        with kernel.loop(-(-band // rows)) as tile:
            first = tile * rows if band % rows == 0 else kernel.T.min(tile * rows, band - rows)
            for vectors, alike in itertools.groupby(
                enumerate(groups), lambda group: tuple(place - group[0] * columns * lanes for place in group[1])
            ):
                numbers = [number for number, _ in alike]
                with kernel.pieces(numbers[0] * columns * lanes, len(numbers), columns * lanes) as column:
                    self._tile(lines, channel, row, first, rows, column, vectors)

    def _tile(self, lines: Buffer, channel: Expr, row: Expr, first: Expr, rows: int, column: Expr, places: tuple[int, ...]) -> None:
        """Emit a tile: `rows` rows from row `first` of the band on × vectors at `places` from `column` on × `together` channels."""
        kernel, lanes = self.kernel, self.lanes
        spots = []
        for member, y, place in itertools.product(range(self.together), range(rows), places):
            spots.append(plane_spot(channel + member, self.place(channel + member, row, first + y, column + place), lanes))
        sums = kernel.accumulators(len(spots) * lanes)
        self.epilogue.fill(sums, spots)
        if self.depth == 1:
            self._plane(sums, lines, channel, 0, first, rows, column, places)
        else:
            with kernel.loop(self.depth) as plane:
                self._plane(sums, lines, channel, plane, first, rows, column, places)
        self.epilogue.drain(sums, spots, self.destination)

    def _plane(
        self, sums: Buffer, lines: Buffer, channel: Expr, plane: Expr, first: Expr, rows: int, column: Expr, places: tuple[int, ...]
    ) -> None:
        """Add the products of one input plane: each vector of the buffer is loaded once and multiplied for all outputs that read it."""
        kernel, layer, padded, lanes = self.kernel, self.layer, self.padded, self.lanes
        weight_of = self._weights(channel, plane)
        corner = padded.place(plane * padded.rows + first * layer.stride[0], 0) + column
        for y, tap_x in itertools.product(range((rows - 1) * layer.stride[0] + layer.reach[0]), range(layer.kernel[1])):
            readers = [
                (out, tap)
                for out in range(rows)
                if (y - out * layer.stride[0]) % layer.dilation[0] == 0
                and 0 <= (tap := (y - out * layer.stride[0]) // layer.dilation[0]) < layer.kernel[0]
            ]
            if not readers:
                continue
            for number, place in enumerate(places):
                value = kernel.T.bind(kernel.load(lines, corner + padded.place(y, tap_x * layer.dilation[1]) + place, lanes))
                for (out, tap), member in itertools.product(readers, range(self.together)):
                    at = ((member * rows + out) * len(places) + number) * lanes
                    factor = kernel.splat(weight_of((tap * layer.kernel[1] + tap_x) * self.together + member), lanes)
                    kernel.store(sums, kernel.load(sums, at, lanes) + factor * value, at, lanes)

    def _weights(self, channel: Expr, plane: Expr) -> Callable[[int], Expr]:
        """Load a plane's weights; return a function that maps a weight's index (as packed by `packed_planes`) to the weight."""
        kernel, lanes, weight = self.kernel, self.kernel.lanes, self.buffers["weight"]
        count = plane_weights(math.prod(self.layer.kernel), self.together, lanes)
        start = (channel // self.together * self.depth + plane) * count
        loaded = [kernel.T.bind(kernel.load(weight, start + first)) for first in range(0, count, lanes)]
        return lambda number: kernel.T.Shuffle([loaded[number // lanes]], [number % lanes])


def packed_planes(weight: Array, together: int, lanes: int) -> Array:
    """Pack HWIO weights as [group of `together` outputs][input channel][tap][output], each input channel zero-padded to whole vectors.

    Returns a flat array.
    """
    taps, depth = math.prod(weight.shape[:2]), weight.shape[2]
    packed = weight.reshape(taps, depth, -1, together).transpose(2, 1, 0, 3).reshape(-1, taps * together)
    return np.pad(packed, ((0, 0), (0, plane_weights(taps, together, lanes) - taps * together))).ravel()


def plane_weights(taps: int, together: int, lanes: int) -> int:
    """Return the number of weights per input plane and group of `together` outputs, padded to whole vectors."""
    return round_up(taps * together, lanes)
