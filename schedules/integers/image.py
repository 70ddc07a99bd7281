"""The first convolution in integers: the rows of an image become bytes, and each pixel's window is laid out as K of a matrix product.

A kernel rereads little: a few rows of bytes, with channels interleaved and padding, and one row of windows.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layers import Conv2d, Layer
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, share
from tvmmobile.schedules.emit.matmul import MatmulTile, panels
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body
from tvmmobile.schedules.integers.kernel import LANES, VECTOR_BYTES, IntegerKernel
from tvmmobile.schedules.integers.long import LongMatrix, long_tile
from tvmmobile.schedules.integers.product import WORD, DotKernel, DotTile, IntegerMatrix
from tvmmobile.schedules.integers.template import TileKnobs, is_integer_layer
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import layer_of

MAX_INPUT_CHANNELS = 4
#: Vectors of a row of a window: 11 × 11 over three channels, AlexNet's first, takes three.
MOST_VECTORS = 3
#: Rows of the largest window that in-order cores multiply in floats.
MOST_ROWS_IN_FLOATS = 5


@dataclass(frozen=True)
class _Shape:
    """Sizes in bytes of the buffers of an image convolution.

    Attributes:
        layer: the layer.
        element: bytes of K that are multiplied together.
    """

    layer: Conv2d
    element: int

    @property
    def taps(self) -> int:
        """Bytes of one row of a window."""
        return self.layer.kernel[1] * self.layer.in_channels

    @property
    def depth(self) -> int:
        """Bytes of a window."""
        return self.layer.kernel[0] * self.taps

    @property
    def elements(self) -> int:
        """Elements of K that its window takes, the last one perhaps in part."""
        return -(-self.depth // self.element)

    @property
    def pitch(self) -> int:
        """Bytes from one window to the next, a whole number of vectors."""
        return round_up(self.depth, VECTOR_BYTES)

    @property
    def line(self) -> int:
        """Bytes of a padded image row in whole vectors, plus one vector that stores may overrun."""
        columns = self.layer.width + self.layer.padding[1] + self.layer.padding[3]
        return round_up(columns * self.layer.in_channels, VECTOR_BYTES) + VECTOR_BYTES


def is_image(layer: Conv2d) -> bool:
    """Return whether a layer reads few channels of wide rows: a row of its window fits in a few vectors, and a vector in an input row."""
    row = layer.kernel[1] * layer.in_channels
    return layer.in_channels <= MAX_INPUT_CHANNELS and row <= MOST_VECTORS * VECTOR_BYTES and layer.width >= VECTOR_BYTES


class IntegerImage(IntegerMatrix):
    """The base class of templates for an image's integer convolution: at most 4 channels of float32, or of bytes with sign or without, in
    front or last; 16 columns or more.

    Knobs:
        lines: rows of the output for which rows of the image are read together.
        rows, columns: register tile in output pixels of a row and output channels.
    """

    handles = IntegerMatrix.handles | {"in_layout=NCHW"}
    enough_trials = 12
    tiles: tuple[tuple[int, int], ...]

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and is_integer_layer(task, reads=("float32", "uint8", "")) and layer.groups == 1):
            return None
        if not (is_image(layer) and self.suits(task)):
            return None
        options = {
            "lines": up_to((1, 2, 4), layer.out_height),
            **(tiles := TileKnobs(self.tiles, layer.out_width, round_up(layer.out_channels, LANES))).options,
        }
        usual = {"lines": 4, "rows": self.tiles[0][0], "columns": self.tiles[0][1]}
        return Space(self.name, self.version, options, tiles.fits, usual)

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, tile, and what the tile wastes at the edges."""
        layer = layer_of(task, Conv2d)
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.out_channels),
            knobs["rows"] * knobs["columns"],
            waste(layer.out_height, knobs["lines"]),
            waste(layer.out_width, knobs["rows"]),
            waste(layer.out_channels, knobs["columns"]),
        ]

    def depth_of(self, layer: Layer) -> int:
        """Return the bytes of a window, up to a whole element."""
        assert isinstance(layer, Conv2d)
        return round_up(_Shape(layer, self.element).depth, self.element)

    @abstractmethod
    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return a tile of the product of windows and weights."""

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        shape, kernel = _Shape(layer, self.element), self.kernel(task)
        sizes = self.depth_of(layer), layer.out_channels, knobs["columns"]
        with integer_body(kernel, layer, self.packed_bytes(*sizes), **self.tables(*sizes)) as ends:
            nest, runs = _ImageRowsNest(self, ends, shape, knobs), partition(layer, 0, knobs["lines"])
            with kernel.team(task.threads) as thread:
                for run, tiles in _shares(kernel, runs, thread, task.threads):
                    with kernel.span(*tiles) as tile:
                        nest.emit(run, run.start + tile * run.size)
        return kernel.finish()


def _shares(kernel: IntegerKernel, runs: Sequence[Run], thread: Expr, threads: int) -> Iterator[tuple[Run, Span]]:
    """Yield a thread's share of the tiles of all runs together, by run."""
    first, last = share(thread, threads, sum(run.count for run in runs))
    before = 0
    for run in runs:
        if thread is None:
            yield run, (0, run.count)
        else:
            begin = kernel.T.max(first - before, 0)
            yield run, (begin, kernel.T.max(kernel.T.min(last - before, run.count), begin))
        before += run.count


