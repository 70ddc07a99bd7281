"""Products of float activations and int8 weights with `SDOT`: activations are rounded to 16 bits, and both bytes multiplied separately.

A pixel's values are `scale * (256 * upper + lower)`, with one scale per pixel. So two int8 products replace one float product, and an
`SDOT` computes four times as many products as an `FMLA`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tvmmobile.schedules.emit.fixed_point import larger, largest_magnitude, rounded_bits
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, parts_of
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.emit.matmul_nest import Pixels, PreparedNest
from tvmmobile.schedules.emit.vectors import vector_of
from tvmmobile.schedules.space import Knobs, round_up

#: Bytes of a vector, and bytes that SDOT multiplies and adds in each 32-bit lane.
VECTOR_BYTES, WORD = 16, 4
#: Largest magnitude of a rounded value: its upper byte, rounded to the nearest, still fits in int8.
LARGEST_ROUNDED = 127 * 256


@dataclass(frozen=True)
class Digits:
    """A block of rounded pixels.

    Attributes:
        values: int8 digits as [pixel][upper, lower][channel].
        scales: one scale per pixel.
        depth: number of channels, padded with zeros to whole vectors.
    """

    values: Buffer
    scales: Buffer
    depth: int

    def at(self, pixel: Expr, lower: int) -> Expr:
        """Return the index of a pixel's first upper (`lower=0`) or lower (`lower=1`) digit."""
        return (pixel * 2 + lower) * self.depth


