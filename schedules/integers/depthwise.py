"""Depthwise convolutions in int8: tiles of pixels × eight channels, with `SDOT` over the rows of a window, or with `SMULL` and `SMLAL`.

Without `SDOT`, the sum of two products always fits in 16 bits. That of three does if the magnitudes of their weights add up to at most
`MOST_TOGETHER`; a 3×3 window then takes three widening additions to 32-bit sums instead of five. For each eight channels, a table says
whether all groups of three taps are proved to fit; the code is the same for all weights.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from tvmmobile.graph.integers import MOST_TOGETHER, TAPS_TOGETHER, tap_triple_sums
from tvmmobile.graph.layers import Array, Conv2d, LayerParameters, WindowLayer
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import input_of, output_of
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.tiles import Run, partition
from tvmmobile.schedules.emit.window_nest import Channels, OutputPart, Span, WindowNest, first_of, loops_over_rows, window_width
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body, pack_constants
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, LANES, IntegerKernel
from tvmmobile.schedules.integers.template import IntegerTemplate, TileKnobs, is_integer_layer
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import layer_of

#: Number of products whose sum always fits in 16 bits.
TWO = 2
#: Maps a row and a column of a tile's window to the eight bytes there.
Value = Callable[[int, int], Expr]
#: Window heights for which SDOT is used: with one more row for a second output, they fill words of four bytes well. And bytes per word.
_ROWS, WORD = (3, 5, 7), 4


class WindowKernel(IntegerKernel):
    """A kernel whose vectors have eight bytes.

    LLVM loads everything that a tile reads in front of constants that are reloaded. Weights of tall windows then take more registers than
    there are, so constants are copied; cores with `SMMLA`, for which this was not compared, reload them.
    """

    def __init__(self, task: Task) -> None:
        layer = task.region[0]
        assert isinstance(layer, Conv2d)
        super().__init__(task, reloads=words_of(layer) == 1 or "matrix" in task.machine.has)
        self.lanes = HALF_VECTOR_BYTES


def _inside(run: Run, stride: int, place: int) -> bool:
    """Return whether a row or column of a tile's window lies inside the image, which the taps of the run's outputs tell."""
    return any(low <= place - stride * out < high for out, (low, high) in enumerate(run.taps))


@dataclass(frozen=True)
class IntegerNest(WindowNest, ABC):
    """`WindowNest` with int8 tiles, which read the zero point where the window lies outside the image."""

    ends: IntegerEnds  # type: ignore[assignment]
    weight: Buffer

    def _tile(self, row_run: Run, row: Expr, column_run: Run, column: Expr, channels: Channels, index: Expr) -> None:
        layer, kernel = self.layer, self.ends.kernel
        channel = channels.first + index * HALF_VECTOR_BYTES
        top = (self.part.top + row) * layer.stride[0] - layer.padding[0]
        left = (self.part.left + column) * layer.stride[1] - layer.padding[1]
        corner = first_of(self.data, top * layer.width + left, channels, index)

        def value(y: int, x: int) -> Expr:
            if not (_inside(row_run, layer.stride[0], y) and _inside(column_run, layer.stride[1], x)):
                return self.ends.zero_in(HALF_VECTOR_BYTES)
            return kernel.bytes_at(self.data.buffer, corner + (y * layer.width + x) * self.data.block, HALF_VECTOR_BYTES)

        size = (row_run.size, column_run.size)
        target = first_of(self.output, row * self.part.width + column, channels, index)
        self._tile_of(size, value, channel, target)

    @abstractmethod
    def _tile_of(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        """Emit a tile of eight channels.

        Args:
            size: rows and columns of the tile.
            value: gives the bytes of the tile's window.
            channel, target: first channel, and index in the output of the tile's first element.
        """

    @contextmanager
    def _summed(self, size: tuple[int, int], channel: Expr, target: Expr) -> Iterator[Buffer]:
        """Emit the initial values of a tile's sums; yield the sums; emit their requantisation and stores."""
        acc = self.ends.kernel.sums(2 * size[0] * size[1])
        self.ends.fill(acc, size[0] * size[1], channel, HALF_VECTOR_BYTES)
        yield acc
        self._store(acc, size[1], itertools.product(range(size[0]), range(size[1])), channel, target)

    def _store(self, acc: Buffer, width: int, outputs: Iterable[tuple[int, int]], channel: Expr, target: Expr) -> None:
        """Emit the requantisation and the stores of complete sums, those of these rows and columns of a tile of `width` columns."""
        pixels = []
        for y, x in outputs:
            sums = self.ends.complete(acc, y * width + x, HALF_VECTOR_BYTES)
            pixels.append((sums, target + (y * self.part.width + x) * self.output.block))
        self.ends.store(pixels, channel, HALF_VECTOR_BYTES)