class _ImageRowsNest:
    """A few rows of the output at a time."""

    def __init__(self, template: IntegerImage, ends: IntegerEnds, shape: _Shape, knobs: Knobs) -> None:
        self.template, self.ends, self.kernel, self.shape, self.layer, self.knobs = template, ends, ends.kernel, shape, shape.layer, knobs

    def emit(self, run: Run, row: Expr) -> None:
        """Emit `run.size` rows of the output, from a row on."""
        layer, stride = self.layer, self.layer.stride[0]
        height = (run.size - 1) * stride + layer.kernel[0]
        lines, windows = (
            self.kernel.scratch(height * self.shape.line),
            self.kernel.scratch(layer.out_width * self.shape.pitch + VECTOR_BYTES),
        )
        inside = [y for y in range(height) if any(low <= y - stride * out < high for out, (low, high) in enumerate(run.taps))]
        first = inside[0] if inside else 0
        for y in sorted(set(range(height)) - set(inside)):
            self._fill(lines, y * self.shape.line, self.shape.line // VECTOR_BYTES)
        if inside:
            with self.kernel.span(first, inside[-1] + 1) as y:
                self._row(lines, y, row * stride - layer.padding[0] + y)
        for line in range(run.size):
            self._windows(lines, windows, line * stride)
            self._multiply(windows, row + line)

    def _fill(self, lines: Buffer, start: Expr, vectors: int) -> None:
        """Store vectors of zero points."""
        T = self.kernel.T  # noqa: N806
        with self.kernel.loop(vectors) as vector:
            T.buffer_store(lines, self.ends.zero_in(VECTOR_BYTES), [T.Ramp(start + vector * VECTOR_BYTES, 1, VECTOR_BYTES)])

    def _row(self, lines: Buffer, line: Expr, row: Expr) -> None:
        """Emit a row of the image between its padding; the last vector begins where it still lies in the row."""
        layer, channels = self.layer, self.layer.in_channels
        start = line * self.shape.line
        self._fill(lines, start, -(-layer.padding[1] * channels // VECTOR_BYTES))
        many, extent = (self._sixteen, layer.width) if layer.in_layout == "NCHW" else (self._together, layer.width * channels)
        whole, rest = divmod(extent, VECTOR_BYTES)
        with self.kernel.loop(whole) as vector:
            many(lines, start, row, vector * VECTOR_BYTES)
        if rest:
            many(lines, start, row, extent - VECTOR_BYTES)
        end = start + (layer.padding[1] + layer.width) * channels
        self._fill(lines, end, -(-layer.padding[3] * channels // VECTOR_BYTES))

    def _sixteen(self, lines: Buffer, start: Expr, row: Expr, column: Expr) -> None:
        """Emit sixteen pixels, channels together."""
        layer, T = self.layer, self.kernel.T  # noqa: N806
        channels, planes = layer.in_channels, []
        for plane in range(channels):
            place = (plane * layer.height + row) * layer.width + column
            planes.append(T.bind(self._bytes(place)))
        order = [plane * VECTOR_BYTES + pixel for pixel in range(VECTOR_BYTES) for plane in range(channels)]
        together = T.Shuffle(planes, order) if channels > 1 else planes[0]
        T.buffer_store(lines, together, [T.Ramp(start + (layer.padding[1] + column) * channels, 1, VECTOR_BYTES * channels)])

    def _together(self, lines: Buffer, start: Expr, row: Expr, place: Expr) -> None:
        """Emit sixteen numbers of a row whose channels are together already."""
        layer, T = self.layer, self.kernel.T  # noqa: N806
        some = self._bytes(row * (layer.width * layer.in_channels) + place)
        T.buffer_store(lines, some, [T.Ramp(start + layer.padding[1] * layer.in_channels + place, 1, VECTOR_BYTES)])

    def _bytes(self, place: Expr) -> Expr:
        """Return sixteen numbers of the image as int8."""
        T, data = self.kernel.T, self.ends.buffers["data"]  # noqa: N806
        if self.layer.reads == FLOAT32.name:
            return self.ends.quantise([data[T.Ramp(place + part, 1, LANES)] for part in range(0, VECTOR_BYTES, LANES)])
        some = self.kernel.bytes_at(data, place)
        if not self.layer.reads:
            return some
        return self.kernel.as_type("int8x16", T.bitwise_xor(some, T.Broadcast(T.uint8(128), VECTOR_BYTES)))

    def _windows(self, lines: Buffer, windows: Buffer, line: int) -> None:
        """Emit the windows of a row of the output: each row of a window is stored in whole vectors, with what follows it, which the next
        one overwrites; beyond the last one weights are zero.
        """
        T, shape = self.kernel.T, self.shape  # noqa: N806
        with self.kernel.loop(self.layer.out_width) as pixel:
            for y in range(self.layer.kernel[0]):
                source = (line + y) * shape.line + pixel * (self.layer.stride[1] * self.layer.in_channels)
                for part in range(0, shape.taps, VECTOR_BYTES):
                    some = T.bind(self.kernel.bytes_at(lines, source + part))
                    T.buffer_store(windows, some, [T.Ramp(pixel * shape.pitch + y * shape.taps + part, 1, VECTOR_BYTES)])

    def _multiply(self, windows: Buffer, row: Expr) -> None:
        """Emit a row of the output."""
        layer = self.layer
        output = Activation(self.ends.buffers["output"], layer.out_height * layer.out_width, layer.out_channels, layer.out_channels)
        tile = self.template.tile(self.shape, windows, self.ends, output, self.knobs["columns"])
        pixels = Pixels(layer.out_width, origin=row * layer.out_width)
        MatmulNest(tile, {**self.knobs, "order": 1}, pixels, panels(layer.out_channels, self.knobs["columns"], LANES), 1).emit()


class DotImage(IntegerImage):
    """Takes an image's integer convolution on cores with SDOT."""

    name = "dot_image"
    dot, element, kernel = True, WORD, DotKernel
    tiles = ((3, 16), (4, 16), (8, 8), (6, 8), (5, 16))

    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return K in words, in a loop of all of it."""
        pitch = shape.pitch // WORD
        words = Activation(windows, shape.layer.out_width, pitch, pitch)
        return DotTile(ends.kernel, words, ends.buffers["weight"], output, 2 * LANES, ends, words=shape.elements)


class LongImage(LongMatrix, IntegerImage):
    """Takes an image's integer convolution on cores without SDOT."""

    name = "long_image"
    tiles = ((4, 16), (5, 12), (6, 8), (3, 16))

    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return K in sixteens."""
        sixteens = Activation(windows, shape.layer.out_width, shape.elements, shape.elements)
        return long_tile(ends, sixteens, output, shape.pitch, columns)

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether a core computes a float32 image's convolution faster in float32, and stores the nearest integers.

        A core that issues in order takes as long to make integers of the image as it gains by multiplying these: on a Cortex-A53, layers
        of 3×3 with 8 to 32 channels take 7 to 28 % less time in float32, one of 7×7 with 64 channels 7 % more.
        """
        layer = task.region[0]
        small = isinstance(layer, Conv2d) and layer.reads == FLOAT32.name and layer.kernel[0] <= MOST_ROWS_IN_FLOATS
        return small and task.machine.in_order and self.space(task) is not None