@dataclass(frozen=True)
class DigitTile(MatmulTile):
    """Register tiles of rounded pixels; W has groups of four K per output channel, see `pack_elements`.

    Attributes:
        digits: the rounded pixels; `row` of `emit` is relative to their first.
    """

    digits: Digits | None = None

    @property
    def depth(self) -> int:
        """K in words of four channels."""
        return round_up(self.a.channels, VECTOR_BYTES) // WORD

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile over all of K."""
        kernel, T, digits = self.kernel, self.kernel.T, self.digits  # noqa: N806
        assert digits is not None
        width, lanes = panel.width, kernel.lanes
        sums = kernel.places(2 * rows * width)
        kernel.fill(sums, T.int32(0), 2 * rows * width // lanes)
        with kernel.loop(digits.depth // VECTOR_BYTES) as step:
            self._products(sums, row, rows, width, weights * WORD, step)
        acc = kernel.accumulators(rows * width)
        for pixel in range(rows):
            scale = T.bind(kernel.load(digits.scales, row + pixel, 1))
            factors = [kernel.splat(T.bind(scale * kernel.number(256.0))), kernel.splat(scale)]
            for place in range(0, width, lanes):
                upper, lower = (kernel.vectors().cast(kernel.load(sums, ((pixel * 2) + lower) * width + place)) for lower in range(2))
                kernel.store(acc, kernel.multiply_add(lower * factors[1], upper, factors[0]), pixel * width + place)
        self.epilogue.drain(acc, self.spots(target, rows, panel, index), self.c.buffer)

    def _products(self, sums: Buffer, row: Expr, rows: int, width: int, weights: Expr, step: Expr) -> None:
        """Emit the products of `VECTOR_BYTES` channels of K."""
        kernel, T, digits = self.kernel, self.kernel.T, self.digits  # noqa: N806
        assert digits is not None
        origins = [digits.at(row + number // 2, number % 2) + step * VECTOR_BYTES for number in range(2 * rows)]
        values = [T.bind(T.reinterpret("int32x4", digits.values[T.Ramp(origin, 1, VECTOR_BYTES)])) for origin in origins]
        for lane in range(VECTOR_BYTES // WORD):
            for place in range(0, width, kernel.lanes):
                begin = weights + (step * (VECTOR_BYTES // WORD) + lane) * (width * WORD) + place * WORD
                weight = T.bind(self.w[T.Ramp(begin, 1, VECTOR_BYTES)])
                for number, value in enumerate(values):
                    word = T.reinterpret("int8x16", T.Broadcast(T.Shuffle([value], [lane]), kernel.lanes))
                    at = number * width + place
                    kernel.store(sums, kernel.dot(kernel.load(sums, at), weight, word), at)


class DigitNest(PreparedNest):
    """`PreparedNest` whose preparation multiplies pixels by the gate, if there is one, and rounds them."""

    tile: DigitTile

    def __init__(self, tile: DigitTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int, gate: Buffer | None) -> None:
        super().__init__(tile, knobs, pixels, widths, threads)
        self.gate = gate

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share, with a buffer per thread."""
        depth = round_up(self.source.channels, VECTOR_BYTES)
        self.pitch = self.most_tiles * self.knobs["rows"]
        rows = self.pitch * self.pixels.lines
        values = self.T.alloc_buffer((2 * rows * depth,), "int8")
        self.tile = replace(self.tile, digits=Digits(values, self.kernel.scratch(rows), depth))
        super()._panels(thread)

    def prepare(self, line: Expr, tile: Expr, count: int) -> None:
        """Round the pixels of a tile."""
        with self.kernel.loop(count) as pixel:
            self._round(line, tile * self.knobs["rows"] + pixel)

    def _place(self, line: Expr, pixel: Expr) -> Expr:
        """Return a pixel's position in the buffer of rounded pixels."""
        return line * self.pitch + pixel - self.first * self.knobs["rows"]

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        target = self.pixels.origin + line * self.pixels.pitch + pixel
        self.tile.emit(self._place(line, pixel), target, rows, panel, index, part, self._weights(panel, columns, index, part))

    def _round(self, line: Expr, pixel: Expr) -> None:
        """Round one pixel, channel block by channel block: first find its scale, then split its values into digits."""
        kernel, T, source, digits = self.kernel, self.kernel.T, self.source, self.tile.digits  # noqa: N806
        assert digits is not None
        row, place = line * self.pixels.source_pitch + pixel * self.pixels.step, T.bind(self._place(line, pixel))
        largest = kernel.accumulators(1)
        kernel.store(largest, kernel.number(0.0), 0, 1)
        blocks = source.channels // source.block
        with kernel.loop(blocks) as number:
            magnitude = largest_magnitude(kernel, 0, source.block, lambda index, lanes: self._value(row, number, index, lanes))
            kernel.store(largest, larger(kernel, kernel.load(largest, 0, 1), magnitude), 0, 1)
        most = T.bind(kernel.load(largest, 0, 1))
        kernel.store(digits.scales, most * kernel.number(1 / LARGEST_ROUNDED), place, 1)
        factor = T.bind(kernel.number(LARGEST_ROUNDED) / most)
        with kernel.loop(blocks) as number:
            for size, count, first in parts_of(source.block, VECTOR_BYTES, kernel.lanes, 1):
                with kernel.pieces(first, count, size) as channel:
                    self._split(row, number, channel, size, factor, place)
        for lower in range(2):
            for channel in range(source.channels, digits.depth):
                T.buffer_store(digits.values, T.int8(0), [digits.at(place, lower) + channel])

    def _value(self, row: Expr, number: Expr, channel: Expr, lanes: int) -> Expr:
        """Return `lanes` channels of a source block, times the gate if there is one."""
        value = self.kernel.load(self.source.buffer, self.source.at(row, number * self.source.block) + channel, lanes)
        if self.gate is None:
            return value
        return value * self.kernel.load(self.gate, number * self.source.block + channel, lanes)

    def _split(self, row: Expr, number: Expr, channel: Expr, size: int, factor: Expr, place: Expr) -> None:
        """Store `size` channels of a block as upper and lower digits."""
        kernel, T, digits = self.kernel, self.kernel.T, self.tile.digits  # noqa: N806
        assert digits is not None
        lanes = min(kernel.lanes, size)
        values = [self._value(row, number, channel + first, lanes) for first in range(0, size, lanes)]
        bits = [rounded_bits(kernel, value, factor, lanes) for value in values]
        whole = bits[0] if len(bits) == 1 else T.Shuffle(bits, list(range(size)))
        short = T.bind(T.Cast(vector_of("int16", size), whole))
        upper = T.shift_right(short + kernel.splat(T.int16(128), size), kernel.splat(T.int16(8), size))
        for lower, part in enumerate((upper, short)):
            at = digits.at(place, lower) + number * self.source.block + channel
            T.buffer_store(digits.values, T.Cast(vector_of("int8", size), part), [kernel.at(at, size)])
