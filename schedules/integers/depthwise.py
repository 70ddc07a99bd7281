"""Depthwise convolutions of integers: tiles of pixels for eight channels, by `SDOT` over the rows of a window, or by `SMULL` and `SMLAL`.

Without `SDOT`, two products of a channel always fit in 16 bits. Three do if the magnitudes of their weights add up to at most
`MOST_TOGETHER`: then a 3×3 window takes three additions of 16 bits to sums of 32 instead of five. For every eight channels a table says
whether all groups of three taps are proved to fit; the code is the same for all weights.
"""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
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
from tvmmobile.schedules.emit.window_nest import Channels, OutputPart, Span, WindowNest, first_of, window_width
from tvmmobile.schedules.integers.ends import IntegerEnds, integer_body, pack_constants
from tvmmobile.schedules.integers.kernel import HALF_VECTOR_BYTES, LANES, IntegerKernel
from tvmmobile.schedules.integers.template import IntegerTemplate, TileKnobs, is_integer_layer
from tvmmobile.schedules.space import Knobs, Space, waste
from tvmmobile.schedules.template import layer_of

#: Products of a channel that always fit in 16 bits.
TWO = 2
#: From a row and a column of a tile's window to eight bytes of it.
Value = Callable[[int, int], Expr]
#: Rows of windows that SDOT takes: with a row for a second output, they fill words of four bytes well.
_ROWS, WORD = (3, 5, 7), 4


class WindowKernel(IntegerKernel):
    """Vectors of eight bytes."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.lanes = HALF_VECTOR_BYTES


def _inside(run: Run, stride: int, place: int) -> bool:
    """Return whether a row, or column, of a tile's window lies in the image, by the taps of the outputs that it reaches."""
    return any(low <= place - stride * out < high for out, (low, high) in enumerate(run.taps))


@dataclass(frozen=True)
class IntegerNest(WindowNest, ABC):
    """The loops of a float window, around tiles that read the zero point where the window reaches over the image's edge."""

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
        """Emit a tile of so many rows and columns, from bytes of the window, for eight channels; the first ones are stored at a target."""

    @contextmanager
    def _summed(self, size: tuple[int, int], channel: Expr, target: Expr) -> Iterator[Buffer]:
        """Emit a tile's sums from their start, which are stored in the end."""
        acc = self.ends.kernel.sums(2 * size[0] * size[1])
        self.ends.fill(acc, size[0] * size[1], channel, HALF_VECTOR_BYTES)
        yield acc
        pixels = []
        for place, (y, x) in enumerate(itertools.product(*map(range, size))):
            pixels.append((self.ends.complete(acc, place, HALF_VECTOR_BYTES), target + (y * self.part.width + x) * self.output.block))
        self.ends.store(pixels, channel, HALF_VECTOR_BYTES)


