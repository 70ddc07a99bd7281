"""Loops around the register tile of a matrix product: threads, then cache blocks of pixels, panels and K, then tiles."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tvmmobile.schedules.emit import Expr
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.space import Knobs

#: A range of equal pieces: first and one after the last.
Span = tuple[Expr, Expr]


@dataclass(frozen=True)
class Pixels:
    """Rows of the product: `lines` times `count` pixels.

    Attributes:
        origin: pixel of C to which the first one belongs.
        pitch: pixels of C from one line to the next.
        step, source_pitch: pixels of A from one of them to the next, and from one line to the next.
    """

    count: int
    lines: int = 1
    origin: Expr = 0
    pitch: int = 0
    step: int = 1
    source_pitch: int = 0


class MatmulNest:
    """The loops that `Pointwise`'s knobs describe.

    Args:
        knobs: at least `rows`; `k_block`, `m_block`, `n_block`, `outer`, `order` and `axis` are 0 where they are missing.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: Pixels, widths: list[Panel], threads: int) -> None:
        self.tile, self.pixels, self.widths, self.threads = tile, pixels, widths, threads
        self.kernel, self.T = tile.kernel, tile.kernel.T
        self.knobs = {"k_block": 0, "m_block": 0, "n_block": 0, "outer": 0, "order": 0, "axis": 0, **knobs}
        #: Whole pixel tiles of a line, and the pixels after them.
        self.tiles, self.rest = divmod(pixels.count, self.knobs["rows"])

    def emit(self) -> None:
        """The whole nest."""
        if self.threads == 1:
            self._panels(None)
            return
        with self.T.parallel(0, self.threads) as thread:
            self._panels(thread)

    def _panels(self, thread: Expr) -> None:
        """A thread's share: some of the tiles, or some of the panels; what cannot be shared falls to the last one."""
        by_pixels = self.knobs["axis"] == 0
        tiles = self._share(thread if by_pixels else None, self.tiles)
        for panel in self.widths:
            if by_pixels or panel.count > 1:
                # Weights are packed by blocks of panels, so that threads share whole blocks.
                size = self.knobs["n_block"] or 1
                first, last = self._share(None if by_pixels else thread, -(-panel.count // size))
                columns = first * size, panel.count if isinstance(last, int) else self.T.min(last * size, panel.count)
                self._outer(panel, columns, tiles, thread if by_pixels else None)
            else:
                # What cannot be shared falls to the last thread.
                with self.kernel.where(*([] if thread is None else [thread == self.threads - 1])):
                    self._outer(panel, (0, 1), tiles, None)

    def _outer(self, panel: Panel, panels: Span, tiles: Span, thread: Expr) -> None:
        """Blocks of pixels and of panels, in either order."""
        if self.knobs["outer"] == 0:
            with self._blocks(tiles, self.knobs["m_block"]) as rows, self._blocks(panels, self.knobs["n_block"]) as columns:
                self._depth(panel, columns, rows, self._ends(rows, tiles, thread))
        else:
            with self._blocks(panels, self.knobs["n_block"]) as columns, self._blocks(tiles, self.knobs["m_block"]) as rows:
                self._depth(panel, columns, rows, self._ends(rows, tiles, thread))

    def _depth(self, panel: Panel, columns: Span, rows: Span, ends: list[Expr]) -> None:
        """K blocks of one block of C."""
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
        """Tiles of one block, and the shorter one at the end of a line where the block has it."""
        height, lines = self.knobs["rows"], self.pixels.lines
        if self.tiles:
            if self.knobs["order"] == 0:
                with self._loop((0, lines)) as line, self._loop(rows) as i, self._loop(columns) as n:
                    self._tile(line, i * height, height, panel, columns, n, part)
            else:
                with self._loop(columns) as n, self._loop((0, lines)) as line, self._loop(rows) as i:
                    self._tile(line, i * height, height, panel, columns, n, part)
        if self.rest:
            with self.kernel.where(*ends), self._loop(columns) as n, self._loop((0, lines)) as line:
                self._tile(line, self.tiles * height, self.rest, panel, columns, n, part)

    def _tile(self, line: Expr, pixel: Expr, rows: int, panel: Panel, columns: Span, index: Expr, part: Extent) -> None:
        """`rows` pixels of a line, from `pixel` on, × one panel of a block."""
        pixels, weights = self.pixels, self._weights(panel, columns, index, part)
        target = pixels.origin + line * pixels.pitch + pixel
        self.tile.emit(line * pixels.source_pitch + pixel * pixels.step, target, rows, panel, index, part, weights)

    def _weights(self, panel: Panel, columns: Span, index: Expr, part: Extent) -> Expr:
        """Where a part of a panel begins in the packed weights."""
        depth = self.tile.depth
        if part.count == depth:
            return (panel.channel + index * panel.width) * depth
        first, last = columns if self.knobs["n_block"] else (0, panel.count)
        block = (panel.channel + first * panel.width) * depth + (last - first) * panel.width * part.start
        return block + (index - first) * panel.width * part.count

    def _ends(self, rows: Span, tiles: Span, thread: Expr) -> list[Expr]:
        """The conditions under which a block of tiles is a line's last."""
        last_block = [] if rows is tiles else [rows[1] == tiles[1]]
        return last_block + ([] if thread is None else [thread == self.threads - 1])

    def _share(self, thread: Expr, count: int) -> Span:
        """A thread's share of `count` equal pieces."""
        if thread is None:
            return 0, count
        return thread * count // self.threads, (thread + 1) * count // self.threads

    @contextmanager
    def _blocks(self, pieces: Span, size: int) -> Iterator[Span]:
        """A loop over blocks of `size` pieces, 0 for all of them at once; the last block may be shorter."""
        start, end = pieces
        known = isinstance(start, int) and isinstance(end, int)
        if not size or (known and size >= end - start):
            yield pieces
            return
        with self.T.serial(0, (end - start + size - 1) // size) as number:
            begin = start + number * size
            whole = known and (end - start) % size == 0
            yield begin, begin + size if whole else self.T.min(begin + size, end)

    @contextmanager
    def _loop(self, pieces: Span) -> Iterator[Expr]:
        """A loop over pieces."""
        start, end = pieces
        with self.kernel.loop(end - start) as index:
            yield start + index
