"""The register tile of a matrix product: `rows` pixels × `columns` channels accumulated over K, with weights packed in panels."""

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
from tvmmobile.schedules.emit.in_order_order import TileShape
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.space import round_up


@dataclass(frozen=True)
class Panel:
    """Consecutive panels of equal width; a panel holds the packed weights of consecutive output channels.

    Attributes:
        count: number of panels.
        columns: output channels per panel, without padding.
        channel: first output channel of the first panel.
        width: columns per panel, padded to whole vectors.
    """

    count: int
    columns: int
    channel: int
    width: int


def panels(channels: int, width: int, lanes: int) -> list[Panel]:
    """Return the panels of `width` channels (a multiple of `lanes`), then a narrower panel for the remaining channels."""
    whole, rest = divmod(channels, width)
    groups = [Panel(whole, width, 0, width)] if whole else []
    if rest:
        groups.append(Panel(1, rest, whole * width, round_up(rest, lanes)))
    return groups


def packed_elements(channels: int, width: int, depth: int, lanes: int) -> int:
    """Return the number of elements of (depth, channels) weights packed in panels of `width` channels."""
    return depth * sum(panel.count * panel.width for panel in panels(channels, width, lanes))


def pack_panels(weight: Array, width: int, lanes: int, k_block: int = 0, n_block: int = 0, group: int = 1) -> Array:
    """Pack (K, N) weights as [block of panels][K block][panel][K][width]; the last panel may be narrower, zero-padded to whole vectors.

    Each cache block's weights are contiguous. Parts of panels a whole K apart would evict each other from a two-way L1 cache.

    Args:
        weight: (K, N).
        width: channels per panel.
        lanes: lanes per vector.
        k_block: K per block; the last block may be shorter; 0 for all of K.
        n_block: panels per block; 0 for all of them. The narrower panel is a block of its own.
        group: consecutive K per channel, interleaved for bfloat16, see `Precision.group`; divides K.

    Returns a flat array, in bfloat16 if `group` exceeds 1.
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
    """Return whether a tile fits the registers and hides the latency of FMLAs, as far as the numbers of pixels and channels allow."""
    vectors = columns // lanes
    most = min(pixels, machine.registers) * round_up(channels, lanes) // lanes
    # In each K step the tile holds its accumulators, one vector of A per row and at least one of W.
    return min(machine.accumulators, most // 2) <= rows * vectors <= machine.registers - rows - min(vectors, 2)


#: Values of `rows` that only in-order cores try: 79 % of their loops' cycles issue an FMLA on a Cortex-A53 and 95 % on a Cortex-A55,
#: against 78 and 93 % with 7 rows.
TALL = (8, 9)


def tile_rows(machine: Machine, rows: tuple[int, ...]) -> tuple[int, ...]:
    """Return the values of the knob `rows` for tiles two vectors wide: those of `rows`, and `TALL` on in-order cores."""
    return tuple(sorted({*rows, *TALL})) if machine.in_order else rows


#: Most iterations of a K loop whose ends are not peeled in kernels with chained sums. LLVM would turn so short a loop with peeled ends into
#: one basic block, and spill: with eight lanes an iteration has eight K steps, so that 32 channels are four iterations (eight in float32).
FEW = 4


@dataclass(frozen=True)
class Extent:
    """A part of K.

    Attributes:
        start, count: first K step and number of K steps.
        first: true if the epilogue initialises the accumulators; else they are loaded from C.
        last: true if the epilogue finishes the accumulators; else they are stored to C as partial sums.
    """

    start: Expr
    count: int
    first: bool
    last: bool


def depth_blocks(kernel: Kernel, depth: int, block: int) -> Iterator[AbstractContextManager[Extent]]:
    """Yield contexts that emit the blocks of K: the first, a loop over the middle ones, and the last, which may be shorter."""
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
class TileSums:
    """The accumulators of a register tile, or of some of its rows.

    Attributes:
        registers: accumulators of the whole tile, row after row.
        rows, width: number of rows, each of a pixel, and of columns.
        first: first of the tile's rows.
    """

    registers: Buffer
    rows: int
    width: int
    first: int = 0

    @property
    def start(self) -> int:
        """Index of the first sum."""
        return self.first * self.width

    @property
    def count(self) -> int:
        """Number of sums."""
        return self.rows * self.width


@dataclass(frozen=True)
class MatmulTile:
    """Emits register tiles of one matrix product C[pixel, n] = epilogue(Σ_k A[pixel, k] · W[k, n]).

    Attributes:
        a, c: matrices A (pixels × K channels) and C (pixels × N channels).
        w: weights W in a flat buffer, packed by `pack_panels`.
        unroll: K steps per loop iteration, a multiple of the lanes.
        step: pixels of A from one row of the tile to the next.
        shift: pixels of the layer's output before the first one in C.
        pieces: slices that A is the concatenation of along K; empty if A is a single activation.
        apart: true if even parts no longer than a chain (see `Precision`) are summed separately, because all sums are long.
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
        """K, the length of the reduction."""
        return sum(piece.count for piece in self.pieces) if self.pieces else self.a.channels

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """Emit one tile.

        Args:
            row, target, rows: first pixel of A, first pixel of C, and number of pixels.
            panel, index: group of panels, and index of the panel in the group.
            part: part of K, inside one channel block of A or covering whole blocks.
            weights: index in W of the first weight of this part of the panel.
        """
        sums = self.new_sums(rows, panel.width)
        spots = self.spots(target, rows, panel, index)
        self.epilogue.fill(sums.registers, spots, None if part.first else self.c.buffer)
        self.accumulate(sums, row, weights, part, alike=part.first and self.epilogue.begins_alike)
        self.epilogue.drain(sums.registers, spots, self.c.buffer, part.last)

    def new_sums(self, rows: int, width: int) -> TileSums:
        """Return new accumulators of a tile."""
        return TileSums(self.kernel.accumulators(rows * width), rows, width)

    def spots(self, target: Expr, rows: int, panel: Panel, index: Expr) -> list[Spot]:
        """Return the spots of a tile, pixel after pixel; the arguments are those of `emit`."""
        channel = panel.channel + index * panel.width
        return [self._spot(target, i, panel, channel, j) for i in range(rows) for j in range(0, panel.width, self.kernel.lanes)]

    def _spot(self, target: Expr, i: int, panel: Panel, channel: Expr, j: int) -> Spot:
        """Return the spot of the tile's row `i` at column `j` of the panel."""

        def place(c: Activation, first: Expr) -> Expr:
            if c.in_line and c.block % panel.width == 0 and panel.channel % panel.width == 0:
                return c.at(first, channel) + i * c.block + j
            return c.at(first + i, channel + j)

        lanes = self.kernel.lanes
        shifted = partial(place, first=target + self.shift)
        lane = scattered(self.c, target + i, channel + j, lanes)
        return Spot(channel + j, place(self.c, target), shifted, lanes, min(lanes, panel.columns - j), lane)

    def accumulate(self, sums: TileSums, row: Expr, weights: Expr, part: Extent, *, alike: bool = False, blank: bool = False) -> None:
        """Emit sums += A[row : row + sums.rows, part] · W[part], or `=` if `blank`.

        If A consists of pieces, the part must be all of K. `alike` says that all rows begin with the same sums.

        The first and last steps are peeled off the loops, so that loads and stores of C overlap with multiplications: with 64 K steps,
        a tile takes 1.5 % longer than its multiplications rather than 4 %.
        """
        if self.pieces:
            self._in_pieces(sums, row, weights, part, alike)
        else:
            self._sum(sums, row, weights, part, alike, blank)

    def _sum(self, sums: TileSums, row: Expr, weights: Expr, part: Extent, alike: bool, blank: bool) -> None:
        """Emit the terms of `accumulate` for an A without pieces."""
        chained = self.kernel.chain > 0 and (self.kernel.chain < part.count or (self.apart and not blank))
        block = min(self.a.block, part.count)
        places = partial(self._place, row, weights, part, block)
        loop = self._in_order(sums, part.count, block, alike, chained) if self.kernel.inner else None
        if chained and not loop:
            self._in_chains(sums, row, weights, part)
            return
        if loop:
            if blank:
                self._clear(sums)
            start = places(0)
            self.kernel.call(loop.symbol, loop.llvm, (sums.registers, sums.start), (self.a.buffer, start.origin), (self.w, weights))
            self._steps(sums, start, loop.passes * loop.shape.steps, part.count)
        elif block == part.count:
            self._one_block(sums, places(0), block, blank)
        else:
            self._blocks(sums, places, block, part.count // block, blank)

    def _clear(self, sums: TileSums) -> None:
        """Set all accumulators of a tile to zero."""
        self.kernel.fill(sums.registers, self.kernel.number(0.0), sums.count // self.kernel.lanes)

    def _place(self, row: Expr, weights: Expr, part: Extent, block: int, number: Expr) -> _Place:
        """Return where the operands of channel block `number` of A begin."""
        return _Place(self.a.at(row, part.start + number * block), weights, number * block)

    def _one_block(self, sums: TileSums, place: _Place, block: int, blank: bool) -> None:
        """Emit the terms of `accumulate` for a part of K inside one channel block of A."""
        if self.kernel.chain and block <= FEW * self.unroll:
            if blank and block > self.unroll:
                self._clear(sums)
            self._steps(sums, place, 0, block, blank and block <= self.unroll)
            return
        ends = min(self.unroll, block)
        self._steps(sums, place, 0, ends, blank)
        rest = (block - ends) % self.unroll or self.unroll
        self._steps(sums, place, ends, max(block - rest, ends))
        self._steps(sums, place, max(block - rest, ends), block)

    def _blocks(self, sums: TileSums, places: Callable[[Expr], _Place], block: int, blocks: int, blank: bool) -> None:
        """Emit the terms of `accumulate`, channel block by channel block of A."""
        self._steps(sums, places(0), 0, min(self.unroll, block), blank)
        self._steps(sums, places(0), min(self.unroll, block), block)
        if blocks > 2:
            with self.kernel.T.serial(0, blocks - 2) as number:
                self._steps(sums, places(number + 1), 0, block)
        self._steps(sums, places(blocks - 1), 0, block - self.unroll)
        self._steps(sums, places(blocks - 1), max(block - self.unroll, 0), block)

    def _in_pieces(self, sums: TileSums, row: Expr, weights: Expr, part: Extent, alike: bool) -> None:
        """Emit the terms of `accumulate`, piece by piece of A."""
        for piece in self.pieces:
            piece_tile = replace(self, a=piece.activation, pieces=())
            piece_part = replace(part, start=piece.first, count=piece.count)
            piece_tile.accumulate(sums, row, weights, piece_part, alike=alike and piece is self.pieces[0])
            weights = weights + piece.count * self.pitch(sums.width)

    def _in_chains(self, sums: TileSums, row: Expr, weights: Expr, part: Extent) -> None:
        """Emit the terms of `accumulate` as separate sums of `Kernel.chain` terms, or of whole channel blocks; the last may be shorter."""
        kernel, lanes = self.kernel, self.kernel.lanes
        chain = kernel.chain if self.a.block >= part.count else max(kernel.chain // self.a.block, 1) * self.a.block
        whole, rest = divmod(part.count, chain)

        def add(number: Expr, count: int) -> None:
            linked = self.new_sums(sums.rows, sums.width)
            link = replace(part, start=part.start + number * chain, count=count)
            self.accumulate(linked, row, weights + number * chain * self.pitch(sums.width), link, blank=True)
            for place in range(0, sums.count, lanes):
                total = sums.start + place
                kernel.store(sums.registers, kernel.load(sums.registers, total) + kernel.load(linked.registers, place), total)

        if whole:
            with kernel.loop(whole) as number:
                add(number, chain)
        if rest:
            add(whole, rest)

    def _in_order(self, sums: TileSums, count: int, block: int, alike: bool, chained: bool) -> InOrderLoop | None:
        """Return the loop over `count` K steps with our own instruction order, or `None` if an `InOrderLoop` cannot express it."""
        blocks, lanes, size = count // block, self.kernel.lanes, self.kernel.bytes
        shape = TileShape(sums.rows, sums.width // lanes, self.kernel.inner == 2, lanes, chained)
        if (blocks > 1 and block % lanes) or not shape.fits:
            return None
        row_bytes, step_bytes = self.step * self.a.block * size, self.pitch(sums.width) * size
        jump = (self.a.pixels * self.a.block - block + lanes) * size
        blocked = (block // lanes, jump) if blocks > 1 else (0, 0)
        chain = self.kernel.chain // lanes if chained else 0
        loop = InOrderLoop(shape, count // lanes, row_bytes, step_bytes, *blocked, alike, self.kernel.has_words, chain)
        return loop if loop.fits else None

    def _steps(self, sums: TileSums, place: _Place, first: int, last: int, blank: bool = False) -> None:
        """Emit K steps `first` to `last` of a channel block of A; if `blank`, at most `unroll` of them."""
        whole, rest = divmod(max(last - first, 0), self.unroll)
        if whole > 1:
            with self.kernel.T.serial(0, whole) as step:
                self._multiply(sums, place, first + step * self.unroll, self.unroll)
        elif whole:
            self._multiply(sums, place, first, self.unroll, blank)
        if rest:
            self._multiply(sums, place, first + whole * self.unroll, rest, blank and not whole)

    def _multiply(self, sums: TileSums, place: _Place, step: Expr, count: int, blank: bool = False) -> None:
        """Emit `count` K steps, unrolled; A is loaded a vector of K values at a time. If `blank`, the first step overwrites the sums."""
        load, data, vector = self.kernel.load, self.a.buffer, self.kernel.lanes
        for begin in range(0, count, vector):
            lanes = min(vector, count - begin)
            source = [place.origin + i * (self.step * self.a.block) + step + begin for i in range(sums.rows)]
            for lane in range(lanes):
                weights = place.weights + (place.done + step + begin + lane) * self.pitch(sums.width)
                for j, w in self._weights(weights, sums.width):
                    for i in range(sums.rows):
                        whole = lanes == vector or self.padded
                        a = self.kernel.lane(load(data, source[i]), lane) if whole else self.kernel.splat(load(data, source[i] + lane, 1))
                        position = sums.start + i * sums.width + j
                        begins = blank and begin + lane == 0
                        total = w * a if begins else self.kernel.multiply_add(load(sums.registers, position), w, a)
                        self.kernel.store(sums.registers, total, position)

    def _weights(self, begin: Expr, width: int) -> Iterator[tuple[int, Expr]]:
        """Yield the weights of one K step, from index `begin` of W on, as (first column, vector)."""
        for j in range(0, width, self.kernel.lanes):
            yield j, self.kernel.load(self.w, begin + j)

    @property
    def padded(self) -> bool:
        """True if A is padded so that a pixel's last K values may be loaded as a whole vector."""
        return False

    def pitch(self, width: int) -> int:
        """Return the distance in elements between consecutive K steps of a panel of `width` channels in W."""
        return width


@dataclass(frozen=True)
class _Place:
    """Where the operands of one channel block of A begin.

    Attributes:
        origin: index in A of the first row's first value.
        weights: index in W of the part's first weight.
        done: K steps of the part before this block.
    """

    origin: Expr
    weights: Expr
    done: Expr