@dataclass(frozen=True)
class LongNest(IntegerNest):
    """Two or three products of bytes are added in 16 bits, and their sum to those of 32."""

    def _tile_of(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        T, fits = self.ends.kernel.T, self.ends.buffers["steps"]  # noqa: N806
        with T.If(fits[channel // HALF_VECTOR_BYTES] != 0):
            for branch, count in ((T.Then(), TAPS_TOGETHER), (T.Else(), TWO)):
                with branch, self._summed(size, channel, target) as acc:
                    self._add(acc, size, value, channel, count)

    def _add(self, acc: Buffer, size: tuple[int, int], value: Value, channel: Expr, count: int) -> None:
        """Adds all products, so many of a channel in 16 bits."""
        kernel, layer = self.ends.kernel, self.layer
        taps = list(itertools.product(*map(range, layer.kernel)))
        for first in range(0, len(taps), count):
            some = taps[first : first + count]
            weights = [
                kernel.bytes_at(self.weight, (channel * len(taps)) + (first + place) * HALF_VECTOR_BYTES, HALF_VECTOR_BYTES)
                for place in range(len(some))
            ]
            for place, (y, x) in enumerate(itertools.product(*map(range, size))):
                products: Expr = None
                for (tap_y, tap_x), weight in zip(some, weights, strict=True):
                    product = kernel.long_product(value(y * layer.stride[0] + tap_y, x * layer.stride[1] + tap_x), weight)
                    products = product if products is None else products + product
                wide = kernel.T.Cast("int32x8", products)
                kernel.store(acc, kernel.load(acc, 2 * place * LANES, HALF_VECTOR_BYTES) + wide, 2 * place * LANES, HALF_VECTOR_BYTES)


@dataclass(frozen=True)
class DotNest(IntegerNest):
    """The rows of a window are the bytes of words, channel by channel: three or seven of an output, and one that its weights leave out, or
    five and three. With stride 1, two rows of outputs share the same words: the second one leaves out the first row.
    """

    def _tile_of(self, size: tuple[int, int], value: Value, channel: Expr, target: Expr) -> None:
        with self._summed(size, channel, target) as acc:
            self._multiply(acc, size, value, channel)

    def _multiply(self, acc: Buffer, size: tuple[int, int], value: Value, channel: Expr) -> None:
        """Adds all products."""
        kernel, layer = self.ends.kernel, self.layer
        (height, taps), shared = layer.kernel, 2 if layer.stride[0] == 1 else 1
        for x in range((size[1] - 1) * layer.stride[1] + taps):
            reached = [(out, x - out * layer.stride[1]) for out in range(size[1]) if 0 <= x - out * layer.stride[1] < taps]
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
        """Return for each of eight channels the bytes of four rows together, in two vectors."""
        kernel, T = self.ends.kernel, self.ends.kernel.T  # noqa: N806
        zipped = [place for lane in range(HALF_VECTOR_BYTES) for place in (lane, HALF_VECTOR_BYTES + lane)]
        pairs = [T.bind(kernel.as_type("int16x8", T.Shuffle(rows[first : first + 2], zipped))) for first in (0, 2)]
        halves = [T.Shuffle(pairs, zipped[half * HALF_VECTOR_BYTES : (half + 1) * HALF_VECTOR_BYTES]) for half in range(2)]
        return [T.bind(kernel.as_type("int8x16", half)) for half in halves]


class IntegerDepthwise(IntegerTemplate):
    """The base class of templates for integer depthwise convolutions, whose channels divide by 8.

    Knobs:
        rows, columns, channels, axis: see `Depthwise`.
    """

    enough_trials = 16
    nest: type[IntegerNest]
    #: Tiles, of rows and columns.
    tiles: tuple[tuple[int, int], ...]

    def suits(self, task: Task) -> bool:
        """Return whether SDOT is used exactly if this template does: on cores that have it, for windows of some sizes."""
        layer = task.region[0]
        by_dots = "dot" in task.machine.has and isinstance(layer, Conv2d) and layer.kernel[0] in _ROWS
        return by_dots == self.dot

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not (isinstance(layer, Conv2d) and layer.is_depthwise and is_integer_layer(task)):
            return None
        if layer.in_channels % HALF_VECTOR_BYTES or not self.suits(task):
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
            # Tiles are summed as a whole, so that there is nothing that adds a single value.
            nest = self.nest(ends, None, layer, knobs, part, data, output, ends.buffers["weight"])  # type: ignore[arg-type]
            nest.emit(task.threads, Span(0, channels, 0))
        return kernel.finish()

    def bytes_per_channel(self, layer: Conv2d) -> int:
        """Return the bytes of the packed weights per channel."""
        return math.prod(layer.kernel)

    def tables(self, layer: Conv2d) -> dict[str, tuple[int, ...]]:
        """Return the shapes of a kernel's further arguments, by name."""
        return {}


class LongDepthwise(IntegerDepthwise):
    """Takes one integer depthwise convolution of any window, stride and padding, whose channels divide by 8."""

    name = "long_depthwise"
    dot, nest = False, LongNest
    tiles = ((2, 3), (2, 4), (2, 2), (1, 2), (1, 3), (1, 4), (1, 5), (1, 6))

    def tables(self, layer: Conv2d) -> dict[str, tuple[int, ...]]:
        """Return the shape of the flags that say which eights of channels take three products at a time."""
        return {"steps": (layer.in_channels // HALF_VECTOR_BYTES,)}

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as [eight channels][tap][channel]; constants; and whether threes of taps fit."""
        layer, weight = layer_of(task, Conv2d), parameters[0].weight
        packed = weight.reshape(-1, layer.in_channels // HALF_VECTOR_BYTES, HALF_VECTOR_BYTES).transpose(1, 0, 2)
        return [packed.ravel(), *pack_constants(layer, parameters[0]), three_fit(weight).astype(np.int32)]

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether some threes of taps do not fit in 16 bits where kernels add up so many."""
        return self.space(task) is not None and not three_fit(weight).all()

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the share of channels whose taps are added by threes."""
        return {"three_taps": float(three_fit(weight).mean())}


def three_fit(weight: Array) -> Array:
    """Return for every eight channels whether three products of each fit in 16 bits."""
    return np.asarray((tap_triple_sums(weight) <= MOST_TOGETHER).all(0).reshape(-1, HALF_VECTOR_BYTES).all(1))


class DotDepthwise(IntegerDepthwise):
    """Takes one integer depthwise convolution with windows of 3, 5 or 7 rows, whose channels divide by 8, on cores with SDOT."""

    name = "dot_depthwise"
    dot, nest = True, DotNest
    tiles = ((2, 4), (2, 2), (2, 3), (1, 2), (1, 3), (1, 4), (1, 6), (2, 6))

    def bytes_per_channel(self, layer: Conv2d) -> int:
        """Return the words of each column of the window, for either row of outputs."""
        return 8 * words_of(layer) * layer.kernel[1]

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return weights as [eight channels][from row 0 or 1 of the words on][word][column of the window][channel][row of the word]."""
        layer = layer_of(task, Conv2d)
        (height, taps), count = layer.kernel, words_of(layer)
        weight = parameters[0].weight[:, :, 0].reshape(height, taps, -1, HALF_VECTOR_BYTES)
        both = np.stack([np.pad(weight, ((shift, count * WORD - height - shift), *((0, 0),) * 3)) for shift in range(2)])
        words = both.reshape(2, count, WORD, taps, -1, HALF_VECTOR_BYTES).transpose(4, 0, 1, 3, 5, 2)
        return [np.ascontiguousarray(words).ravel(), *pack_constants(layer, parameters[0])]


def words_of(layer: WindowLayer) -> int:
    """Return words that the rows of a window and one more take."""
    return layer.kernel[0] // WORD + 1
