"""Register tiles of a matrix product with `BFMMLA`: two pixels times two channels, over four input channels at a time."""

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
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, _Place

#: Input channels that an instruction multiplies: half a vector.
GROUP = 4
#: Usual pixels and vectors of channels of a tile: half an instruction joins two pixels' values for each pixel and `GROUP`.
PAIRS = (4, 6)


def lanes_of_pair(size: int, number: int, groups: int) -> list[int]:
    """Return the lanes of one group of two vectors, each of so many groups of a size: those of the first vector, then of the second."""
    return [first + lane for first in (number * size, (groups + number) * size) for lane in range(size)]


def group_of(group: int, *depths: int) -> int:
    """Return `Precision.group`, if it divides the K of all products, else 1."""
    return 1 if any(depth % group for depth in depths) else group


def conv_group(layer: Conv2d, task: Task) -> int:
    """Return `group_of` a convolution, whose input may be in blocks or consist of pieces."""
    ends = [count for _, _, count in layer.pieces] or [channel_block(layer.in_layout, layer.in_channels)]
    return group_of(task.precision.group, layer.in_channels // layer.groups, *ends)


def grouped(group: int, *weights: str) -> tuple[str, ...]:
    """Return which of these arguments with weights lie together in such groups."""
    return weights if group == GROUP else ()


def tile_of(group: int) -> type[MatmulTile]:
    """Return the tiles for weights that lie together in such groups."""
    return PairTile if group == GROUP else MatmulTile


@dataclass(frozen=True)
class PairTile(MatmulTile):
    """Tiles whose sums are in pairs while they grow: a vector has two pixels' of two channels.

    In front of a loop and behind it, sums change places: an instruction for each vector, which LLVM leaves out between two loops.
    """

    def _sum(
        self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, part: Extent, first: int, alike: bool, blank: bool
    ) -> None:
        """Add products in pairs, between which sums change places."""
        kernel, vector = self.kernel, self.kernel.lanes
        sums = kernel.accumulators(-(-rows // 2) * 2 * width)
        pairs = [(i, min(i + 1, rows - 1), j) for i, j in itertools.product(range(0, rows, 2), range(0, width, vector))]
        for i, other, j in pairs:
            self._exchange(acc, [(first + i) * width + j, (first + other) * width + j], sums, self._places(i, j, width))
        MatmulTile._sum(replace(self, unroll=2 * GROUP), sums, row, rows, width, weights, part, first=0, alike=False, blank=False)
        for i, other, j in pairs:
            self._exchange(sums, self._places(i, j, width), acc, [(first + i) * width + j, (first + other) * width + j])

    @staticmethod
    def _places(pixel: int, channel: int, width: int) -> list[int]:
        """Return where the sums are of a pixel and the next one, and of a vector of channels."""
        return [pixel * width + 2 * channel, pixel * width + 2 * channel + GROUP]

    def _exchange(self, source: Buffer, origins: list[int], target: Buffer, places: list[int]) -> None:
        """Store the low halves of two vectors as one, then the high halves; of a place named twice the first remains."""
        kernel = self.kernel
        vectors = [kernel.T.bind(kernel.load(source, origin)) for origin in origins]
        for place, lanes in list(zip(places, ([0, 1, 4, 5], [2, 3, 6, 7]), strict=True))[: len(set(places))]:
            kernel.store(target, kernel.T.Shuffle(vectors, lanes), place)

    def _multiply(self, acc: Buffer, place: _Place, rows: int, width: int, step: Expr, count: int, blank: bool = False) -> None:
        """Add the products of four or eight steps; A is read that many K values at a time."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        for group, values in enumerate(self._values(place, rows, step, count)):
            weights = place.weights + (place.done + step + group * GROUP) * width
            for j in range(0, width, 2):
                weight = T.bind(bits_at(kernel, self.w, weights + j * GROUP, 2 * GROUP))
                for number, value in enumerate(values):
                    position = 2 * number * width + 2 * j
                    kernel.store(acc, multiply_pairs(kernel, kernel.load(acc, position), value, weight), position)

    def _values(self, place: _Place, rows: int, step: Expr, count: int) -> Iterator[list[Expr]]:
        """Yield the values of each two pixels, one group of K after another."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        origins = [place.origin + i * (self.step * self.a.block) + step for i in range(rows)]
        pixels = [T.bind(bits_at(kernel, self.a.buffer, origin, count)) for origin in origins]
        for group in range(count // GROUP):
            lanes = lanes_of_pair(GROUP, group, count // GROUP)
            yield [T.bind(T.Shuffle([pixels[i], pixels[min(i + 1, rows - 1)]], lanes)) for i in range(0, rows, 2)]


@dataclass(frozen=True)
class JoinedTile(PairTile):
    """Tiles of an A that `join_pixels` has laid out: each two pixels' values as instructions take them. Tiles begin with an even pixel."""

    @property
    def depth(self) -> int:
        return self.a.channels // 2

    def _place(self, row: Expr, weights: Expr, part: Extent, first: int, block: int, number: Expr) -> _Place:
        return _Place(self.a.at(row // 2, 2 * (part.start + number * block)), weights, number * block, first)

    def _values(self, place: _Place, rows: int, step: Expr, count: int) -> Iterator[list[Expr]]:
        kernel = self.kernel
        for group in range(0, count, GROUP):
            origins = [place.origin + pair * self.a.channels + 2 * (step + group) for pair in range(-(-rows // 2))]
            yield [kernel.T.bind(bits_at(kernel, self.a.buffer, origin, 2 * GROUP)) for origin in origins]


def join_pixels(kernel: Kernel, source: Activation, pixels: tuple[Expr, Expr], target: Buffer, place: Expr) -> None:
    """Store two pixels' values for all K as `JoinedTile` reads them, from a place of the target on."""
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
