"""The first convolution in int8: quantises the rows of an image, and packs each pixel's window (im2col) for a matrix product.

The buffers are small: a few padded rows of int8 with interleaved channels, and one row of windows.
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
#: Most vectors per window row: AlexNet's first layer, 11 × 11 over three channels, takes three.
MOST_VECTORS = 3
#: Height of the largest window that in-order cores multiply in floats.
MOST_ROWS_IN_FLOATS = 5


@dataclass(frozen=True)
class _Shape:
    """Sizes in bytes of the buffers of an image convolution.

    Attributes:
        element: bytes of K that are multiplied together.
    """

    layer: Conv2d
    element: int

    @property
    def taps(self) -> int:
        """Bytes per window row."""
        return self.layer.kernel[1] * self.layer.in_channels

    @property
    def depth(self) -> int:
        """Bytes per window."""
        return self.layer.kernel[0] * self.taps

    @property
    def elements(self) -> int:
        """Number of elements of K per window; the last may be partial."""
        return -(-self.depth // self.element)

    @property
    def pitch(self) -> int:
        """Bytes from one window to the next, a whole number of vectors."""
        return round_up(self.depth, VECTOR_BYTES)

    @property
    def line(self) -> int:
        """Bytes per padded image row in whole vectors, plus one vector that stores may overrun."""
        columns = self.layer.width + self.layer.padding[1] + self.layer.padding[3]
        return round_up(columns * self.layer.in_channels, VECTOR_BYTES) + VECTOR_BYTES


def is_image(layer: Conv2d) -> bool:
    """Return whether a layer has few input channels, window rows that fit in a few vectors, and input rows of at least a vector."""
    row = layer.kernel[1] * layer.in_channels
    return layer.in_channels <= MAX_INPUT_CHANNELS and row <= MOST_VECTORS * VECTOR_BYTES and layer.width >= VECTOR_BYTES


class IntegerImage(IntegerMatrix):
    """The base class of templates for the int8 convolution of an image: at most 4 channels of float32, int8 or uint8, NCHW or NHWC, and at
    least 16 columns.

    Knobs:
        lines: output rows whose input rows are quantised together.
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
        """Return the size, tile, and the tile's waste at the edges."""
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
        """Return the size in bytes of a window, rounded up to whole elements."""
        assert isinstance(layer, Conv2d)
        return round_up(_Shape(layer, self.element).depth, self.element)

    @abstractmethod
    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return the register tile of the product of windows and weights."""

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
    """Yield, for each run, a thread's share of its tiles; threads share the tiles of all runs together."""
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
    """The loop nest over groups of output rows."""

    def __init__(self, template: IntegerImage, ends: IntegerEnds, shape: _Shape, knobs: Knobs) -> None:
        self.template, self.ends, self.kernel, self.shape, self.layer, self.knobs = template, ends, ends.kernel, shape, shape.layer, knobs

    def emit(self, run: Run, row: Expr) -> None:
        """Emit `run.size` output rows from `row` on."""
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
        """Store vectors of the input's zero point."""
        T = self.kernel.T  # noqa: N806
        with self.kernel.loop(vectors) as vector:
            T.buffer_store(lines, self.ends.zero_in(VECTOR_BYTES), [T.Ramp(start + vector * VECTOR_BYTES, 1, VECTOR_BYTES)])

    def _row(self, lines: Buffer, line: Expr, row: Expr) -> None:
        """Emit a quantised image row with its padding; the last vector overlaps with the one before it."""
        layer, channels = self.layer, self.layer.in_channels
        start = line * self.shape.line
        self._fill(lines, start, -(-layer.padding[1] * channels // VECTOR_BYTES))
        planar = layer.in_layout == "NCHW"
        emit_vector, extent = (self._planar_pixels, layer.width) if planar else (self._interleaved, layer.width * channels)
        whole, rest = divmod(extent, VECTOR_BYTES)
        with self.kernel.loop(whole) as vector:
            emit_vector(lines, start, row, vector * VECTOR_BYTES)
        if rest:
            emit_vector(lines, start, row, extent - VECTOR_BYTES)
        end = start + (layer.padding[1] + layer.width) * channels
        self._fill(lines, end, -(-layer.padding[3] * channels // VECTOR_BYTES))

    def _planar_pixels(self, lines: Buffer, start: Expr, row: Expr, column: Expr) -> None:
        """Emit sixteen pixels of an NCHW image, with channels interleaved."""
        layer, T = self.layer, self.kernel.T  # noqa: N806
        channels, planes = layer.in_channels, []
        for plane in range(channels):
            place = (plane * layer.height + row) * layer.width + column
            planes.append(T.bind(self._bytes(place)))
        order = [plane * VECTOR_BYTES + pixel for pixel in range(VECTOR_BYTES) for plane in range(channels)]
        together = T.Shuffle(planes, order) if channels > 1 else planes[0]
        T.buffer_store(lines, together, [T.Ramp(start + (layer.padding[1] + column) * channels, 1, VECTOR_BYTES * channels)])

    def _interleaved(self, lines: Buffer, start: Expr, row: Expr, place: Expr) -> None:
        """Emit sixteen consecutive values of a row of an NHWC image."""
        layer, T = self.layer, self.kernel.T  # noqa: N806
        values = self._bytes(row * (layer.width * layer.in_channels) + place)
        T.buffer_store(lines, values, [T.Ramp(start + layer.padding[1] * layer.in_channels + place, 1, VECTOR_BYTES)])

    def _bytes(self, place: Expr) -> Expr:
        """Return sixteen consecutive values of the image as int8."""
        T, data = self.kernel.T, self.ends.buffers["data"]  # noqa: N806
        if self.layer.reads == FLOAT32.name:
            return self.ends.quantise([data[T.Ramp(place + part, 1, LANES)] for part in range(0, VECTOR_BYTES, LANES)])
        values = self.kernel.bytes_at(data, place)
        if not self.layer.reads:
            return values
        return self.kernel.as_type("int8x16", T.bitwise_xor(values, T.Broadcast(T.uint8(128), VECTOR_BYTES)))

    def _windows(self, lines: Buffer, windows: Buffer, line: int) -> None:
        """Emit the windows of an output row. Each window row is stored as whole vectors; the excess is overwritten by the next row, or
        multiplied by zero weights after the last one.
        """
        T, shape = self.kernel.T, self.shape  # noqa: N806
        with self.kernel.loop(self.layer.out_width) as pixel:
            for y in range(self.layer.kernel[0]):
                source = (line + y) * shape.line + pixel * (self.layer.stride[1] * self.layer.in_channels)
                for part in range(0, shape.taps, VECTOR_BYTES):
                    values = T.bind(self.kernel.bytes_at(lines, source + part))
                    T.buffer_store(windows, values, [T.Ramp(pixel * shape.pitch + y * shape.taps + part, 1, VECTOR_BYTES)])

    def _multiply(self, windows: Buffer, row: Expr) -> None:
        """Emit the matrix product of an output row."""
        layer = self.layer
        output = Activation(self.ends.buffers["output"], layer.out_height * layer.out_width, layer.out_channels, layer.out_channels)
        tile = self.template.tile(self.shape, windows, self.ends, output, self.knobs["columns"])
        pixels = Pixels(layer.out_width, origin=row * layer.out_width)
        MatmulNest(tile, {**self.knobs, "order": 1}, pixels, panels(layer.out_channels, self.knobs["columns"], LANES), 1).emit()


class DotImage(IntegerImage):
    """Accepts the int8 convolution of an image on cores with SDOT."""

    name = "dot_image"
    dot, element, kernel = True, WORD, DotKernel
    tiles = ((3, 16), (4, 16), (8, 8), (6, 8), (5, 16))

    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return the register tile, with K in words."""
        pitch = shape.pitch // WORD
        words = Activation(windows, shape.layer.out_width, pitch, pitch)
        return DotTile(ends.kernel, words, ends.buffers["weight"], output, 2 * LANES, ends, words=shape.elements)


class LongImage(LongMatrix, IntegerImage):
    """Accepts the int8 convolution of an image on cores without SDOT."""

    name = "long_image"
    tiles = ((4, 16), (5, 12), (6, 8), (3, 16))

    def tile(self, shape: _Shape, windows: Buffer, ends: IntegerEnds, output: Activation, columns: int) -> MatmulTile:
        """Return the register tile, with K in steps of 16 bytes."""
        sixteens = Activation(windows, shape.layer.out_width, shape.elements, shape.elements)
        return long_tile(ends, sixteens, output, shape.pitch, columns)

    def faster_in_floats(self, task: Task) -> bool:
        """Return whether a core is faster if it computes a float32 image's convolution in float32 and quantises the output.

        An in-order core spends as much time quantising the image as int8 products save: on a Cortex-A53, 3×3 layers with 8 to 32 channels
        take 7 to 28 % less time in float32, a 7×7 layer with 64 channels 7 % more.
        """
        layer = task.region[0]
        small = isinstance(layer, Conv2d) and layer.reads == FLOAT32.name and layer.kernel[0] <= MOST_ROWS_IN_FLOATS
        return small and task.machine.in_order and self.space(task) is not None
