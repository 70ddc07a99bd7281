"""Matrix products of integers with `SMMLA`: two pixels times two channels, over eight input channels at a time."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Activation, Buffer, Expr
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.integers.integer import LANES, IntegerEnds
from tvmmobile.schedules.integers.product import IntegerProduct, IntegerTile
from tvmmobile.schedules.space import Knobs

#: Bytes of a pixel, and of a channel's weights, that an instruction multiplies: half a vector.
GROUP = 8
_VECTOR = 2 * GROUP
_LOW, _HIGH = ([*range(first, first + GROUP), *range(first + _VECTOR, first + _VECTOR + GROUP)] for first in (0, GROUP))


@dataclass(frozen=True)
class PairTile(IntegerTile):
    """Tiles of sums of which a vector has two pixels' of two channels. K is counted in `GROUP`s.

    Attributes:
        bytes: of a pixel of A, whole groups.
    """

    bytes: int = 0

    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Loops over two groups at a time."""
        sums = self.kernel.sums(-(-rows // 2) * panel.width // 2)
        self._fill(sums, rows, panel.channel + index * panel.width, panel.width)
        self._accumulate(sums, row * self.bytes, rows, panel.width, weights * GROUP)
        return sums

    def _fill(self, sums: Buffer, rows: int, channel: Expr, width: int) -> None:
        """Begin the sums: each channel's for both pixels of a pair."""
        kernel = self.kernel
        for j in range(0, width, LANES):
            start = kernel.T.bind(self.epilogue.begin(channel + j))
            halves = [kernel.T.bind(kernel.T.Shuffle([start], lanes)) for lanes in ([0, 1, 0, 1], [2, 3, 2, 3])]
            for pair, (number, half) in itertools.product(range(0, rows, 2), enumerate(halves)):
                kernel.store(sums, half, self._sums_at(pair, j, width) + LANES * number, LANES)

    def _sums_at(self, pixel: int, channel: int, width: int) -> int:
        """Index of the sums of a pixel's pair and a channel's pair."""
        return pixel // 2 * 2 * width + channel // 2 * LANES

    def _accumulate(self, sums: Buffer, origin: Expr, rows: int, width: int, weights: Expr) -> None:
        """Add all products of pixels from a byte of A on with weights from a byte of W on."""
        steps, rest = divmod(self.bytes, _VECTOR)
        if steps > 1:
            with self.kernel.T.serial(0, steps) as step:
                self._step(sums, origin + step * _VECTOR, rows, width, weights + step * (2 * width * GROUP), 2)
        elif steps:
            self._step(sums, origin, rows, width, weights, 2)
        if rest:
            self._step(sums, origin + steps * _VECTOR, rows, width, weights + steps * (2 * width * GROUP), 1)

    def _step(self, sums: Buffer, origin: Expr, rows: int, width: int, weights: Expr, groups: int) -> None:
        """Add the products of one or two groups of K."""
        kernel, T = self.kernel, self.kernel.T  # noqa: N806
        pixels = [T.bind(kernel.bytes_at(self.a.buffer, origin + i * self.step * self.bytes, groups * GROUP)) for i in range(rows)]
        pairs = [(pixels[i], pixels[min(i + 1, rows - 1)]) for i in range(0, rows, 2)]
        for group in range(groups):
            lanes = (_LOW, _HIGH)[group] if groups == 2 else list(range(_VECTOR))
            values = [T.bind(T.Shuffle(list(pair), lanes)) for pair in pairs]
            for j in range(0, width, 2):
                weight = T.bind(kernel.bytes_at(self.w, weights + (group * width + j) * GROUP, _VECTOR))
                for number, value in enumerate(values):
                    place = self._sums_at(2 * number, j, width)
                    kernel.store(sums, kernel.pairs(kernel.load(sums, place, LANES), value, weight), place, LANES)

    def complete(self, sums: Buffer, pixel: int, width: int) -> list[Expr]:
        """A pixel's sums, in vectors of four channels."""
        kernel, first = self.kernel, 2 * (pixel % 2)
        lanes = [first, first + 1, first + LANES, first + LANES + 1]
        places = [self._sums_at(pixel, j, width) for j in range(0, width, LANES)]
        vectors = [[kernel.load(sums, place + LANES * number, LANES) for number in range(2)] for place in places]
        return [kernel.T.Shuffle(both, lanes) for both in vectors]


class PairProduct(IntegerProduct):
    """Takes one integer 1×1 convolution of any stride without padding whose input channels divide by 8.

    It does not take classifiers: with one pixel, half the products would be wasted, and `SDOT` does as many.
    """

    name = "pair_product"
    dot, group, element = True, GROUP, GROUP
    rows, columns, usual = (1, 2, 4, 6, 8), (4, 8, 12, 16), (8, 8)

    def suits(self, task: Task) -> bool:
        """Return whether a core has SMMLA and the layer is a convolution."""
        return "matrix" in task.machine.has and isinstance(task.region[0], Conv2d)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """A vector of sums has two pixels and two channels; those of two groups of pixels are there at once."""
        pairs = -(-rows // 2)
        return pairs * columns // 2, 2 * pairs + 2

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Loops of 16 input channels."""
        return PairTile(ends.kernel, a, ends.buffers["weight"], c, 1, ends, step, bytes=depth)
