"""The register tile of a matrix product: `rows` pixels × `columns` channels accumulated over K, weights packed in panels."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from tvmmobile.graph.layers import Array
from tvmmobile.graph.machine import Machine
from tvmmobile.graph.precision import BFLOAT16
from tvmmobile.schedules.emit.activations import Activation, Piece
from tvmmobile.schedules.emit.epilogue import Ends, Spot, scattered
from tvmmobile.schedules.emit.in_order_loop import InOrderLoop
from tvmmobile.schedules.emit.in_order_order import K_STEPS, TileShape
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.space import round_up


@dataclass(frozen=True)
class Panel:
    """Panels of equal width: consecutive output channels whose weights lie together.

    Attributes:
        count: number of panels, one after another.
        columns: channels in a panel that exist.
        channel: first output channel.
        width: channels with the padding to whole vectors.
    """

    count: int
    columns: int
    channel: int
    width: int


def panels(channels: int, width: int, lanes: int) -> list[Panel]:
    """Return the panels of `width` channels, whole vectors of `lanes`, then a narrower one for what remains."""
    whole, rest = divmod(channels, width)
    found = [Panel(whole, width, 0, width)] if whole else []
    if rest:
        found.append(Panel(1, rest, whole * width, round_up(rest, lanes)))
    return found


def packed_elements(channels: int, width: int, depth: int, lanes: int) -> int:
    """Return the elements of (depth, channels) weights in panels of `width` channels."""
    return depth * sum(panel.count * panel.width for panel in panels(channels, width, lanes))


def pack_panels(weight: Array, width: int, lanes: int, k_block: int = 0, n_block: int = 0, group: int = 1) -> Array:
    """Pack (K, N) weights as [block of panels][K block][panel][K][width], the last panel narrower, padded with zeros to whole vectors.

    So each cache block's weights are contiguous, and the next block's follow. Pieces of panels a whole K apart would displace each other
    in a first-level cache of two ways.

    Args:
        weight: (K, N).
        width: channels per panel.
        lanes: lanes of a vector.
        k_block: K per block, the last one shorter; 0 for all of K.
        n_block: panels per block; 0 for all of them. The narrower panel is a block of its own.
        group: K that lie together for each channel, in bfloat16, see `Precision.group`; divides K.

    Returns a flat array.
    """
    depth, channels = weight.shape
    pieces = []
    for panel in panels(channels, width, lanes):
        for block in range(0, panel.count, n_block or panel.count):
            for start in range(0, depth, k_block or depth):
                part = weight[start : start + (k_block or depth)]
                for index in range(block, min(block + (n_block or panel.count), panel.count)):
                    first = panel.channel + index * panel.width
                    piece = np.zeros((len(part), panel.width), weight.dtype)
                    piece[:, : panel.columns] = part[:, first : first + panel.columns]
                    pieces.append(piece.reshape(-1, group, panel.width).transpose(0, 2, 1).ravel())
    packed = np.concatenate(pieces)
    return packed if group == 1 else packed.astype(BFLOAT16.numpy)


def good_tile(machine: Machine, lanes: int, rows: int, columns: int, pixels: int, channels: int) -> bool:
    """Return whether a tile fits the registers and hides its multiplications' latency, as far as pixels and channels allow."""
    vectors = columns // lanes
    most = min(pixels, machine.registers) * round_up(channels, lanes) // lanes
    # Per step the tile holds its accumulators, one vector of A per row and at least one of W.
    return min(machine.accumulators, most // 2) <= rows * vectors <= machine.registers - rows - min(vectors, 2)


#: Pixels of register tiles that only in-order cores try: their loops' cycles are 79 % multiplications on a
#: Cortex-A53 and 95 % on a Cortex-A55, with 7 pixels 78 and 93 %.
TALL = (8, 9)


def tile_rows(machine: Machine, rows: tuple[int, ...]) -> tuple[int, ...]:
    """Return the pixels of register tiles of two vectors on a core; all cores have `rows`."""
    return tuple(sorted({*rows, *TALL})) if machine.in_order else rows


#: Most passes of a loop over K that chained sums do not split. With separate ends LLVM makes one block of such a loop, and spills:
#: eight lanes are as many steps, so that 32 channels are four passes. In float32 they are eight.
FEW = 4


@dataclass(frozen=True)
class Extent:
    """A part of K.

    Attributes:
        start, count: first step and how many.
        first, last: whether accumulators begin as the epilogue says (else with the values in C), and whether it finishes them.
    """

    start: Expr
    count: int
    first: bool
    last: bool


def depth_blocks(kernel: Kernel, depth: int, block: int) -> Iterator[AbstractContextManager[Extent]]:
    """Yield the blocks of K that need different code, the last one perhaps shorter: the first, those between in a loop, the last."""
    count = -(-depth // block)
    yield _depth_block(kernel, 0, 1, block if count > 1 else depth, True, count == 1)
    if count > 2:
        yield _depth_block(kernel, block, count - 2, block, False, False)
    if count > 1:
        yield _depth_block(kernel, (count - 1) * block, 1, depth - (count - 1) * block, False, True)


@contextmanager
def _depth_block(kernel: Kernel, start: int, count: int, size: int, first: bool, last: bool) -> Iterator[Extent]:
    with kernel.pieces(start, count, size) as at:
        yield Extent(at, size, first, last)


@dataclass(frozen=True)
class MatmulTile:
    """Emits register tiles of one matrix product C[pixel, n] = epilogue(Σ_k A[pixel, k] · W[k, n]).

    Attributes:
        a, c: the matrices A and C, with K and N channels.
        w: a flat buffer, packed by `pack_panels`.
        unroll: K steps per loop iteration, whole vectors.
        step: pixels of A from one row of the tile to the next.
        shift: pixels of the layer's output before those that C holds.
        pieces: the activations that A consists of, K after K; empty if it is a single one.
        apart: true if sums are so long that parts of no more terms than a chain (see `Precision`) are added up apart, too.
    """

    kernel: Kernel
    a: Activation
    w: Buffer
    c: Activation
    unroll: int
    epilogue: Ends
    step: int = 1
    shift: Expr = 0
    pieces: tuple[Piece, ...] = ()
    apart: bool = False

    @property
    def depth(self) -> int:
        """K."""
        return sum(piece.count for piece in self.pieces) if self.pieces else self.a.channels

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile.

        Args:
            row, target, rows: first pixel of A, first pixel of C, and number of pixels.
            panel, index: the kind of panel, and the panel's index among those of its kind.
            part: the part of K, inside one of A's blocks or covering whole ones.
            weights: the element of W that this part of the panel begins at.
        """
        acc = self.kernel.accumulators(rows * panel.width)
        spots = self.spots(target, rows, panel, index)
        self.epilogue.fill(acc, spots, None if part.first else self.c.buffer)
        self.accumulate(acc, row, rows, panel.width, weights, part, alike=part.first and self.epilogue.begins_alike)
        self.epilogue.drain(acc, spots, self.c.buffer, part.last)

    def spots(self, target: Expr, rows: int, panel: Panel, index: Expr) -> list[Spot]:
        """Return the vectors of a tile, with `emit`'s arguments, pixel after pixel."""
        channel = panel.channel + index * panel.width
        return [self._spot(target, i, panel, channel, j) for i in range(rows) for j in range(0, panel.width, self.kernel.lanes)]

    def _spot(self, target: Expr, i: int, panel: Panel, channel: Expr, j: int) -> Spot:
        """Return a vector of the tile."""

        def place(c: Activation, first: Expr) -> Expr:
            if c.in_line and c.block % panel.width == 0 and panel.channel % panel.width == 0:
                return c.at(first, channel) + i * c.block + j
            return c.at(first + i, channel + j)

        lanes = self.kernel.lanes
        shifted = partial(place, first=target + self.shift)
        lane = scattered(self.c, target + i, channel + j, lanes)
        return Spot(channel + j, place(self.c, target), shifted, lanes, min(lanes, panel.columns - j), lane)

    def accumulate(
        self,
        acc: Buffer,
        row: Expr,
        rows: int,
        width: int,
        weights: Expr,
        part: Extent,
        first: int = 0,
        alike: bool = False,
        blank: bool = False,
    ) -> None:
        """Emit acc[first .. first + rows] += A[row .. row + rows, part] · W[part]; = where `acc` is blank.

        If A consists of pieces, the part must be all of K.

        The first and last steps are peeled off the loops, so that loading and storing C overlaps with multiplying: with 64 steps
        a tile takes 1.5 % more than its multiplications rather than 4 %.
        """
        if self.pieces:
            self._in_pieces(acc, row, rows, width, weights, part, first, alike)
        else:
            self._sum(acc, row, rows, width, weights, part, first, alike, blank)

    def _sum(
        self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, part: Extent, first: int, alike: bool, blank: bool
    ) -> None:
        """Emit the terms of `accumulate` where A is in one piece."""
        if self.kernel.chain and (self.kernel.chain < part.count or (self.apart and not blank)):
            self._in_chains(acc, row, rows, width, weights, part, first)
            return
        block = min(self.a.block, part.count)
        places = partial(self._place, row, weights, part, first, block)
        loop = self._in_order(rows, width, part.count, block, alike) if self.kernel.inner else None
        if loop:
            if blank:
                self.kernel.fill(acc, self.kernel.number(0.0), rows * width // self.kernel.lanes)
            start = places(0)
            self.kernel.call(loop.symbol, loop.llvm, (acc, first * width), (self.a.buffer, start.origin), (self.w, weights))
            self._steps(acc, start, rows, width, loop.passes * K_STEPS, part.count)
        elif block == part.count:
            self._one_block(acc, places(0), rows, width, block, blank)
        else:
            self._blocks(acc, places, rows, width, block, part.count // block, blank)

    def _place(self, row: Expr, weights: Expr, part: Extent, first: int, block: int, number: Expr) -> _Place:
        """Return the place of a block of A."""
        return _Place(self.a.at(row, part.start + number * block), weights, number * block, first)

    def _one_block(self, acc: Buffer, place: _Place, rows: int, width: int, block: int, blank: bool) -> None:
        """Emit the terms of `accumulate` with all of K in one block of A."""
        if self.kernel.chain and block <= FEW * self.unroll:
            if blank and block > self.unroll:
                self.kernel.fill(acc, self.kernel.number(0.0), rows * width // self.kernel.lanes)
            self._steps(acc, place, rows, width, 0, block, blank and block <= self.unroll)
            return
        ends = min(self.unroll, block)
        self._steps(acc, place, rows, width, 0, ends, blank)
        rest = (block - ends) % self.unroll or self.unroll
        self._steps(acc, place, rows, width, ends, max(block - rest, ends))
        self._steps(acc, place, rows, width, max(block - rest, ends), block)

    def _blocks(self, acc: Buffer, places: Callable[[Expr], _Place], rows: int, width: int, block: int, blocks: int, blank: bool) -> None:
        """Emit the terms of `accumulate` block by block of A."""
        self._steps(acc, places(0), rows, width, 0, min(self.unroll, block), blank)
        self._steps(acc, places(0), rows, width, min(self.unroll, block), block)
        if blocks > 2:
            with self.kernel.T.serial(0, blocks - 2) as number:
                self._steps(acc, places(number + 1), rows, width, 0, block)
        self._steps(acc, places(blocks - 1), rows, width, 0, block - self.unroll)
        self._steps(acc, places(blocks - 1), rows, width, max(block - self.unroll, 0), block)

    def _in_pieces(self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, part: Extent, first: int, alike: bool) -> None:
        """Emit the terms of `accumulate` piece by piece of A."""
        for piece in self.pieces:
            alone = replace(self, a=piece.activation, pieces=())
            own = replace(part, start=piece.first, count=piece.count)
            alone.accumulate(acc, row, rows, width, weights, own, first, alike and piece is self.pieces[0])
            weights = weights + piece.count * self.pitch(width)

    def _in_chains(self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, part: Extent, first: int) -> None:
        """Emit the terms of `accumulate` in separate sums of `Kernel.chain` terms, or of whole blocks of A; the last one may be shorter."""
        kernel, lanes = self.kernel, self.kernel.lanes
        chain = kernel.chain if self.a.block >= part.count else max(kernel.chain // self.a.block, 1) * self.a.block
        whole, rest = divmod(part.count, chain)

        def add(number: Expr, count: int) -> None:
            sums = kernel.accumulators(rows * width)
            own = replace(part, start=part.start + number * chain, count=count)
            self.accumulate(sums, row, rows, width, weights + number * chain * self.pitch(width), own, blank=True)
            for place in range(0, rows * width, lanes):
                total = first * width + place
                kernel.store(acc, kernel.load(acc, total) + kernel.load(sums, place), total)

        if whole:
            with kernel.loop(whole) as number:
                add(number, chain)
        if rest:
            add(whole, rest)

    def _in_order(self, rows: int, width: int, count: int, block: int, alike: bool) -> InOrderLoop | None:
        """Return the loop over `count` steps of K, in blocks of A, in our own instruction order; `None` if it has no such form."""
        blocks, lanes, size = count // block, self.kernel.lanes, self.kernel.bytes
        if (blocks > 1 and block % K_STEPS) or not TileShape.fits(rows, width // lanes):
            return None
        row_bytes, step_bytes = self.step * self.a.block * size, self.pitch(width) * size
        jump = (self.a.pixels * self.a.block - block + K_STEPS) * size
        blocked = (block // K_STEPS, jump) if blocks > 1 else (0, 0)
        shape = TileShape(rows, width // lanes, self.kernel.inner == 2)
        loop = InOrderLoop(shape, count // K_STEPS, row_bytes, step_bytes, *blocked, alike=alike)
        return loop if loop.fits else None

    def _steps(self, acc: Buffer, place: _Place, rows: int, width: int, first: int, last: int, blank: bool = False) -> None:
        """Emit steps `first` to `last` of a block of A; of a blank `acc` no more than are unrolled."""
        whole, rest = divmod(max(last - first, 0), self.unroll)
        if whole > 1:
            with self.kernel.T.serial(0, whole) as step:
                self._multiply(acc, place, rows, width, first + step * self.unroll, self.unroll)
        elif whole:
            self._multiply(acc, place, rows, width, first, self.unroll, blank)
        if rest:
            self._multiply(acc, place, rows, width, first + whole * self.unroll, rest, blank and not whole)

    def _multiply(self, acc: Buffer, place: _Place, rows: int, width: int, step: Expr, count: int, blank: bool = False) -> None:
        """Emit `count` steps, unrolled; A is read a vector of K values at a time. The first one of a blank `acc` adds to nothing."""
        load, data, vector = self.kernel.load, self.a.buffer, self.kernel.lanes
        for begin in range(0, count, vector):
            lanes = min(vector, count - begin)
            source = [place.origin + i * (self.step * self.a.block) + step + begin for i in range(rows)]
            for lane in range(lanes):
                weights = place.weights + (place.done + step + begin + lane) * self.pitch(width)
                for j, w in self._weights(weights, width):
                    for i in range(rows):
                        whole = lanes == vector or self.padded
                        a = self.kernel.lane(load(data, source[i]), lane) if whole else self.kernel.splat(load(data, source[i] + lane, 1))
                        position = (place.row + i) * width + j
                        begins = blank and begin + lane == 0
                        total = w * a if begins else self.kernel.multiply_add(load(acc, position), w, a)
                        self.kernel.store(acc, total, position)

    def _weights(self, begin: Expr, width: int) -> Iterator[tuple[int, Expr]]:
        """Yield the vectors of a step's weights, which begin there in W, each with its first column."""
        for j in range(0, width, self.kernel.lanes):
            yield j, self.kernel.load(self.w, begin + j)

    @property
    def padded(self) -> bool:
        """True if reads may go beyond a pixel's last K, up to a whole vector."""
        return False

    def pitch(self, width: int) -> int:
        """Return the elements of W from one step of K to the next, in a panel of `width` channels."""
        return width


@dataclass(frozen=True)
class _Place:
    """The operands of one block of A: where its steps begin.

    Attributes:
        origin: the first row's, in A.
        weights: the panel's part, in W.
        done: steps of the part before this block.
        row: row of the accumulators.
    """

    origin: Expr
    weights: Expr
    done: Expr
    row: int
