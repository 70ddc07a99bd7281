"""What a blocked matrix product costs by counting: multiplications, and the lines that its cache blocks move. For ranking, not for reports.

The first-level cache is thought of as holding whatever a loop comes back to, if all of that together is small enough.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.schedules.machine import LANES, round_up
from tvmmobile.schedules.space import Knobs

FLOAT_BYTES, LINE_FLOATS = 4, 16
#: What can be counted on to stay in 32 KiB of two ways.
RESIDENT_BYTES = 24576
#: Cycles that a line costs beyond the instruction that asks for it: read from the second level, and written (calibrated Cortex-A72).
LINE_READ, LINE_WRITTEN = 5.3, 42.0
#: Independent accumulators below which a step of K waits for the one before.
LATENCY_BOUND = 8


@dataclass(frozen=True)
class Product:
    """Extents of C = A · W: pixels × K × channels."""

    pixels: int
    depth: int
    channels: int

    def cycles(self, knobs: Knobs) -> float:
        """Estimated cycles with `Pointwise`'s knobs, on one thread."""
        return self.multiplying(knobs["rows"], knobs["columns"], knobs["k_block"]) + self.moving(knobs)

    @property
    def least(self) -> float:
        """Cycles of the multiplications alone."""
        return self.pixels * self.depth * self.channels / LANES

    def multiplying(self, rows: int, columns: int, k_block: int) -> float:
        """Cycles of the multiplications, with those of the tiles at the edges, and of what begins and ends a tile."""
        tiles, rest = divmod(self.pixels, rows)
        panels, narrow = divmod(self.channels, columns)
        steps = -(-self.depth // (k_block or self.depth))
        cycles = 0.0
        for height, row_tiles in ((rows, tiles), (rest, 1 if rest else 0)):
            for width, column_tiles in ((columns, panels), (round_up(narrow, LANES), 1 if narrow else 0)):
                accumulators = height * width // LANES
                tile = max(accumulators, LATENCY_BOUND) * self.depth + steps * (10 + 0.5 * accumulators)
                cycles += tile * row_tiles * column_tiles
        return cycles

    def moving(self, knobs: Knobs) -> float:
        """Cycles of the lines of A, W and C that come and go."""
        m = min((knobs["m_block"] * knobs["rows"]) or self.pixels, self.pixels)
        n = min((knobs["n_block"] * knobs["columns"]) or self.channels, self.channels)
        k = min(knobs["k_block"] or self.depth, self.depth)
        blocks_m, blocks_n, blocks_k = self.pixels / m, self.channels / n, self.depth / k
        part_a, part_w, part_c = m * k, k * n, m * n
        one_panel, one_tile = k * min(knobs["columns"], n), min(knobs["rows"], m) * k
        # What a block comes back to: all its weights and a tile of A, or all its A and a panel of weights; and C, between K blocks.
        kept_c = part_c if blocks_k > 1 else 0
        inner = part_w + one_tile if knobs["order"] == 0 else part_a + one_panel
        stays = (inner + kept_c) * FLOAT_BYTES <= RESIDENT_BYTES
        read_a, read_w = float(part_a), float(part_w)
        if not stays and knobs["order"] == 0:
            read_w *= max(m / knobs["rows"], 1)
        if not stays and knobs["order"] == 1:
            read_a *= max(n / knobs["columns"], 1)
        lines = (read_a + read_w) / LINE_FLOATS * blocks_m * blocks_n * blocks_k
        if blocks_k == 1:
            # The outer loop's part of A or W stays while the inner one's passes.
            kept = part_a if knobs["outer"] == 0 else part_w
            if (kept + min(one_panel, one_tile)) * FLOAT_BYTES <= RESIDENT_BYTES:
                lines -= kept / LINE_FLOATS * (blocks_m * blocks_n - (blocks_m if knobs["outer"] == 0 else blocks_n))
        stored = self.pixels * self.channels / LINE_FLOATS
        if blocks_k > 1 and not stays:
            lines += stored * (blocks_k - 1)
            stored *= blocks_k
        return lines * LINE_READ + stored * LINE_WRITTEN
