"""Int8 matrix products with `SMMLA`, which multiplies two pixels by two output channels over eight input channels.

Vectors keep the 2 × 2 order of `SMMLA` until they are narrowed to bytes: then one permutation of byte pairs separates the pixels of eight
vectors, where 32-bit sums would need eight permutations. So per-channel constants are stored twice, once for each of two pixels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, IntegerLayer, Layer, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, parts_of
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.emit.pairs import lanes_of_pair
from tvmmobile.schedules.integers.ends import IntegerEnds, constant_shapes, has_steps
from tvmmobile.schedules.integers.kernel import LANES, IntegerKernel
from tvmmobile.schedules.integers.product import IntegerProduct, IntegerTile
from tvmmobile.schedules.space import Knobs

#: Bytes of a pixel, and of a channel's weights, that one instruction multiplies: half a vector.
GROUP = 8
_VECTOR = 2 * GROUP
#: Names of per-channel constants that are stored for two pixels.
_TWICE = ("bias", "multiplier", "origin", "addend")


def ends_in_pairs(layer: Layer) -> bool:
    """Return whether the sums of two pixels are scaled and narrowed in 2 × 2 order: not those stored as floats, nor those with steps."""
    assert isinstance(layer, IntegerLayer)
    return not (layer.writes or has_steps(layer))


def doubled(layer: Layer, constants: Sequence[Array]) -> list[Array]:
    """Return the constants of `pack_constants`, with per-channel ones duplicated two channels at a time if sums stay in 2 × 2 order."""
    if not ends_in_pairs(layer):
        return list(constants)
    assert isinstance(layer, IntegerLayer)
    named = zip(constant_shapes(layer), constants, strict=True)
    return [np.tile(array.reshape(-1, 1, 2), (1, 2, 1)).ravel() if name in _TWICE else array for name, array in named]


def joined_pair(kernel: IntegerKernel, pair: Sequence[Expr], group: int, groups: int) -> Expr:
    """Return group `group` of K of two pixels, given a vector of `groups` groups for each pixel."""
    return kernel.T.Shuffle(list(pair), lanes_of_pair(GROUP, group, groups))


class PairKernel(IntegerKernel):
    """A kernel whose per-channel constants are `doubled`."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._twice = _TWICE if ends_in_pairs(task.region[-1]) else ()

    @contextmanager
    def named_body(self, **shapes: tuple[int, ...]) -> Iterator[dict[str, Buffer]]:
        """Open the function; yield its buffers by argument name."""
        sizes = {name: (2 * shape[0],) if name in self._twice else shape for name, shape in shapes.items()}
        with super().named_body(**sizes) as buffers:
            yield buffers


