"""Integer convolutions of any window with `SMMLA`: windows of two pixels are laid out together, so that nothing is permuted afterwards."""

from __future__ import annotations

import math

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Activation, Expr
from tvmmobile.schedules.emit.matmul import MatmulTile, Panel
from tvmmobile.schedules.emit.matmul_nest import MatmulNest, Pixels
from tvmmobile.schedules.integers.image import is_image
from tvmmobile.schedules.integers.integer import IntegerEnds, takes
from tvmmobile.schedules.integers.pairs import GROUP, PairMatrix, pair_tile
from tvmmobile.schedules.integers.window import IntegerWindow, Place, WindowNest
from tvmmobile.schedules.space import Knobs


class PairWindow(IntegerWindow, PairMatrix):
    """Takes one integer convolution with windows, or 1×1 of any input channels, on cores with SMMLA."""

    name = "pair_window"
    rows, columns, usual = (2, 4, 6, 8), (4, 8, 12, 16, 24), (4, 16)

    def covers(self, task: Task) -> bool:
        """Return whether a task is a convolution that templates for images do not take."""
        layer = task.region[0]
        return isinstance(layer, Conv2d) and takes(task, writes=("", "float32")) and layer.groups == 1 and not is_image(layer)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """A vector of sums has two pixels and two channels."""
        pairs = -(-rows // 2)
        return pairs * columns // 2, pairs + 2

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Loops of 16 terms."""
        return pair_tile(ends, a, c, depth, laid_out=True)

    def nest(self, ends: IntegerEnds, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> MatmulNest:
        """The loops around a tile, which lay windows out first."""
        assert isinstance(ends.layer, Conv2d)
        return PairNest(ends, ends.layer, self.depth_of(ends.layer), tile, knobs, pixels, widths, threads)


class PairNest(WindowNest):
    """`WindowNest`'s loops, for windows of which groups of K of two pixels follow each other."""

    together = 2

    def _lanes(self, count: int) -> int:
        """Bytes of one group that are stored at once, wherever channels of a window begin."""
        return math.gcd(self.layer.in_channels, GROUP)

    def _at(self, target: Place, place: Expr) -> Expr:
        """Index of a byte in the buffer."""
        pixel, *offsets = target
        offset = sum(offsets, place)
        window = pixel // 2 * (2 * self.pitch) + pixel % 2 * GROUP
        if self.layer.in_channels % GROUP == 0:
            return window + 2 * offset
        return window + offset // GROUP * (2 * GROUP) + offset % GROUP