@dataclass(frozen=True)
class LongNest(IntegerNest):
    """`IntegerNest` without `SDOT`: two or three products are added in 16 bits, and their sum is added to 32-bit sums."""

    def _tile_of(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        T, fits = self.ends.kernel.T, self.ends.buffers["steps"]  # noqa: N806
        with T.If(fits[channel // HALF_VECTOR_BYTES] != 0):
            for branch, count in ((T.Then(), TAPS_TOGETHER), (T.Else(), TWO)):
                with branch, self._summed(size, channel, target) as acc:
                    self._add(acc, size, value, channel, count)

    def _add(self, acc: Buffer, size: tuple[int, int], value: Value, channel: Expr, count: int) -> None:
        """Emit all products; `count` of each channel are added in 16 bits."""
        kernel, layer = self.ends.kernel, self.layer
        taps = list(itertools.product(*map(range, layer.kernel)))
        for first in range(0, len(taps), count):
            group = taps[first : first + count]
            weights = [
                kernel.bytes_at(self.weight, (channel * len(taps)) + (first + place) * HALF_VECTOR_BYTES, HALF_VECTOR_BYTES)
                for place in range(len(group))
            ]
            for place, (y, x) in enumerate(itertools.product(*map(range, size))):
                products: Expr = None
                for (tap_y, tap_x), weight in zip(group, weights, strict=True):
                    product = kernel.long_product(value(y * layer.stride[0] + tap_y, x * layer.stride[1] + tap_x), weight)
                    products = product if products is None else products + product
                wide = kernel.T.Cast("int32x8", products)
                kernel.store(acc, kernel.load(acc, 2 * place * LANES, HALF_VECTOR_BYTES) + wide, 2 * place * LANES, HALF_VECTOR_BYTES)


@dataclass(frozen=True)
class DotNest(IntegerNest):
    """`IntegerNest` with `SDOT`: each word holds four rows of a window column of one channel. Windows of 3 or 7 rows leave one byte of
    their words unused, windows of 5 rows three; unused bytes have zero weights. With stride 1, two output rows share the same words,
    with weights shifted by one row.
    """

    def _tile_of(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        """Emit a tile, by columns if its weights are few and the core has no `SMMLA`; sums that begin together are 2 % faster on a Neoverse
        N2, modelled, and 4 % slower on a Cortex-A78.
        """
        if words_of(self.layer) == 1 and not self.ends.kernel.has_pairs:
            self._by_columns(size, value, channel, target)
            return
        with self._summed(size, channel, target) as acc:
            for x, reached in self._columns(size[1]):
                self._multiply(acc, size, value, channel, x, reached)

    def _columns(self, width: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Yield the columns of the window of `width` output columns, each with the output columns that it reaches and their taps."""
        taps, stride = self.layer.kernel[1], self.layer.stride[1]
        for x in range((width - 1) * stride + taps):
            yield x, [(out, x - out * stride) for out in range(width) if 0 <= x - out * stride < taps]

    def _by_columns(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        """Emit a tile by columns of its window: only the sums that a column reaches take registers."""
        (height, width), acc = size, self.ends.kernel.sums(2 * size[0] * size[1])
        for x, reached in self._columns(width):
            for y, out in itertools.product(range(height), (out for out, tap in reached if tap == 0)):
                self.ends.fill(acc, 1, channel, HALF_VECTOR_BYTES, y * width + out)
            self._multiply(acc, size, value, channel, x, reached)
            complete = (out for out, tap in reached if tap == self.layer.kernel[1] - 1)
            self._store(acc, width, itertools.product(range(height), complete), channel, target)

    def _multiply(self, acc: Buffer, size: tuple[int, int], value: Value, channel: Expr, x: int, reached: list[tuple[int, int]]) -> None:
        """Emit the products of column `x` of the tile's window with the taps of the output columns that it reaches."""
        kernel, layer = self.ends.kernel, self.layer
        (height, taps), shared = layer.kernel, 2 if layer.stride[0] == 1 else 1
        for first in range(0, size[0] if reached else 0, shared):
            outputs = range(first, min(first + shared, size[0]))
            top, lowest = first * layer.stride[0], outputs[-1] * layer.stride[0] + height - 1
            for word in range(words_of(layer)):
                rows = range(top + word * WORD, top + (word + 1) * WORD)
                words = self._words([value(min(y, lowest), x) for y in rows])
                for (out, tap), y, half in itertools.product(reached, outputs, range(2)):
                    place = (2 * (y * size[1] + out) + half) * LANES
                    weight = ((((y - first) * words_of(layer) + word) * taps + tap) * 2 + half) * 16
                    weights = kernel.bytes_at(self.weight, channel * (8 * words_of(layer) * taps) + weight)
                    kernel.store(acc, kernel.dot(kernel.load(acc, place, LANES), words[half], weights), place, LANES)

    def _words(self, rows: list[Expr]) -> list[Expr]:
        """Interleave four rows of eight channels; return two vectors of four words, each the four rows of one channel."""
        kernel, T = self.ends.kernel, self.ends.kernel.T  # noqa: N806
        zipped = [place for lane in range(HALF_VECTOR_BYTES) for place in (lane, HALF_VECTOR_BYTES + lane)]
        pairs = [T.bind(kernel.as_type("int16x8", T.Shuffle(rows[first : first + 2], zipped))) for first in (0, 2)]
        halves = [T.Shuffle(pairs, zipped[half * HALF_VECTOR_BYTES : (half + 1) * HALF_VECTOR_BYTES]) for half in range(2)]
        return [T.bind(kernel.as_type("int8x16", half)) for half in halves]


class IntegerDepthwise(IntegerTemplate):
    """The base class of templates for int8 depthwise convolutions whose channels are a multiple of 8 and whose windows can be unrolled.

    Knobs:
        rows, columns, channels, axis: see `Depthwise`.
    """

    enough_trials = 16
    nest: type[IntegerNest]
    #: Register tiles as (rows, columns); the first is the usual one.
    tiles: tuple[tuple[int, int], ...]

    def suits(self, task: Task) -> bool:
        """Return whether this template uses SDOT exactly if it should be used: on cores that have it, for windows of 3, 5 or 7 rows."""
        layer = task.region[0]
        by_dots = "dot" in task.machine.has and isinstance(layer, Conv2d) and layer.kernel[0] in _ROWS
        return by_dots == self.dot

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_depthwise and is_integer_layer(task)):
            return None
        if layer.in_channels % HALF_VECTOR_BYTES or loops_over_rows(layer) or not self.suits(task):
            return None
        tiles = TileKnobs(self.tiles, layer.out_height, layer.out_width)
        options = {
            **tiles.options,
            "channels": (0, *(count for count in (16, 32, 64) if count < layer.in_channels)),
            "axis": (0, 1) if task.threads > 1 else (0,),
        }
        return Space(self.name, self.version, options, tiles.fits, dict(zip(options, (*self.tiles[0], 0, 0), strict=True)))

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return the size, stride, tile, window per output, and the tile's waste at the edges."""
        layer = layer_of(task, Conv2d)
        outputs = knobs["rows"] * knobs["columns"]
        return [
            math.log2(layer.out_height * layer.out_width),
            math.log2(layer.in_channels),
            layer.stride[1],
            outputs,
            window_width(layer, knobs) * ((knobs["rows"] - 1) * layer.stride[0] + layer.kernel[0]) / outputs,
            waste(layer.out_height, knobs["rows"]),
            waste(layer.out_width, knobs["columns"]),
        ]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer = layer_of(task, Conv2d)
        kernel, channels = WindowKernel(task), layer.in_channels
        part = OutputPart(partition(layer, 0, knobs["rows"]), partition(layer, 1, knobs["columns"]), 0, 0, layer.out_width)
        with integer_body(kernel, layer, channels * self.bytes_per_channel(layer), **self.tables(layer)) as ends:
            (data, _), output = input_of(layer, ends.buffers), output_of(layer, ends.buffers["output"])
            # Tiles are summed as a whole, so no `add` is needed for single values.
            nest = self.nest(ends, None, layer, knobs, part, data, output, ends.buffers["weight"])  # type: ignore[arg-type]
            nest.emit(task.threads, Span(0, channels, 0))
        return kernel.finish()

    def bytes_per_channel(self, layer: Conv2d) -> int:
        """Return the size in bytes of the packed weights per channel."""
        return math.prod(layer.kernel)

    def tables(self, layer: Conv2d) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a kernel's additional arguments, by name."""
        return {}


class LongDepthwise(IntegerDepthwise):
    """Accepts one int8 depthwise convolution of any window, stride and padding whose channels are a multiple of 8."""

    name = "long_depthwise"
    dot, nest = False, LongNest
    tiles = ((2, 3), (2, 4), (2, 2), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6))

    def tables(self, layer: Conv2d) -> dict[str, tuple[int, ...]]:
        """Return the shape of the flags, one per eight channels, that say whether three products are added at a time."""
        return {"steps": (layer.in_channels // HALF_VECTOR_BYTES,)}

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as [group of eight channels][tap][channel], the constants, and the flags of `three_fit`."""
        layer, weight = layer_of(task, Conv2d), parameters[0].weight
        packed = weight.reshape(-1, layer.in_channels // HALF_VECTOR_BYTES, HALF_VECTOR_BYTES).transpose(1, 0, 2)
        return [packed.ravel(), *pack_constants(layer, parameters[0]), three_fit(weight).astype(np.int32)]

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether the template accepts `task` and some groups of three taps do not fit in 16 bits."""
        return self.space(task) is not None and not three_fit(weight).all()

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the share of channels whose taps are added three at a time."""
        return {"three_taps": float(three_fit(weight).mean())}


def three_fit(weight: Array) -> Array:
    """Return, for each eight channels, whether the sums of three products fit in 16 bits; shape (channels / 8,)."""
    return np.asarray((tap_triple_sums(weight) <= MOST_TOGETHER).all(0).reshape(-1, HALF_VECTOR_BYTES).all(1))


class DotDepthwise(IntegerDepthwise):
    """Accepts one int8 depthwise convolution with windows of 3, 5 or 7 rows whose channels are a multiple of 8, on cores with SDOT."""

    name = "dot_depthwise"
    dot, nest = True, DotNest
    tiles = ((2, 4), (2, 2), (2, 3), (1, 2), (1, 3), (1, 4), (1, 6), (2, 6))

    def bytes_per_channel(self, layer: Conv2d) -> int:
        """Return the size in bytes of the packed weights per channel: the words of each window column, for either output row."""
        return 8 * words_of(layer) * layer.kernel[1]

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as [group of eight channels][output row][word][window column][channel][row of the word], then the constants."""
        layer = layer_of(task, Conv2d)
        (height, taps), count = layer.kernel, words_of(layer)
        weight = parameters[0].weight[:, :, 0].reshape(height, taps, -1, HALF_VECTOR_BYTES)
        both = np.stack([np.pad(weight, ((shift, count * WORD - height - shift), *((0, 0),) * 3)) for shift in range(2)])
        words = both.reshape(2, count, WORD, taps, -1, HALF_VECTOR_BYTES).transpose(4, 0, 1, 3, 5, 2)
        return [np.ascontiguousarray(words).ravel(), *pack_constants(layer, parameters[0])]


def words_of(layer: WindowLayer) -> int:
    """Return the number of words that hold the rows of a window and one more row."""
    return layer.kernel[0] // WORD + 1
