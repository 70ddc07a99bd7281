"""A matrix product whose A has a factor for each K: each block of weights is multiplied by them before the pixels pass it."""

from __future__ import annotations

from dataclasses import replace

from tvmmobile.schedules.emit import Buffer, Expr
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.matmul_nest import MatmulNest, Pixels, Span
from tvmmobile.schedules.space import Knobs


class ScaledNest(MatmulNest):
    """`MatmulNest`'s loops, for A[pixel, k] · gate[k].

    A block of weights is multiplied into a buffer of its size, which every tile of the block then reads: K × N multiplications for each
    block of pixels, where A itself would take pixels × K for each block of panels, and a buffer of its own in another order.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int, gate: Buffer) -> None:
        super().__init__(tile, knobs, pixels, widths, threads)
        self.gate, self.packed = gate, tile.w

    def _panels(self, thread: Expr) -> None:
        """A thread's share, with a buffer of its own."""
        depth, columns = self.tile.depth, self.knobs["n_block"]
        widest = max(min(columns or panel.count, panel.count) * panel.width for panel in self.widths)
        self.tile = replace(self.tile, w=self.kernel.scratch(widest * min(self.knobs["k_block"] or depth, depth)))
        super()._panels(thread)

    def _block(self, panel: Panel, columns: Span, rows: Span, ends: list[Expr], part: Extent) -> None:
        """Multiplies the block's weights, then its tiles."""
        with self._loop(columns) as index:
            self._scale(super()._weights(panel, columns, index, part), self._weights(panel, columns, index, part), panel.width, part)
        super()._block(panel, columns, rows, ends, part)

    def _weights(self, panel: Panel, columns: Span, index: Expr, part: Extent) -> Expr:
        """Where a part of a panel begins in the block's buffer."""
        return (index - columns[0]) * (panel.width * part.count)

    def _scale(self, source: Expr, target: Expr, width: int, part: Extent) -> None:
        """Multiplies a part of one panel, a vector of K at a time."""
        lanes = self.kernel.lanes
        steps, rest = divmod(part.count, lanes)
        if steps:
            with self.kernel.loop(steps) as step:
                gate = self.kernel.load(self.gate, part.start + step * lanes)
                for lane in range(lanes):
                    self._scale_row(source, target, width, step * lanes + lane, self.kernel.lane(gate, lane))
        for row in range(steps * lanes, steps * lanes + rest):
            self._scale_row(source, target, width, row, self.kernel.splat(self.gate[part.start + row]))

    def _scale_row(self, source: Expr, target: Expr, width: int, row: Expr, factor: Expr) -> None:
        """One step of K."""
        for column in range(0, width, self.kernel.lanes):
            place = row * width + column
            self.kernel.store(self.tile.w, self.kernel.load(self.packed, source + place) * factor, target + place)
