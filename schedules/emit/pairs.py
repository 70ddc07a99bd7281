"""Register tiles of a matrix product with `BFMMLA`, which multiplies two pixels by two output channels over four input channels."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.layouts import channel_block
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.bfloats import bits_at, multiply_pairs
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, TileSums, _Place

#: Input channels that one instruction reduces: half a vector.
GROUP = 4
#: Rows and vectors of the usual tile: wide, since interleaving two pixels costs half an instruction per pixel and `GROUP`.
PAIRS = (4, 6)


def lanes_of_pair(size: int, number: int, groups: int) -> list[int]:
    """Return the shuffle lanes that take group `number` of two vectors, each of `groups` groups of `size` lanes: the first vector's, then
    the second's.
    """
    return [first + lane for first in (number * size, (groups + number) * size) for lane in range(size)]


def group_of(group: int, *depths: int) -> int:
    """Return `group` (`Precision.group`) if it divides the K of all products, else 1."""
    return 1 if any(depth % group for depth in depths) else group


def conv_group(layer: Conv2d, task: Task) -> int:
    """Return `group_of` for a convolution, whose channel blocks or input pieces the group must divide, too."""
    ends = [count for _, _, count in layer.pieces] or [channel_block(layer.in_layout, layer.in_channels)]
    return group_of(task.precision.group, layer.in_channels // layer.groups, *ends)


def grouped(group: int, *weights: str) -> tuple[str, ...]:
    """Return the names of the weight arguments that are interleaved in groups: all of `weights` or none."""
    return weights if group == GROUP else ()


def tile_of(group: int) -> type[MatmulTile]:
    """Return the class of register tiles for weights interleaved in groups of `group` K."""
    return PairTile if group == GROUP else MatmulTile


@dataclass(frozen=True)
class PairTile(MatmulTile):
    """Register tiles whose accumulators hold 2 × 2 sums: those of two pixels and two channels.

    Accumulators are permuted before and after each loop, with one instruction per vector; LLVM removes the permutations between two loops.
    """

    def _sum(self, sums: TileSums, row: Expr, weights: Expr, part: Extent, alike: bool, blank: bool) -> None:
        """Permute the sums to 2 × 2 order, add the products, and permute the sums back."""
        kernel, vector, rows, width = self.kernel, self.kernel.lanes, sums.rows, sums.width
        permuted = TileSums(kernel.accumulators(-(-rows // 2) * 2 * width), rows, width)
        pairs = [(i, min(i + 1, rows - 1), j) for i, j in itertools.product(range(0, rows, 2), range(0, width, vector))]
        places = [([sums.start + i * width + j, sums.start + partner * width + j], self._places(i, j, width)) for i, partner, j in pairs]
        for origins, targets in places:
            self._exchange(sums.registers, origins, permuted.registers, targets)
        MatmulTile._sum(replace(self, unroll=2 * GROUP), permuted, row, weights, part, alike=False, blank=False)
        for origins, targets in places:
            self._exchange(permuted.registers, targets, sums.registers, origins)

    @staticmethod
    def _places(pixel: int, channel: int, width: int) -> list[int]:
        """Return the positions of the two vectors of 2 × 2 sums of a pixel pair and a vector of channels."""
        return [pixel * width + 2 * channel, pixel * width + 2 * channel + GROUP]

    def _exchange(self, source: Buffer, origins: list[int], target: Buffer, places: list[int]) -> None:
        """Store the low halves of two vectors as one vector, then the high halves; if both places are the same, only the low halves."""
        kernel = self.kernel
        vectors = [kernel.T.bind(kernel.load(source, origin)) for origin in origins]
        for place, lanes in list(zip(places, ([0, 1, 4, 5], [2, 3, 6, 7]), strict=True))[: len(set(places))]:
            kernel.store(target, kernel.T.Shuffle(vectors, lanes), place)

    def _multiply(self, sums: TileSums, place: _Place, step: Expr, count: int, blank: bool = False) -> None:
        """Add the products of four or eight K steps; A is loaded that many values at a time."""
        kernel, T, registers, width = self.kernel, self.kernel.T, sums.registers, sums.width  # noqa: N806
        for group, values in enumerate(self._values(place, sums.rows, step, count)):
            weights = place.weights + (place.done + step + group * GROUP) * width
            for j in range(0, width, 2):
                weight = T.bind(bits_at(kernel, self.w, weights + j * GROUP, 2 * GROUP))
                for number, value in enumerate(values):
                    position = 2 * number * width + 2 * j
                    kernel.store(registers, multiply_pairs(kernel, kernel.load(registers, position), value, weight), position)

    def _values(self, place: _Place, rows: int, step: Expr, count: int) -> Iterator[list[Expr]]:
        """Yield, for each group of K, the interleaved values of each pair of pixels."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        origins = [place.origin + i * (self.step * self.a.block) + step for i in range(rows)]
        pixels = [T.bind(bits_at(kernel, self.a.buffer, origin, count)) for origin in origins]
        for group in range(count // GROUP):
            lanes = lanes_of_pair(GROUP, group, count // GROUP)
            yield [T.bind(T.Shuffle([pixels[i], pixels[min(i + 1, rows - 1)]], lanes)) for i in range(0, rows, 2)]


@dataclass(frozen=True)
class JoinedTile(PairTile):
    """Register tiles of an A packed by `join_pixels`: pairs of pixels interleaved as `BFMMLA` reads them. Tiles begin at an even pixel."""

    @property
    def depth(self) -> int:
        return self.a.channels // 2

    def _place(self, row: Expr, weights: Expr, part: Extent, block: int, number: Expr) -> _Place:
        return _Place(self.a.at(row // 2, 2 * (part.start + number * block)), weights, number * block)

    def _values(self, place: _Place, rows: int, step: Expr, count: int) -> Iterator[list[Expr]]:
        kernel = self.kernel
        for group in range(0, count, GROUP):
            origins = [place.origin + pair * self.a.channels + 2 * (step + group) for pair in range(-(-rows // 2))]
            yield [kernel.T.bind(bits_at(kernel, self.a.buffer, origin, 2 * GROUP)) for origin in origins]


def join_pixels(kernel: Kernel, source: Activation, pixels: tuple[Expr, Expr], target: Buffer, place: Expr) -> None:
    """Interleave two pixels' values in groups of K, as `JoinedTile` reads them, from index `place` of the target on."""
    block = source.block if source.block % (2 * GROUP) == 0 else GROUP
    size = min(block, 2 * GROUP)
    with kernel.loop(source.channels // block) as number, kernel.loop(block // size) as step:
        first = number * block + step * size
        rows = [kernel.T.bind(bits_at(kernel, source.buffer, source.at(pixel, first), size)) for pixel in pixels]
        for group in range(size // GROUP):
            joined = kernel.T.Shuffle(rows, lanes_of_pair(GROUP, group, size // GROUP))
            kernel.T.buffer_store(
                target, kernel.T.reinterpret("bfloat16x8", joined), [kernel.at(place + 2 * (first + group * GROUP), 2 * GROUP)]
            )
