"""Vector × int8 matrix with `SMLAL`: the vector is rounded to 16 bits, block by block, and products are accumulated as integers.

On cores with 64-bit vector pipelines, such as the Cortex-A72, converting int8 to float32 takes longer than multiplying.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, TileSums
from tvmmobile.schedules.emit.matmul_nest import MatmulNest
from tvmmobile.schedules.emit.vectors import ROUNDER, vector_of
from tvmmobile.schedules.space import round_up

#: Values of the row that share a scale: the sum of their products with weights of up to 127 stays below 2³¹.
BLOCK = 512
#: Largest magnitude of a rounded value.
_MOST = 32767
#: Values of the row that are loaded together.
_STEPS = 8
#: Lower bound on a block's largest magnitude, so that its reciprocal times `_MOST` is finite.
_LEAST = 1e-30


@dataclass(frozen=True)
class FixedTile(MatmulTile):
    """Register tiles of one row that is rounded in blocks.

    Attributes:
        values, scales: the row in int16, and the scale of each block.
    """

    values: Buffer = None
    scales: Buffer = None

    def _sum(self, sums: TileSums, row: Expr, weights: Expr, part: Extent, alike: bool, blank: bool) -> None:
        whole, rest = divmod(part.count, BLOCK)
        with self.kernel.loop(whole) as number:
            self._block(sums, number, weights, BLOCK)
        if rest:
            self._block(sums, whole, weights, rest)

    def _block(self, sums: TileSums, number: Expr, weights: Expr, count: int) -> None:
        """Add a block's products: summed in int32, then scaled and added to `sums`."""
        kernel, T, lanes, width = self.kernel, self.kernel.T, self.kernel.lanes, sums.width  # noqa: N806
        integers = kernel.places(width)
        kernel.fill(integers, T.int32(0), width // lanes)
        start = number * BLOCK
        whole, rest = divmod(count, _STEPS)
        if whole:
            with kernel.loop(whole) as step:
                self._multiply_fixed(integers, start + step * _STEPS, weights, width, _STEPS)
        if rest:
            self._multiply_fixed(integers, start + whole * _STEPS, weights, width, rest)
        scale = T.bind(kernel.splat(kernel.load(self.scales, number, 1)))
        for place in range(0, width, lanes):
            total = kernel.vectors().cast(kernel.load(integers, place))
            kernel.store(sums.registers, kernel.multiply_add(kernel.load(sums.registers, place), total, scale), place)

    def _multiply_fixed(self, sums: Buffer, begin: Expr, weights: Expr, width: int, count: int) -> None:
        """Add the products of `count` values of the row, from index `begin` on."""
        kernel, T, lanes = self.kernel, self.kernel.T, self.kernel.lanes  # noqa: N806
        values = T.bind(self.values[kernel.at(begin, _STEPS)])
        for lane in range(count):
            value = T.Cast(f"int32x{lanes}", T.Broadcast(T.Shuffle([values], [lane]), lanes))
            for first in range(0, width, 2 * lanes):
                together = min(2 * lanes, width - first)
                stored = self.w[kernel.at(weights + (begin + lane) * width + first, together)]
                wide = T.bind(T.Cast(f"int16x{together}", stored))
                for place in range(0, together, lanes):
                    weight = T.Cast(f"int32x{lanes}", T.Shuffle([wide], list(range(place, place + lanes))))
                    kernel.store(sums, kernel.load(sums, first + place) + weight * value, first + place)


class FixedNest(MatmulNest):
    """`MatmulNest` for a single row, which each thread rounds first."""

    tile: FixedTile

    def _panels(self, thread: Expr) -> None:
        kernel, depth = self.kernel, self.tile.depth
        values = self.T.alloc_buffer((round_up(depth, _STEPS),), "int16")
        scales = kernel.scratch(-(-depth // BLOCK))
        whole, rest = divmod(depth, BLOCK)
        with kernel.loop(whole) as number:
            _round(kernel, self.tile.a, values, scales, number, BLOCK)
        if rest:
            _round(kernel, self.tile.a, values, scales, whole, rest)
        self.tile = replace(self.tile, values=values, scales=scales)
        super()._panels(thread)


def _round(kernel: Kernel, row: Activation, values: Buffer, scales: Buffer, number: Expr, count: int) -> None:
    """Round block `number` of the row, of `count` values, and store its scale."""
    T, start = kernel.T, number * BLOCK  # noqa: N806
    largest = largest_magnitude(kernel, start, count, lambda index, lanes: kernel.load(row.buffer, index, lanes))
    kernel.store(scales, largest * kernel.number(1 / _MOST), number, 1)
    factor = T.bind(kernel.number(_MOST) / largest)
    whole, rest = divmod(count, kernel.lanes)
    for lanes, times, first in ((kernel.lanes, whole, 0), (1, rest, whole * kernel.lanes)):
        if not times:
            continue
        with kernel.loop(times) as step:
            index = start + first + step * lanes
            bits = rounded_bits(kernel, kernel.load(row.buffer, index, lanes), factor, lanes)
            T.buffer_store(values, T.Cast(vector_of("int16", lanes), bits), [kernel.at(index, lanes)])


def largest_magnitude(kernel: Kernel, first: Expr, count: int, value_of: Callable[[Expr, int], Expr]) -> Expr:
    """Return the largest magnitude of `count` floats, at least `_LEAST`; NaN if any is NaN.

    Args:
        value_of: maps an index from `first` on and a number of lanes to the values there.
    """
    T = kernel.T  # noqa: N806

    def magnitude(index: Expr, lanes: int) -> Expr:
        value = T.bind(value_of(index, lanes))
        return T.max(value, kernel.splat(kernel.number(0.0), lanes) - value)

    return larger(kernel, kernel.reduced(first, count, magnitude, partial(larger, kernel)), kernel.number(_LEAST))


def larger(kernel: Kernel, left: Expr, right: Expr) -> Expr:
    """Return the larger of two non-negative scalars or vectors, or NaN if either is NaN: their bits compare as integers in that order."""
    T, dtype = kernel.T, str(left.ty.dtype)  # noqa: N806
    integer = dtype.replace("float", "int")
    return T.reinterpret(dtype, T.max(T.reinterpret(integer, left), T.reinterpret(integer, right)))


def rounded_bits(kernel: Kernel, values: Expr, factor: Expr, lanes: int) -> Expr:
    """Return `values * factor` as int32 whose lower half is the nearest int16."""
    moved = values * kernel.splat(factor, lanes) + kernel.splat(kernel.number(ROUNDER), lanes)
    return kernel.T.reinterpret(vector_of("int32", lanes), moved)
