"""The loop nest around the register tile of a matrix product: threads, then cache blocks of pixels, panels and K, then tiles."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, parts_of, share
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.emit.pairs import GROUP, JoinedTile, PairTile, join_pixels
from tvmmobile.schedules.emit.small_weights import widened
from tvmmobile.schedules.space import Knobs, round_up, waste


@dataclass(frozen=True)
class Pixels:
    """The rows of the product: `lines` lines of `count` pixels.

    Attributes:
        origin: pixel of C that the first pixel is stored to.
        pitch: pixels of C from one line to the next.
        step, source_pitch: pixels of A from one pixel to the next, and from one line to the next.
    """

    count: int
    lines: int = 1
    origin: Expr = 0
    pitch: int = 0
    step: int = 1
    source_pitch: int = 0


def usual_axis(pixels: Pixels, channels: int, knobs: Knobs, threads: int) -> int:
    """Return the usual value of the knob `axis`: the one that shares the work more evenly among threads. Of equals it is 1, panels, if
    there are more channels than pixels, because each thread then reads weights of its own.
    """
    panel_count = -(-channels // knobs["columns"])
    blocks, tiles = -(-panel_count // (knobs.get("n_block") or 1)), max(1, pixels.count // knobs["rows"])
    uneven = waste(tiles, threads) - waste(blocks, threads)
    return int(uneven > 0 or (uneven == 0 and channels > pixels.count * pixels.lines))


class MatmulNest:
    """The loop nest that `Pointwise`'s knobs describe.

    Args:
        knobs: `rows` at least; `k_block`, `m_block`, `n_block`, `outer`, `order` and `axis` default to 0.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> None:
        self.tile, self.pixels, self.widths, self.threads = tile, pixels, widths, threads
        self.kernel, self.T = tile.kernel, tile.kernel.T
        self.knobs = {"k_block": 0, "m_block": 0, "n_block": 0, "outer": 0, "order": 0, "axis": 0, **knobs}
        #: Number of whole tiles in a line, and of pixels after them.
        self.tiles, self.rest = divmod(pixels.count, self.knobs["rows"])

    def emit(self) -> None:
        """Emit the whole nest."""
        with self.kernel.team(self.threads) as thread:
            self._panels(thread)

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share: some of the tiles, or some of the panels; the last thread gets the remainder."""
        by_pixels = self.knobs["axis"] == 0
        tiles = share(thread if by_pixels else None, self.threads, self.tiles)
        for panel in self.widths:
            if by_pixels or panel.count > 1:
                # Weights are packed in blocks of panels, so a thread's share is whole blocks.
                size = self.knobs["n_block"] or 1
                first, last = share(None if by_pixels else thread, self.threads, -(-panel.count // size))
                columns = first * size, panel.count if isinstance(last, int) else self.T.min(last * size, panel.count)
                self._outer(panel, columns, tiles, thread if by_pixels else None)
            else:
                # The remainder goes to the last thread.
                with self.kernel.where(*([] if thread is None else [thread == self.threads - 1])):
                    self._outer(panel, (0, 1), tiles, None)

    def _outer(self, panel: Panel, panels: Span, tiles: Span, thread: Expr) -> None:
        """Emit the loops over blocks of pixels and blocks of panels, in the order of the knob `outer`."""
        if self.knobs["outer"] == 0:
            with self._pixel_blocks(tiles, thread) as rows, self._blocks(panels, self.knobs["n_block"]) as columns:
                self._depth(panel, columns, rows, self._ends(rows, tiles, thread))
        else:
            with self._blocks(panels, self.knobs["n_block"]) as columns, self._blocks(tiles, self.knobs["m_block"]) as rows:
                self._depth(panel, columns, rows, self._ends(rows, tiles, thread))

    def _pixel_blocks(self, tiles: Span, thread: Expr) -> AbstractContextManager[Span]:
        """Return the loop over blocks of pixels, for nests where it encloses the loop over blocks of panels."""
        del thread
        return self._blocks(tiles, self.knobs["m_block"])

    def _depth(self, panel: Panel, columns: Span, rows: Span, ends: list[Expr]) -> None:
        """Emit the K blocks of one block of C."""
        depth, block = self.tile.depth, self.knobs["k_block"]
        if not block or block >= depth:
            self._block(panel, columns, rows, ends, Extent(0, depth, True, True))
            return
        blocks = -(-depth // block)
        self._block(panel, columns, rows, ends, Extent(0, block, True, False))
        if blocks > 2:
            with self.T.serial(0, blocks - 2) as middle:
                self._block(panel, columns, rows, ends, Extent((middle + 1) * block, block, False, False))
        done = (blocks - 1) * block
        self._block(panel, columns, rows, ends, Extent(done, depth - done, False, True))

    def _block(self, panel: Panel, columns: Span, rows: Span, ends: list[Expr], part: Extent) -> None:
        """Emit the tiles of one block, and the shorter tile at the end of a line under the conditions `ends`."""
        height, lines = self.knobs["rows"], self.pixels.lines
        if self.tiles:
            if self.knobs["order"] == 0:
                with self.kernel.loop(lines) as line, self.kernel.span(*rows) as i, self.kernel.span(*columns) as n:
                    self._tile(line, i * height, height, panel, columns, n, part)
            else:
                with self.kernel.span(*columns) as n, self.kernel.loop(lines) as line, self.kernel.span(*rows) as i:
                    self._tile(line, i * height, height, panel, columns, n, part)
        if self.rest:
            with self.kernel.where(*ends), self.kernel.span(*columns) as n, self.kernel.loop(lines) as line:
                self._tile(line, self.tiles * height, self.rest, panel, columns, n, part)

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        """Emit one tile: `rows` pixels of a line, from `pixel` on, × panel `index` of the block `columns`."""
        pixels, weights = self.pixels, self._weights(panel, columns, index, part)
        target = pixels.origin + line * pixels.pitch + pixel
        self.tile.emit(line * pixels.source_pitch + pixel * pixels.step, target, rows, panel, index, part, weights)

    def _weights(self, panel: Panel, columns: Span, index: Expr, part: Extent) -> Expr:
        """Return the index in the packed weights of a part of a panel."""
        depth = self.tile.depth
        if part.count == depth:
            return (panel.channel + index * panel.width) * depth
        first, last = columns if self.knobs["n_block"] else (0, panel.count)
        block = (panel.channel + first * panel.width) * depth + (last - first) * panel.width * part.start
        return block + (index - first) * panel.width * part.count

    def _ends(self, rows: Span, tiles: Span, thread: Expr) -> list[Expr]:
        """Return the conditions under which a block of tiles is the last of a line."""
        last_block = [] if rows is tiles else [rows[1] == tiles[1]]
        return last_block + ([] if thread is None else [thread == self.threads - 1])

    @contextmanager
    def _blocks(self, pieces: Span, size: int) -> Iterator[Span]:
        """Emit a loop over blocks of `size` pieces, 0 for all of them at once; yield each block. The last block may be shorter."""
        start, end = pieces
        is_static = isinstance(start, int) and isinstance(end, int)
        if not size or (is_static and size >= end - start):
            yield pieces
            return
        with self.T.serial(0, (end - start + size - 1) // size) as number:
            begin = start + number * size
            whole = is_static and (end - start) % size == 0
            yield begin, begin + size if whole else self.T.min(begin + size, end)


class ScaledNest(MatmulNest):
    """`MatmulNest` for A[pixel, k] · gate[k], for weights in fewer bits, or for both.

    Each block of weights is multiplied by the gate into a buffer that all tiles of the block read. This takes K × N multiplications per
    block of pixels; scaling A would take pixels × K per block of panels, and a buffer in another layout. Weights in fewer bits are widened
    into the buffer; `gate` is `None` if they are only widened.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int, gate: Buffer | None) -> None:
        super().__init__(tile, knobs, pixels, widths, threads)
        self.gate, self.packed = gate, tile.w

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share, with a buffer per thread."""
        depth, columns = self.tile.depth, self.knobs["n_block"]
        widest = max(min(columns or panel.count, panel.count) * panel.width for panel in self.widths)
        self.tile = replace(self.tile, w=self.kernel.scratch(widest * min(self.knobs["k_block"] or depth, depth)))
        super()._panels(thread)

    def _block(self, panel: Panel, columns: Span, rows: Span, ends: list[Expr], part: Extent) -> None:
        """Emit the scaling of the block's weights, then its tiles."""
        with self.kernel.span(*columns) as index:
            self._scale(super()._weights(panel, columns, index, part), self._weights(panel, columns, index, part), panel.width, part)
        super()._block(panel, columns, rows, ends, part)

    def _weights(self, panel: Panel, columns: Span, index: Expr, part: Extent) -> Expr:
        """Return the index in the block's buffer of a part of a panel."""
        return (index - columns[0]) * (panel.width * part.count)

    def _scale(self, source: Expr, target: Expr, width: int, part: Extent) -> None:
        """Emit the scaling of a part of one panel, a vector of K at a time."""
        lanes = self.kernel.lanes
        if self.gate is None:
            self._widen(source, target, width * part.count)
            return
        if isinstance(self.tile, PairTile):
            self._scale_groups(source, target, width, part)
            return
        steps, rest = divmod(part.count, lanes)
        if steps:
            with self.kernel.loop(steps) as step:
                gate = self.kernel.load(self.gate, part.start + step * lanes)
                for lane in range(lanes):
                    self._scale_row(source, target, width, step * lanes + lane, self.kernel.lane(gate, lane))
        for row in range(steps * lanes, steps * lanes + rest):
            self._scale_row(source, target, width, row, self.kernel.splat(self.kernel.load(self.gate, part.start + row, 1)))

    def _widen(self, source: Expr, target: Expr, count: int) -> None:
        """Emit the widening of `count` weights, a multiple of the lanes."""
        kernel = self.kernel
        for size, times, first in parts_of(count, 8 * kernel.lanes, kernel.lanes):
            with kernel.pieces(first, times, size) as place:
                for number, weights in enumerate(widened(kernel, self.packed, source + place, size)):
                    kernel.store(self.tile.w, weights, target + place + number * kernel.lanes)

    def _scale_groups(self, source: Expr, target: Expr, width: int, part: Extent) -> None:
        """Emit the scaling of a part of one panel whose weights are interleaved in groups of K."""
        kernel = self.kernel
        with kernel.loop(part.count // GROUP) as step:
            gate = kernel.T.bind(kernel.load(self.gate, part.start + step * GROUP, GROUP))
            for channel in range(width):
                place = (step * width + channel) * GROUP
                kernel.store(self.tile.w, kernel.load(self.packed, source + place, GROUP) * gate, target + place, GROUP)

    def _scale_row(self, source: Expr, target: Expr, width: int, row: Expr, factor: Expr) -> None:
        """Emit the scaling of one K step."""
        for column in range(0, width, self.kernel.lanes):
            place = row * width + column
            self.kernel.store(self.tile.w, self.kernel.load(self.packed, source + place) * factor, target + place)


class PreparedNest(MatmulNest, ABC):
    """`MatmulNest` that packs each block of pixels into a buffer in another format, once for all panels.

    Attributes:
        source: the pixels before packing.
        first: index of the block's first tile.
        most_tiles: largest number of tiles in a block, including the shorter one at the end of a line.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> None:
        super().__init__(tile, {**knobs, "outer": 0}, pixels, widths, threads)
        self.source, self.first = tile.a, 0
        every, block = self.tiles + bool(self.rest), self.knobs["m_block"]
        self.most_tiles = min(block + bool(self.rest), every) if block else every

    @contextmanager
    def _pixel_blocks(self, tiles: Span, thread: Expr) -> Iterator[Span]:
        """Emit the loop over blocks of pixels, each prepared first."""
        with super()._pixel_blocks(tiles, thread) as rows:
            self.first = rows[0]
            with self.kernel.loop(self.pixels.lines) as line:
                if self.tiles:
                    with self.kernel.span(*rows) as tile:
                        self.prepare(line, tile, self.knobs["rows"])
                if self.rest:
                    with self.kernel.where(*self._ends(rows, tiles, thread)):
                        self.prepare(line, self.tiles, self.rest)
            yield rows

    @abstractmethod
    def prepare(self, line: Expr, tile: Expr, count: int) -> None:
        """Emit the preparation of one tile of a line, of `count` pixels."""


class JoinedNest(PreparedNest):
    """`PreparedNest` over a single line for products in bfloat16: its preparation interleaves the pixels of a tile in pairs."""

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> None:
        super().__init__(tile, knobs, pixels, widths, threads)
        self.tile_rows = round_up(knobs["rows"], 2)

    def _panels(self, thread: Expr) -> None:
        """Emit a thread's share, with a buffer per thread."""
        depth, rows = self.source.channels, self.tile_rows * self.most_tiles
        joined = Activation(self.kernel.scratch(rows * depth), rows // 2, 2 * depth, 2 * depth)
        self.tile = JoinedTile(**{**vars(self.tile), "a": joined})
        super()._panels(thread)

    def prepare(self, line: Expr, tile: Expr, count: int) -> None:
        """Interleave the pixels of a tile in pairs; the last of an odd number is paired with itself."""
        del line  # there is one
        for row in range(0, count, 2):
            pixel, place = tile * self.knobs["rows"] + row, (tile - self.first) * self.tile_rows + row
            pair = pixel, pixel + min(1, count - 1 - row)
            join_pixels(self.kernel, self.source, pair, self.tile.a.buffer, place * self.source.channels)

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        weights = self._weights(panel, columns, index, part)
        joined = (pixel // self.knobs["rows"] - self.first) * self.tile_rows
        self.tile.emit(joined, self.pixels.origin + pixel, rows, panel, index, part, weights)
