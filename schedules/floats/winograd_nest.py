"""The loop nest of a Winograd convolution: blocks of tiles, whose inputs are transformed, multiplied point by point, and transformed back.

A tile is a square of outputs, or 4×2 or 2×4 of them. At each point, the transformed inputs of a block's tiles form a matrix (tiles × input
channels); its product with the weights at that point is (tiles × output channels). Both are in scratch buffers, which each block reuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from math import gcd, prod
from typing import TypeVar

from tvmmobile.graph.layers import Conv2d
from tvmmobile.schedules.emit.activations import Activation, Piece, input_of, output_of
from tvmmobile.schedules.emit.epilogue import Ends, Epilogue, Spot, spot_at
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, share
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel, packed_elements, panels
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.floats.winograd_transform import SIZES, TAPS, filterings, sides
from tvmmobile.schedules.space import Knobs, round_up

_Kind = TypeVar("_Kind")
#: Most terms of a sum in tiles of the largest size, whose transforms enlarge rounding errors most: a sum of 512 terms would double them.
CHAIN = 64
#: Value of the knob `axis` with which threads first share the inputs to transform, and then parts; see `WinogradNest.emit`.
IN_TURN = 2


@dataclass(frozen=True)
class TileGrid:
    """A layer's output as a grid of tiles, in blocks of equal size except for the last.

    Attributes:
        size: the knob, see `winograd_transform.sides`.
        most: most tiles per block; 0 for all of them.
    """

    layer: Conv2d
    size: int
    most: int

    @cached_property
    def sides(self) -> tuple[int, int]:
        """Height and width of a tile in output pixels."""
        return sides(self.size)

    @cached_property
    def points(self) -> int:
        """Number of values of a transformed tile, and of matrix products."""
        return prod(side + TAPS - 1 for side in self.sides)

    @cached_property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.layer.out_height // self.sides[0])

    @cached_property
    def columns(self) -> int:
        """Number of columns of tiles."""
        return -(-self.layer.out_width // self.sides[1])

    @cached_property
    def tiles(self) -> int:
        """Number of tiles of the output."""
        return self.rows * self.columns

    @cached_property
    def blocks(self) -> int:
        """Number of blocks of tiles."""
        return -(-self.tiles // (self.most or self.tiles))

    @cached_property
    def block(self) -> int:
        """Number of tiles per block; the last block may have fewer."""
        return -(-self.tiles // self.blocks)


@dataclass(frozen=True)
class _Products(Ends):
    """Accumulators that are initialised with zeros and stored as they are."""

    def begin(self, spot: Spot) -> Expr:
        """Return zeros."""
        return self.kernel.splat(self.kernel.number(0.0), spot.lanes)


class _ChainedTile(MatmulTile):
    """A tile whose sum over each part of K begins with zeros and is added to those in C, rather than continuing them."""

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile, see `MatmulTile.emit`."""
        kernel, c = self.kernel, self.c.buffer
        sums = self.new_sums(rows, panel.width)
        self.accumulate(sums, row, weights, part, blank=True)
        for number, spot in enumerate(self.spots(target, rows, panel, index)):
            total = kernel.load(sums.registers, number * spot.lanes)
            kernel.store(c, total if part.first else kernel.load(c, spot.target) + total, spot.target)


class _PointNest(MatmulNest):
    """The matrix product of one point, whose weights begin at `origin`."""

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], origin: Expr) -> None:
        super().__init__(tile, knobs, pixels, widths, 1)
        self.origin = origin

    def _weights(self, panel: Panel, columns: Span, index: Expr, part: Extent) -> Expr:
        return self.origin + super()._weights(panel, columns, index, part)


@dataclass(frozen=True)
class _Tile:
    """The position of a tile: its index in the block, and its row and column in the grid."""

    number: Expr
    row: Expr
    column: Expr


