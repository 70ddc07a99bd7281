"""Winograd's variant of Strassen's algorithm: a product of 2×2 blocks as seven products of sums, in an order that saves sums and memory.

S. Winograd's variant of V. Strassen, "Gaussian elimination is not optimal", 1969: seven products, four sums of blocks of A, four of W
(computed once, on the host), and sums of the products. These sums are formed in place: a product is accumulated onto one block of C, its
base, and the base's value is then added to the other blocks that need it.

The loop nest: K blocks, then pixel blocks, each with a sum of blocks of A in scratch memory and the tiles that read it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import gcd
from typing import Any

from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.epilogue import Spot
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Span, share
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, depth_blocks
from tvmmobile.schedules.space import Knobs

#: A block of a 2×2 partition: (row, column).
Block = tuple[int, int]
#: Blocks with their signs, 1 or -1.
Terms = tuple[tuple[Block, int], ...]

_11, _12, _21, _22 = (0, 0), (0, 1), (1, 0), (1, 1)


@dataclass(frozen=True)
class SubProduct:
    """One product of a sum of blocks of A and a sum of blocks of W, and the blocks of C that it is added to.

    Attributes:
        a: blocks of A to add.
        previous: sign with which the previous step's sum of blocks of A is added, too; 0 to leave it out.
        w: blocks of W to add.
        base: block of C that the product is accumulated onto; a block's first product initialises it.
        copies: blocks of C that the base's value is added to once the product is complete.
    """

    a: Terms
    previous: int
    w: Terms
    base: Block
    copies: tuple[Block, ...] = ()


#: The steps, in groups; a group's steps run together for each block of K and pixels. No base in the second row depends on blocks of C in
#: the first row, so the row that the first half may lack need not be computed there. A block is usually still in L2 at its next use.
GROUPS = (
    (SubProduct(((_11, 1),), 0, ((_11, 1),), _21, (_11,)),),
    (SubProduct(((_12, 1),), 0, ((_21, 1),), _11),),
    (
        SubProduct(((_21, 1), (_22, 1)), 0, ((_12, 1), (_11, -1)), _22, (_12,)),
        SubProduct(((_11, -1),), 1, ((_22, 1), (_12, -1), (_11, 1)), _21, (_12,)),
        SubProduct(((_12, 1),), -1, ((_22, 1),), _12),
    ),
    (SubProduct(((_11, 1), (_21, -1)), 0, ((_22, 1), (_12, -1)), _21, (_22,)),),
    (SubProduct(((_22, 1),), 0, ((_21, 1), (_22, -1), (_12, 1), (_11, -1)), _21),),
)
STEPS = tuple(step for group in GROUPS for step in group)


def finishes(step: SubProduct, block: Block) -> bool:
    """Return whether a block of C is complete after this step."""
    return block in (step.base, *step.copies) and not any(block in (later.base, *later.copies) for later in STEPS[STEPS.index(step) + 1 :])


#: Most elements of a sum that are computed without a loop.
CHUNK = 32


@dataclass(frozen=True)
class _Rows:
    """Consecutive rows (pixels) in both halves.

    Attributes:
        start, count: first row and number of rows.
        place: first row in the scratch buffer.
        short: true if the last row does not exist in the first half.
    """

    start: Expr
    count: Expr
    place: Expr
    short: bool = False


@dataclass(frozen=True)
class _Product:
    """A step for one part of K.

    Attributes:
        weights: index of the first weight of its panels.
        initialised: blocks of C that already hold values.
    """

    step: SubProduct
    part: Extent
    weights: Expr
    initialised: frozenset[Block]


def emit_strassen(tile: MatmulTile, knobs: Knobs, threads: int) -> None:
    """Emit the whole product of the tile's `a` into its `c`, with the knobs of `Strassen`. Threads share parts, or panels of each part."""
    size = -(-tile.a.pixels // knobs["parts"])
    whole, rest = divmod(tile.a.pixels, size)
    by_parts = knobs["axis"] == 1
    nests = [StrassenNest(tile, knobs, count) for count in (size, rest) if count]
    with tile.kernel.team(threads) as thread:
        scratch = tile.kernel.scratch(max(nest.scratch_elements for nest in nests))
        panels = share(None if by_parts else thread, threads, nests[0].panels)
        begin, end = share(thread if by_parts else None, threads, whole)
        with tile.kernel.loop(end - begin) as part:
            nests[0].emit((begin + part) * size, panels, scratch)
        if rest:
            with tile.kernel.where(*([thread == threads - 1] if by_parts and thread is not None else [])):
                nests[1].emit(whole * size, panels, scratch)


class StrassenNest:
    """Emits Strassen's seven products for one part of the pixels.

    Pixels, K and output channels are halved. With an odd number of pixels, the first half lacks its last row, which counts as zeros in A
    and is not stored to C.
    """

    def __init__(self, tile: MatmulTile, knobs: Knobs, pixels: int) -> None:
        self.tile, self.kernel = tile, tile.kernel
        self.short, self.rows = pixels // 2, -(-pixels // 2)
        self.depth, self.channels = tile.a.channels // 2, tile.c.channels // 2
        self.height, self.width = knobs["rows"], knobs["columns"]
        #: Number of whole tiles in a half, and of rows after them, including the one that the first half may lack.
        self.tiles = self.short // self.height
        self.rest = self.rows - self.tiles * self.height
        #: Panels are counted in groups of `n_block`.
        self.n_block = gcd(knobs["n_block"], self.channels // self.width)
        self.panels = self.channels // self.width // self.n_block
        self.m_block = min(knobs["m_block"] or self.tiles, self.tiles)
        self.k_block = min(knobs["k_block"] or self.depth, self.depth)
        self.scratch_elements = (self.m_block * self.height + self.rest) * self.k_block
        self.origin: Expr = 0

    def emit(self, origin: Expr, panels: Span, scratch: Buffer) -> None:
        """Emit all seven products for groups of panels [first, end), from pixel `origin` on."""
        self.origin = origin
        weights: Expr = 0
        initialised: set[Block] = set()
        for group in GROUPS:
            for blocks in depth_blocks(self.kernel, self.depth, self.k_block):
                with blocks as part:
                    products = []
                    for number, step in enumerate(group):
                        place = weights + (part.start * len(group) + number * part.count) * self.channels
                        products.append(_Product(step, part, place, frozenset(initialised)))
                        initialised |= {step.base, *(step.copies if part.last else ())}
                    self._pixels(products, panels, scratch)
            weights += len(group) * self.depth * self.channels

    def _pixels(self, products: list[_Product], panels: Span, scratch: Buffer) -> None:
        """Emit the pixel blocks of some products: for each product the sum of blocks of A, then all panels."""
        blocks = max(-(-self.tiles // (self.m_block or 1)), 1)
        with self.kernel.loop(blocks) as block:
            first = block * self.m_block
            tiles = self.m_block if blocks * self.m_block == self.tiles else self.kernel.T.min(self.tiles - first, self.m_block)
            tail = _Rows(self.tiles * self.height, self.rest, tiles * self.height, self.short < self.rows)
            at_end = [block == blocks - 1] if blocks > 1 else []
            for product in products:
                a = self._operand(product, scratch)
                if a is not self.tile.a:
                    self._sum(product, a, _Rows(first * self.height, tiles * self.height, 0))
                    with self.kernel.where(*at_end):
                        self._sum_tail(product, a, tail)
                with self.kernel.T.serial(panels[0], panels[1]) as group:
                    if self.tiles:
                        with self.kernel.loop(tiles) as i, self.kernel.loop(self.n_block) as j:
                            rows = _Rows((first + i) * self.height, self.height, i * self.height)
                            self._tile(product, a, rows, group * self.n_block + j)
                    if self.rest:
                        with self.kernel.where(*at_end), self.kernel.loop(self.n_block) as j:
                            self._tile(product, a, tail, group * self.n_block + j)

    def _operand(self, product: _Product, scratch: Buffer) -> Activation:
        """Return the tiles' operand: A itself if the sum is a single block of A whose rows are close together, else the scratch buffer."""
        a, count = self.tile.a, product.part.count
        is_single = len(product.step.a) == 1 and not product.step.previous and self.short == self.rows
        is_close = a.block <= 2 * count and self.depth % a.block == 0
        if is_single and is_close and all(size % a.block == 0 or a.block % size == 0 for size in (self.k_block, count)):
            return a
        return Activation(scratch, self.m_block * self.height + self.rest, count, count)

    def _sum_tail(self, product: _Product, sums: Activation, rows: _Rows) -> None:
        """Emit the sum of A for the rows after the whole tiles."""
        whole = rows.count - rows.short
        if whole:
            self._sum(product, sums, _Rows(rows.start, whole, rows.place))
        if rows.short:
            self._sum(product, sums, _Rows(rows.start + whole, 1, rows.place + whole, True))

    def _sum(self, product: _Product, sums: Activation, rows: _Rows) -> None:
        """Emit a step's sum of blocks of A into the scratch buffer, one block after another.

        Several blocks at once would evict the buffer's lines before they are written, and a store miss costs far more than a load miss.
        """
        sign = product.step.previous
        for block, block_sign in product.step.a:
            if not (rows.short and block[0] == 0):
                self._add(product, sums, rows, block, (sign, block_sign))
                sign = 1
        if not sign:
            self._add(product, sums, rows, None, (0, 0))

    def _add(self, product: _Product, sums: Activation, rows: _Rows, block: Block | None, signs: tuple[int, int]) -> None:
        """Emit scratch buffer = signs[0] · scratch buffer + signs[1] · block of A."""
        kernel, a = self.kernel, self.tile.a
        # A chunk lies in one channel block of A, wherever the part of K begins.
        chunk = gcd(sums.channels, self.k_block, self.depth, a.block, CHUNK)
        with self.kernel.loop(sums.channels // chunk) as piece, self.kernel.loop(rows.count) as row:
            place = sums.at(rows.place + row, piece * chunk)
            source = a.at(self._pixel(block, rows.start + row), self._depth(block, product) + piece * chunk) if block else 0
            for k in range(0, chunk, kernel.lanes):
                loads = ((sums.buffer, place, signs[0]), (a.buffer, source, signs[1]))
                parts = [(kernel.load(buffer, index + k), sign) for buffer, index, sign in loads if sign]
                kernel.store(sums.buffer, self._signed_sum(parts), place + k)

    def _signed_sum(self, parts: list[tuple[Any, int]]) -> Any:
        """Return the sum of vectors with their signs, positive ones first."""
        total: Any = self.kernel.splat(self.kernel.number(0))
        for number, (value, sign) in enumerate(sorted(parts, key=lambda part: -part[1])):
            total = total - value if sign < 0 else total + value if number else value
        return total

    def _tile(self, product: _Product, a: Activation, rows: _Rows, panel: Expr) -> None:
        """Emit one register tile of a product, and add it to its blocks of C."""
        kernel, part, width, step = self.kernel, product.part, self.width, product.step
        sums = self.tile.new_sums(rows.count, width)
        vectors = [(i, j) for i in range(rows.count) for j in range(0, width, kernel.lanes)]
        for i, j in vectors:
            before = self._before(product, step.base, rows, panel, i, j)
            kernel.store(sums.registers, kernel.splat(kernel.number(0)) if before is None else before, i * width + j)
        weights = product.weights + panel * (part.count * width)
        alike = step.base not in product.initialised and self.tile.epilogue.begins_alike
        if a is self.tile.a:
            start = self._depth(step.a[0][0], product)
            row = self._pixel(step.a[0][0], rows.start)
            self.tile.accumulate(sums, row, weights, Extent(start, part.count, True, True), alike=alike)
        else:
            tile = replace(self.tile, a=a)
            tile.accumulate(sums, rows.place, weights, Extent(0, part.count, True, True), alike=alike)
        for i, j in vectors:
            value = kernel.load(sums.registers, i * width + j)
            self._store(product, step.base, value, rows, panel, i, j)
            for block in step.copies if part.last else ():
                before = self._before(product, block, rows, panel, i, j)
                self._store(product, block, value if before is None else before + value, rows, panel, i, j)

    def _before(self, product: _Product, block: Block, rows: _Rows, panel: Expr, i: int, j: int) -> Any:
        """Return the initial value of a vector of C: its current value, if any, plus the epilogue's initial value in its last product."""
        kernel, parts = self.kernel, []
        if block in product.initialised and self._exists(block, rows, i):
            parts.append(kernel.load(self.tile.c.buffer, self._spot(block, rows, panel, i, j).target))
        if self._is_final(product, block):
            parts.append(self.tile.epilogue.begin(self._spot(block, rows, panel, i, j)))
        return sum(parts[1:], parts[0]) if parts else None

    def _store(self, product: _Product, block: Block, value: Any, rows: _Rows, panel: Expr, i: int, j: int) -> None:
        """Store a vector of C, finished by the epilogue if it is complete."""
        if not self._exists(block, rows, i):
            return
        spot = self._spot(block, rows, panel, i, j)
        if self._is_final(product, block):
            value = self.tile.epilogue.finish(value, spot)
        self.kernel.store(self.tile.c.buffer, value, spot.target)

    def _is_final(self, product: _Product, block: Block) -> bool:
        return product.part.last and finishes(product.step, block)

    def _spot(self, block: Block, rows: _Rows, panel: Expr, i: int, j: int) -> Spot:
        """Return the spot of row `i` and column `j` of the tile."""
        pixel, channel = self._pixel(block, rows.start), block[1] * self.channels + panel * self.width

        def place(c: Activation) -> Expr:
            return c.at(pixel, channel) + i * c.block + j if c.block % self.width == 0 else c.at(pixel + i, channel + j)

        return Spot(channel + j, place(self.tile.c), place, self.kernel.lanes, self.kernel.lanes)

    def _pixel(self, block: Block, row: Expr) -> Expr:
        """Return the pixel of a row of a block."""
        return self.origin + row + block[0] * self.short

    def _depth(self, block: Block, product: _Product) -> Expr:
        """Return the first channel of a block of A in the product's part of K."""
        return block[1] * self.depth + product.part.start

    def _exists(self, block: Block, rows: _Rows, i: int) -> bool:
        return not (rows.short and block[0] == 0 and i == rows.count - 1)
