"""Int8 convolutions of any window with `SMMLA`: the windows of two pixels are packed interleaved, so that tiles need no permutations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Expr, parts_of
from tvmmobile.schedules.emit.matmul import MatmulTile, Panel
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.integers.ends import IntegerEnds
from tvmmobile.schedules.integers.pairs import GROUP, PairMatrix, joined_pair, pair_tile
from tvmmobile.schedules.integers.window import IntegerWindow, IntegerWindowNest, Place, is_window
from tvmmobile.schedules.space import Knobs

#: Vectors per pixel that one iteration of the packing loop handles.
_UNROLLED = 4


class PairWindow(IntegerWindow, PairMatrix):
    """Accepts one int8 convolution of any window, including 1×1 with any number of input channels, on cores with SMMLA."""

    name = "pair_window"
    rows, columns, usual = (2, 4, 6, 8), (4, 8, 12, 16, 24), (4, 16)

    def covers(self, task: Task) -> bool:
        """Return whether a task is a convolution that image templates do not accept."""
        return is_window(task)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of sums, which have two pixels and two channels each, and of other operands."""
        pairs = -(-rows // 2)
        return pairs * columns // 2, pairs + 2

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return the register tile, whose loop reads packed pairs of pixels."""
        return pair_tile(ends, a, c, depth, laid_out=True)

    def nest(self, ends: IntegerEnds, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> MatmulNest:
        """Return the loop nest around the tile, which packs windows first."""
        assert isinstance(ends.layer, Conv2d)
        return PairNest(ends, ends.layer, self.depth_of(ends.layer), tile, knobs, pixels, widths, threads)


class PairNest(IntegerWindowNest):
    """`IntegerWindowNest` whose windows are packed in pairs of pixels, interleaved by groups of K."""

    together = 2

    def _lay_out(self, first: Expr, last: Expr) -> None:
        """Emit the windows of pixels [first, last); those of plain 1×1 convolutions, two pixels at a time."""
        layer = self.layer
        if layer.groups > 1 or layer.in_channels % GROUP or layer.kernel != (1, 1) or layer.stride != (1, 1) or any(layer.padding):
            super()._lay_out(first, last)
            return
        with self.kernel.span(0, (last - first + 1) // 2) as pair:
            pixels = first + 2 * pair, self.T.min(first + 2 * pair + 1, last - 1)
            sources = [pixel * layer.in_channels for pixel in pixels]
            for groups, count, start in parts_of(layer.in_channels // GROUP, 2 * _UNROLLED, 2, 1):
                with self.kernel.loop(count) as part:
                    for place in range(0, groups, 2):
                        self._pair(sources, pair * (2 * self.pitch), start + part * groups + place, min(groups, 2))

    def _pair(self, sources: Sequence[Expr], target: Expr, first: Expr, groups: int) -> None:
        """Emit one or two groups of K, from group `first` on, of the two pixels that begin at `sources` in the input."""
        kernel = self.ends.kernel
        values = [self.T.bind(kernel.bytes_at(self.ends.buffers["data"], source + first * GROUP, groups * GROUP)) for source in sources]
        for group in range(groups):
            place = target + (first + group) * (2 * GROUP)
            kernel.store(self.windows, joined_pair(kernel, values, group, groups), place, 2 * GROUP)

    def _lanes(self, count: int) -> int:
        """Return the number of bytes that can be stored at once without crossing a group, wherever a window's channels begin."""
        return math.gcd(self.depth, GROUP)

    def _at(self, target: Place, place: Expr) -> Expr:
        """Return the index of a byte of a window in the buffer."""
        pixel, *offsets = target
        offset = sum(offsets, place)
        window = pixel // 2 * (2 * self.pitch) + pixel % 2 * GROUP
        if self.depth % GROUP == 0:
            return window + 2 * offset
        return window + offset // GROUP * (2 * GROUP) + offset % GROUP