class WinogradNest:
    """Emits the loop nest of a Winograd convolution for one combination of `Winograd`'s knobs."""

    def __init__(self, epilogue: Epilogue, layer: Conv2d, knobs: Knobs, buffers: Mapping[str, Buffer]) -> None:
        self.kernel = kernel = epilogue.kernel
        self.T, self.layer, self.epilogue, self.knobs = kernel.T, layer, epilogue, knobs
        #: Transforms of a tile's columns and of its rows.
        self.down, self.across = filterings(knobs["size"])
        self.grid = TileGrid(layer, knobs["size"], knobs["tiles"])
        whole, pieces = input_of(layer, buffers)
        self.pieces = pieces or (Piece(whole, 0, layer.in_channels),)
        self.c = output_of(layer, buffers["output"])
        self.weight = buffers["weight"]
        #: Output channels per part, their panels, and a part's packed weights per point.
        self.channels = layer.out_channels // knobs["parts"]
        self.panels = panels(self.channels, knobs["columns"], kernel.lanes)
        self.elements = packed_elements(self.channels, knobs["columns"], layer.in_channels, kernel.lanes)
        #: Channels that are transformed together: at most a cache line.
        line = LINE_BYTES // kernel.bytes
        self.in_chunks = [gcd(piece.activation.block, piece.count, line) for piece in self.pieces]
        self.out_chunk = gcd(self.c.block, self.channels, line)
        #: Elements from one point's matrix to the next. With a power of two, a tile's values at all points would map to one cache set.
        self.in_pitch = round_up(self.grid.block * layer.in_channels, line) + line
        self.out_pitch = round_up(self.grid.block * self.channels, line) + line

    def emit(self, threads: int) -> None:
        """Emit the whole nest. Threads share blocks of tiles, or parts of the output channels, or first inputs and then parts."""
        if self.knobs["axis"] == IN_TURN:
            self._emit_in_turn(threads)
            return
        size, by_blocks = self.grid.block, self.knobs["axis"] == 0
        with self.kernel.team(threads) as thread:
            self._allocate_inputs()
            self._allocate_own()
            whole, rest = divmod(self.grid.tiles, size)
            parts = share(None if by_blocks else thread, threads, self.knobs["parts"])
            begin, end = share(thread if by_blocks else None, threads, whole)
            with self.kernel.span(begin, end) as block:
                self._block(block * size, size, parts)
            if rest:  # the first thread has no more whole blocks than any other
                with self.kernel.where(*([thread == 0] if by_blocks and thread is not None else [])):
                    self._block(whole * size, rest, parts)

    def _emit_in_turn(self, threads: int) -> None:
        """Emit two parallel loops per block: threads share the inputs to transform, then the parts, which read all of those inputs."""
        self._allocate_inputs()
        for first in range(0, self.grid.tiles, self.grid.block):
            count = min(self.grid.block, self.grid.tiles - first)
            with self.kernel.team(threads) as thread:
                self._allocate_own()
                self._transform_inputs(first, count, thread, threads)
            with self.kernel.team(threads) as thread:
                self._allocate_own()
                self._multiply_parts(first, count, share(thread, threads, self.knobs["parts"]))

    def _allocate_inputs(self) -> None:
        """Allocate the matrices of a block's transformed inputs: for one thread or, outside parallel loops, for all."""
        self.inputs = self.kernel.scratch(self.grid.points * self.in_pitch)

    def _allocate_own(self) -> None:
        """Allocate the other buffers of a thread."""
        self.products = self.kernel.scratch(self.grid.points * self.out_pitch)
        self.between = self.kernel.scratch(self.grid.points * max(*self.in_chunks, self.out_chunk))

    def _block(self, first: Expr, count: int, parts: Span) -> None:
        """Emit the block of `count` tiles from tile `first` on, for the parts [first, end)."""
        self._transform_inputs(first, count)
        self._multiply_parts(first, count, parts)

    def _transform_inputs(self, first: Expr, count: int, thread: Expr = None, threads: int = 1) -> None:
        """Emit the input transforms of the `count` tiles from tile `first` on; `thread` does its share of each tile's channels."""
        with self._tiles(first, count) as tile:
            channel = 0
            for piece, chunk in zip(self.pieces, self.in_chunks, strict=True):
                with self.kernel.span(*share(thread, threads, piece.count // chunk)) as number:
                    slice_ = replace(piece, first=piece.first + number * chunk, count=chunk)
                    self._transform_input(tile, slice_, channel + number * chunk)
                channel += piece.count

    def _multiply_parts(self, first: Expr, count: int, parts: Span) -> None:
        """Emit the products of the `count` tiles from tile `first` on, and their output transforms, for the parts [first, end)."""
        with self.kernel.span(*parts) as part:
            with self.kernel.loop(self.grid.points) as point:
                self._multiply(point, part, count)
            with self._tiles(first, count) as tile, self.kernel.loop(self.channels // self.out_chunk) as piece:
                self._transform_output(tile, part * self.channels, piece * self.out_chunk)

    @contextmanager
    def _tiles(self, first: Expr, count: int) -> Iterator[_Tile]:
        """Emit a loop over `count` tiles from tile `first` on."""
        with self.kernel.loop(count) as number:
            place = first + number
            yield _Tile(number, place // self.grid.columns, place % self.grid.columns)

    def _multiply(self, point: Expr, part: Expr, count: int) -> None:
        """Emit the product at one point, for one part."""
        a = Activation(self.inputs, count, self.layer.in_channels, self.layer.in_channels, point * self.in_pitch)
        c = Activation(self.products, count, self.channels, self.channels, point * self.out_pitch)
        kind = _ChainedTile if self.grid.size == SIZES[-1] else MatmulTile
        tile = kind(self.kernel, a, self.weight, c, self.kernel.lanes, _Products(self.kernel))
        knobs = {"rows": self.knobs["rows"], "k_block": self.knobs["k_block"], "order": 1}
        origin = (part * self.grid.points + point) * self.elements
        _PointNest(tile, knobs, Pixels(count), self.panels, origin).emit()

    def _transform_input(self, tile: _Tile, piece: Piece, channel: Expr) -> None:
        """Emit the input transform of a tile for the channels of `piece`: rows into a small buffer, then columns into the matrices."""
        kernel, lanes, chunk, a = self.kernel, self.kernel.lanes, piece.count, piece.activation
        (height, width), lines, count = self.grid.sides, self.down.values, self.across.values
        top = tile.row * height - self.layer.padding[0]
        begin, end = self._lines_inside(top)
        for edge in ((0, begin), (end, lines)) if any(self.layer.padding[::2]) or self._beyond else ():
            with kernel.span(*edge) as line:
                for place in range(0, count * chunk, lanes):
                    kernel.store(self.between, kernel.splat(kernel.number(0.0)), line * (count * chunk) + place)
        for (low, high), here in self._kinds(tile, self._columns_inside):
            with kernel.where(*here), kernel.span(begin, end) as line:
                left = tile.column * width - self.layer.padding[1]
                source = a.at((top + line) * self.layer.width + left, piece.first)
                inside = range(low, high)
                for vector in range(0, chunk, lanes):
                    data = [kernel.load(a.buffer, source + (x * a.block + vector)) if x in inside else None for x in range(count)]
                    for x, value in enumerate(self.across.input(kernel, data)):
                        kernel.store(self.between, value, (line * count + x) * chunk + vector)
        with kernel.loop(count) as column:
            target = column * self.in_pitch + tile.number * self.layer.in_channels + channel
            for vector in range(0, chunk, lanes):
                data = [kernel.load(self.between, (y * count + column) * chunk + vector) for y in range(lines)]
                for y, value in enumerate(self.down.input(kernel, data)):
                    kernel.store(self.inputs, value, target + (y * (count * self.in_pitch) + vector))

    def _transform_output(self, tile: _Tile, start: Expr, channel: Expr) -> None:
        """Emit the output transform of a tile for a chunk of channels: columns into a small buffer, then rows into the output."""
        kernel, lanes, chunk = self.kernel, self.kernel.lanes, self.out_chunk
        (height, width), count = self.grid.sides, self.across.values
        with kernel.loop(count) as column:
            source = column * self.out_pitch + tile.number * self.channels + channel
            for vector in range(0, chunk, lanes):
                data = [kernel.load(self.products, source + (y * (count * self.out_pitch) + vector)) for y in range(self.down.values)]
                for y, value in enumerate(self.down.output(kernel, data)):
                    kernel.store(self.between, value, (y * count + column) * chunk + vector)
        top = tile.row * height
        lines = height if self.layer.out_height % height == 0 else self.T.min(height, self.layer.out_height - top)
        for written, here in self._kinds(tile, self._columns_written):
            with kernel.where(*here), kernel.span(0, lines) as line:
                pixel = (top + line) * self.layer.out_width + tile.column * width
                for vector in range(0, chunk, lanes):
                    data = [kernel.load(self.between, (line * count + x) * chunk + vector) for x in range(count)]
                    for x, value in enumerate(self.across.output(kernel, data)[:written]):
                        target = self.c.at(pixel, start + channel) + (x * self.c.block + vector)
                        spot = spot_at(target, pixel + x, start + channel + vector, lanes, lanes)
                        total = self.T.bind(value + self.epilogue.begin(spot))
                        kernel.store(self.c.buffer, self.epilogue.finish(total, spot), target)

    def _kinds(self, tile: _Tile, kind_of: Callable[[int], _Kind]) -> Iterator[tuple[_Kind, list[Expr]]]:
        """Yield each run of neighbouring grid columns of one kind, as (kind, conditions under which a tile is in the run)."""
        columns = range(self.grid.columns)
        for kind, same in groupby(columns, kind_of):
            run = list(same)
            after = [tile.column >= run[0]] if run[0] else []
            yield kind, after + ([tile.column <= run[-1]] if run[-1] < columns[-1] else [])

    def _lines_inside(self, top: Expr) -> Span:
        """Return the rows [begin, end) of a tile's input that lie inside the image."""
        count = self.down.values
        if not any(self.layer.padding[::2]) and not self._beyond:
            return 0, count
        begin = self.T.min(count, self.T.max(0, -top))
        return begin, self.T.max(begin, self.T.min(count, self.layer.height - top))

    @property
    def _beyond(self) -> bool:
        """True if the last tiles read rows below the image."""
        return self.grid.rows * self.grid.sides[0] + TAPS - 1 - self.layer.padding[0] > self.layer.height

    def _columns_inside(self, column: int) -> tuple[int, int]:
        """Return the columns [begin, end) of a tile's input that lie inside the image."""
        left = column * self.grid.sides[1] - self.layer.padding[1]
        return max(0, -left), min(self.across.values, self.layer.width - left)

    def _columns_written(self, column: int) -> int:
        """Return the number of a tile's columns that lie inside the output."""
        width = self.grid.sides[1]
        return min(width, self.layer.out_width - column * width)
