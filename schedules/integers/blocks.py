"""Estimates the cache traffic of an int8 product's blocks, to rank loop orders.

A cache line holds 16 float channels, which one or two panels write completely; but it holds 64 int8 channels, of which a panel of four
writes a sixteenth. So it matters whether the output lines of a block's pixels stay in L1 until the other panels write them, and in an L1 of
few ways they do not if they map to few sets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvmmobile.graph.machine import Machine
from tvmmobile.schedules.emit.matmul_cost import LINE_BYTES, reading
from tvmmobile.schedules.space import Knobs

#: Overhead of an innermost loop, in vector multiply-adds.
PER_LOOP = 8.0


@dataclass(frozen=True)
class Blocks:
    """The traffic of C = A · W in int8.

    Attributes:
        pixels, depth, channels: extents M, K and N; K in bytes.
        machine: the core.
    """

    pixels: int
    depth: int
    channels: int
    machine: Machine

    def moving(self, knobs: Knobs) -> float:
        """Return the time for the cache lines of A, W and C, in vector multiply-adds, with these knobs of `IntegerProduct`."""
        rows, columns, depth = knobs["rows"], knobs["columns"], self.depth
        m = min((knobs["m_block"] * rows) or self.pixels, self.pixels)
        n = min((knobs["n_block"] * columns) or self.channels, self.channels)
        panel, tile = columns * depth, rows * depth
        if knobs["order"] == 0:
            again_w = 1.0 if self._stay(n * depth, tile, rows * max(n, LINE_BYTES)) else m / rows
            again_a = 1.0 if self._stay(tile, panel) else n / columns
        else:
            again_w = 1.0 if self._stay(tile, panel) else m / rows
            again_a = 1.0 if self._stay(m * depth, panel) and self._stay(m * LINE_BYTES, panel) else n / columns
        # The outer loop's data stays in L1 across the inner loop, or is read again.
        blocks_a, blocks_w = self.channels / n, self.pixels / m
        if knobs["outer"] == 0 and self._stay(m * depth, n * depth):
            blocks_a = 1.0
        if knobs["outer"] == 1 and self._stay(n * depth, m * depth):
            blocks_w = 1.0
        read_a = reading(self.machine, self.pixels * depth, again_a, blocks_a, knobs["outer"] == 1)
        read_w = reading(self.machine, self.channels * depth, again_w, blocks_w, knobs["outer"] == 0)
        inner = self.pixels / rows * self.channels / n if knobs["order"] == 0 else self.pixels / m * self.channels / columns
        return read_a + read_w + self._written(knobs, m, n) + PER_LOOP * inner

    def _written(self, knobs: Knobs, m: int, n: int) -> float:
        """Return the time for the lines of C, written in parts: by panels if pixel tiles are innermost, and by blocks of panels."""
        parts = min(n, LINE_BYTES) / knobs["columns"] if knobs["order"] else 1.0
        blocks = max(LINE_BYTES / n, 1.0) if n < self.channels else 1.0
        panels_held, blocks_held = self._held(m, knobs["columns"]), self._held(self.pixels if knobs["outer"] else m, n)
        again = (parts - 1) * (not panels_held) + (blocks - 1) * (not blocks_held)
        return self.pixels * self.channels / LINE_BYTES * (self.machine.line_written + again * self._line_rewritten)

    @property
    def _line_rewritten(self) -> float:
        """Time to write to a line that is in L2: out-of-order cores with an L3 hide the write and only read the line."""
        hidden = self.machine.l3_bytes and not self.machine.in_order
        return self.machine.line_read if hidden else self.machine.line_written

    def _held(self, pixels: int, channels: int) -> bool:
        """Return whether L1 keeps an output line of each pixel while all pixels are multiplied by one set of weights and the next."""
        sets = self.machine.l1d_bytes // (LINE_BYTES * self.machine.l1d_ways)
        reached = sets // math.gcd(sets, max(self.channels // LINE_BYTES, 1))
        return pixels < reached * self.machine.l1d_ways and self._stay(pixels * LINE_BYTES, pixels * self.depth, 2 * channels * self.depth)

    def _stay(self, *sizes: float) -> bool:
        """Return whether these numbers of bytes fit L1 together."""
        return sum(sizes) <= self.machine.resident_bytes
