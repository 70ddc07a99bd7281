"""Estimates the cost of a blocked matrix product from its multiplications and cache traffic, to rank candidates; reports do not use it.

Data that a loop reuses is assumed to stay in L1 if it fits there in total.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.in_order_order import TileShape, inner_order
from tvmmobile.schedules.emit.pairs import conv_group
from tvmmobile.schedules.space import Knobs, round_up

LINE_BYTES = 64
#: Overhead of a tile in vector multiply-adds: for each K block, and for bias and clamp.
PER_K_BLOCK, PER_TILE = 3.5, 20.0
#: In-order loops: time per accumulator to add a chain's sum to that of all chains, in registers and in memory, and per chain in memory.
PER_SUM, PER_SUM_IN_MEMORY, PER_CHAIN = 1.5, 4.0, 30.0
#: With fewer independent accumulators than this, a K step waits for the one before.
LATENCY_BOUND = 8
#: Time to store a vector of two pixels' interleaved values, in vector multiply-adds.
PER_JOINED_VECTOR = 2.0
#: Time to multiply a vector of weights by its gate, dominated by the store.
PER_SCALED_VECTOR = 2.0


def reading(machine: Machine, size: int, again: float, blocks: float, passes: bool) -> float:
    """Return the time to read a matrix of `size` bytes `again` times for each of the other matrix's `blocks`.

    If `passes`, the whole matrix is read between two blocks, and comes from memory again if it exceeds the caches.
    """
    return size / LINE_BYTES * again * blocks * (machine.line_again(size) if passes and blocks > 1 else machine.line_read)


@dataclass(frozen=True)
class MatrixProduct:
    """Estimated time of C = A · W, in vector multiply-adds: cycles on a core that issues one per cycle.

    Attributes:
        pixels, depth, channels: extents M, K and N.
        scaled: true if W is multiplied by a gate, or widened, into a buffer.
        lanes, bytes: elements per vector, and bytes per element.
        machine: the core.
        group: products per lane and instruction.
        chain: most terms in a chain of sums, 0 for any number, see `Precision`.
    """

    pixels: int
    depth: int
    channels: int
    scaled: bool
    lanes: int
    bytes: int
    machine: Machine
    group: int = 1
    chain: int = 0

    @classmethod
    def of(cls, layer: Conv2d, task: Task) -> MatrixProduct:
        """Return the product that computes a 1×1 convolution."""
        pixels, bytes_each = layer.out_height * layer.out_width, task.precision.bytes
        group = conv_group(layer, task)
        scaled, chain = layer.scaled or layer.weights != "", task.precision.chain
        return cls(pixels, layer.in_channels, layer.out_channels, scaled, task.lanes, bytes_each, task.machine, group, chain)

    @property
    def line(self) -> int:
        """Elements per cache line."""
        return LINE_BYTES // self.bytes

    def cycles(self, knobs: Knobs) -> float:
        """Return the estimated time with these knobs of `Pointwise`, on one thread."""
        return self.multiplying(knobs["rows"], knobs["columns"], knobs["k_block"], knobs.get("joined", 0)) + self.moving(knobs)

    @property
    def least(self) -> float:
        """Time of the multiplications alone, a lower bound."""
        return self.pixels * self.depth * self.channels / (self.lanes * self.group)

    def may_join(self, knobs: Knobs) -> bool:
        """Return whether a block's joined pixels fit L1."""
        return self._stay(min((knobs["m_block"] * knobs["rows"]) or self.pixels, self.pixels) * self.depth)

    def multiplying(self, rows: int, columns: int, k_block: int, joined: int = 0) -> float:
        """Return the time of the multiplications, with edge tiles and each tile's overhead."""
        tiles, rest = divmod(self.pixels, rows)
        panels, narrow = divmod(self.channels, columns)
        steps = -(-self.depth // (k_block or self.depth))
        cycles = 0.0
        for height, row_tiles in ((rows, tiles), (rest, 1 if rest else 0)):
            for width, column_tiles in ((columns, panels), (round_up(narrow, self.lanes), 1 if narrow else 0)):
                accumulators = height * width // self.lanes
                step = self._step(height, width // self.lanes)
                partial = max(PER_K_BLOCK, accumulators * self.machine.stores_multiply)
                if self.group > 1:  # an instruction interleaves two pixels' values; sums are permuted and narrowed
                    step, partial = round_up(height, 2) * width / self.lanes + (0 if joined else height / 2), 3.0 * accumulators
                tile = max(step, LATENCY_BOUND) * self.depth / self.group + steps * partial + PER_TILE
                cycles += tile * row_tiles * column_tiles
        return cycles + (PER_JOINED_VECTOR * self.pixels * self.depth / (2 * self.group) if joined else 0)

    def _step(self, rows: int, vectors: int) -> float:
        """Return the time of a K step; in an order of our own, with its share of adding chains."""
        order = inner_order(self.machine, self.lanes)
        if not order:
            return rows * vectors
        shape = TileShape(rows, vectors, order == 2, self.lanes, 0 < self.chain < self.depth)
        if not shape.chained:
            return shape.cycles / self.lanes
        adding = PER_SUM * shape.accumulators if shape.fits else PER_SUM_IN_MEMORY * shape.accumulators + PER_CHAIN
        return shape.cycles / self.lanes + adding / self.chain

    def moving(self, knobs: Knobs) -> float:
        """Return the time for the cache lines of A, W and C that are read and written.

        Reused data is still in L1 if it fits there together with the data touched in between.
        """
        rows, columns = knobs["rows"], knobs["columns"]
        m = min((knobs["m_block"] * rows) or self.pixels, self.pixels)
        n = min((knobs["n_block"] * columns) or self.channels, self.channels)
        k = min(knobs["k_block"] or self.depth, self.depth)
        one_tile, one_panel = min(rows, m) * k, k * min(columns, n)
        again_w = 1.0 if self._stay(k * n, one_tile, rows * n) else max(m / rows, 1)
        again_a = 1.0 if self._stay(one_tile, one_panel) else max(n / columns, 1)
        # The outer loop's data stays in L1 across the inner loop, or is read again, from L2 if it fits there.
        blocks_a, blocks_w = self.channels / n, self.pixels / m
        if knobs["outer"] == 0 and self._stay(m * self.depth, k * n, m * n):
            blocks_a = 1.0
        if knobs["outer"] == 1 and self._stay(n * self.depth, m * k, m * n):
            blocks_w = 1.0
        size_a, size_w = self.pixels * self.depth * self.bytes, self.channels * self.depth * self.bytes
        written = self.pixels * self.channels / self.line
        again_c = 0.0 if self._stay(m * n, m * k, k * n) else self.depth / k - 1
        return (
            reading(self.machine, size_a, again_a, blocks_a, knobs["outer"] == 1)
            + reading(self.machine, size_w, again_w, blocks_w, knobs["outer"] == 0)
            + written * (again_c * self.machine.line_read + self.machine.line_written)
            + (self._scaling(k * n, self.pixels / m) if self.scaled else 0)
        )

    def _scaling(self, block: float, times: float) -> float:
        """Return the time to multiply all weights by their gate `times` times, block by block into a buffer."""
        weights = self.depth * self.channels
        missed = 0.0 if self._stay(block, block) else weights / self.line * self.machine.line_written
        return times * (weights / self.lanes * PER_SCALED_VECTOR + missed)

    def _stay(self, *elements: float) -> bool:
        """Return whether these numbers of elements fit L1 together."""
        return sum(elements) * self.bytes <= self.machine.resident_bytes