@dataclass(frozen=True)
class PairEnds(IntegerEnds):
    """The ends of sums in 2 × 2 order: vectors of two pixels and two channels."""

    def store_pair(self, sums: Sequence[Expr], targets: Sequence[Expr], channel: Expr, count: int) -> None:
        """Store complete sums of one or two pixels.

        Args:
            sums: vectors of two pixels and two channels each.
            targets: index in the output of each pixel's first result.
            channel, count: first channel, and number of channels that exist.
        """
        kernel = self.kernel
        cuts = [(size, start + size * part) for size, parts, start in parts_of(len(sums), 8, 4, 2) for part in range(parts)]
        for size, first in cuts:
            batch = [(sums[place], None, place) for place in range(first, first + size)]
            narrowed = self._results([batch[part : part + 4] for part in range(0, size, 4)], 2 * channel, count)
            words = [kernel.as_type(f"int16x{min(size, 4) * 2}", vector) for vector in narrowed]
            for pixel, target in enumerate(targets):
                stored = kernel.as_type(f"int8x{2 * size}", kernel.T.Shuffle(words, list(range(pixel, 2 * size, 2))))
                self._store_lanes(stored, 2 * size, 0, size // 2, target + 2 * first, count - 2 * first)


@dataclass(frozen=True)
class IntegerPairTile(IntegerTile):
    """Register tiles whose accumulators hold 2 × 2 sums: those of two pixels and two channels. K is counted in `GROUP`s.

    Attributes:
        bytes: bytes per pixel of A, whole groups.
        laid_out: true if A is packed in pairs of pixels, interleaved by groups of K; tiles then begin at an even pixel.
    """

    epilogue: PairEnds
    bytes: int = 0
    laid_out: bool = False

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile."""
        if not ends_in_pairs(self.epilogue.layer):
            super().emit(row, target, rows, panel, index, part, weights)
            return
        channel = panel.channel + index * panel.width
        sums = self.sums(row, rows, panel, index, part, weights)
        for pixel in range(0, rows, 2):
            vectors = [self.kernel.load(sums, self._sums_at(pixel, j, panel.width), LANES) for j in range(0, panel.width, 2)]
            targets = [self.c.at(target + row_of_pair, channel) for row_of_pair in range(pixel, min(pixel + 2, rows))]
            self.epilogue.store_pair(vectors, targets, channel, panel.columns)

    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Emit the loop over K, two groups at a time; return the sums."""
        sums = self.kernel.sums(-(-rows // 2) * panel.width // 2)
        self._fill(sums, rows, panel.channel + index * panel.width, panel.width)
        self._accumulate(sums, row * self.bytes, rows, panel.width, weights * GROUP)
        return sums

    def _fill(self, sums: Buffer, rows: int, channel: Expr, width: int) -> None:
        """Initialise the sums, both pixels of a pair alike."""
        kernel = self.kernel
        if ends_in_pairs(self.epilogue.layer):
            for pair, j in itertools.product(range(0, rows, 2), range(0, width, 2)):
                kernel.store(sums, self.epilogue.begin(2 * (channel + j)), self._sums_at(pair, j, width), LANES)
            return
        for j in range(0, width, LANES):
            start = kernel.T.bind(self.epilogue.begin(channel + j))
            halves = [kernel.T.bind(kernel.T.Shuffle([start], lanes)) for lanes in ([0, 1, 0, 1], [2, 3, 2, 3])]
            for pair, (number, half) in itertools.product(range(0, rows, 2), enumerate(halves)):
                kernel.store(sums, half, self._sums_at(pair, j, width) + LANES * number, LANES)

    def _sums_at(self, pixel: int, channel: int, width: int) -> int:
        """Return the index of the vector of sums that holds a pixel and a channel."""
        return pixel // 2 * 2 * width + channel // 2 * LANES

    def _accumulate(self, sums: Buffer, origin: Expr, rows: int, width: int, weights: Expr) -> None:
        """Add all products; `origin` and `weights` are the indices of the first byte in A and W."""
        steps, rest = divmod(self.bytes, _VECTOR)
        if steps > 1:
            with self.kernel.T.serial(0, steps) as step:
                self._step(sums, origin, step * _VECTOR, rows, width, weights, 2)
        elif steps:
            self._step(sums, origin, 0, rows, width, weights, 2)
        if rest:
            self._step(sums, origin, steps * _VECTOR, rows, width, weights, 1)

    def _step(self, sums: Buffer, origin: Expr, depth: Expr, rows: int, width: int, weights: Expr, groups: int) -> None:
        """Add the products of one or two groups of K."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        for group, values in enumerate(self._values(origin, depth, rows, groups)):
            for j in range(0, width, 2):
                weight = T.bind(kernel.bytes_at(self.w, weights + depth * width + (group * width + j) * GROUP, _VECTOR))
                for number, value in enumerate(values):
                    place = self._sums_at(2 * number, j, width)
                    kernel.store(sums, kernel.pairs(kernel.load(sums, place, LANES), value, weight), place, LANES)

    def _values(self, origin: Expr, depth: Expr, rows: int, groups: int) -> Iterator[list[Expr]]:
        """Yield, for each group of K, a vector per pair of pixels."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        if self.laid_out:
            places = [origin + pair * self.bytes + 2 * depth for pair in range(0, rows, 2)]
            for group in range(groups):
                yield [T.bind(kernel.bytes_at(self.a.buffer, place + group * _VECTOR, _VECTOR)) for place in places]
            return
        sources = [origin + i * self.step * self.bytes + depth for i in range(rows)]
        pixels = [T.bind(kernel.bytes_at(self.a.buffer, source, groups * GROUP)) for source in sources]
        pairs = [[pixels[i], pixels[min(i + 1, rows - 1)]] for i in range(0, rows, 2)]
        for group in range(groups):
            yield [T.bind(joined_pair(kernel, pair, group, groups)) for pair in pairs]

    def complete(self, sums: Buffer, pixel: int, width: int) -> list[Expr]:
        """Return a pixel's sums as vectors of four channels."""
        kernel, first = self.kernel, 2 * (pixel % 2)
        lanes = [first, first + 1, first + LANES, first + LANES + 1]
        places = [self._sums_at(pixel, j, width) for j in range(0, width, LANES)]
        vectors = [[kernel.load(sums, place + LANES * number, LANES) for number in range(2)] for place in places]
        return [kernel.T.Shuffle(halves, lanes) for halves in vectors]


class PairMatrix(IntegerProduct):
    """The base class of templates that multiply with `SMMLA`."""

    dot, group, element, kernel = True, GROUP, GROUP, PairKernel

    def suits(self, task: Task) -> bool:
        """Return whether the core has SMMLA and the layer is a convolution."""
        return "matrix" in task.machine.has and isinstance(task.region[0], Conv2d)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of sums, which have two pixels and two channels each, and of other operands (two groups of K)."""
        pairs = -(-rows // 2)
        return pairs * columns // 2, 2 * pairs + 2

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        weight, *constants = super()._pack(task, knobs, parameters)
        return [weight, *doubled(task.layer, constants)]


class PairProduct(PairMatrix):
    """Accepts one int8 1×1 convolution of any stride without padding whose input channels are a multiple of 8.

    It rejects fully connected layers: with one pixel, half the products would be wasted, and `SDOT` is as fast.
    """

    name = "pair_product"
    rows, columns, usual = (1, 2, 4, 6, 8), (4, 8, 12, 16, 24, 32), (4, 16)

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return the register tile, with a loop over 16 input channels at a time."""
        return pair_tile(ends, a, c, depth, step)


def pair_tile(ends: IntegerEnds, a: Activation, c: Activation, depth: int, step: int = 1, laid_out: bool = False) -> IntegerPairTile:
    """Return the register tile of a product with `depth` bytes of K; `step` is in pixels of A."""
    pair_ends = PairEnds(ends.kernel, ends.layer, ends.buffers)
    return IntegerPairTile(ends.kernel, a, ends.buffers["weight"], c, 1, pair_ends, step, bytes=depth, laid_out=laid_out)
