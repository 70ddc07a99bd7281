"""Integer products where a core has no `SDOT`: `SMULL`, `SMLAL2` and `SADALP`, with four products in 16 bits where weights allow it.

Two products of a lane always fit. Four do if their weights are at most 255 together, and take five instructions in place of six. So the
steps of K are put in an order of their own for each panel of weights: first one step, then pairs of steps of which all lanes are proved to
fit, then what remains. A table says how many there are of each, and where their data is: the code is the same for all weights. Weights
spread as a normal distribution's or a trained network's find partners for nearly every step; those spread evenly find none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, Dense, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Activation, Buffer, Expr
from tvmmobile.schedules.integer import LANES, IntegerEnds, IntegerKernel
from tvmmobile.schedules.integer_in_order import StepsLoop
from tvmmobile.schedules.integer_product import IntegerProduct, extents
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel, panels
from tvmmobile.schedules.space import Knobs

#: Bytes of K in a step, and the largest sum of weights of a lane of 16 bits.
STEP, MOST = 16, 255
#: Share of steps with partners below which none are paired.
LEAST = 0.4
#: Steps from which a tile has an order of its own, and the widest panel of which pairs are likely to fit.
MANY, WIDEST = 5, 8


def is_ordered(depth: int, columns: int) -> bool:
    """Whether the steps of K have an order of their own."""
    return depth // STEP >= MANY and columns <= WIDEST


@dataclass(frozen=True)
class LongTile(MatmulTile):
    """Tiles of sums in which a vector has one channel's, each of a quarter of K, which SADALP adds up from neighbours of 16 bits. K is
    counted in sixteens, of which the last may be half full.

    Attributes:
        bytes: of a pixel of A.
        table: of the steps' order, see `order_steps`; `None` where they have none.
        columns: of all panels but the last one.
        in_order: whether pairs of steps are multiplied in an order of our own.
    """

    epilogue: IntegerEnds  # type: ignore[assignment]
    kernel: IntegerKernel
    bytes: int = 0
    table: Buffer = None
    columns: int = 0
    in_order: bool = False

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """See `MatmulTile.emit`; the part is all of K."""
        assert part.first and part.last
        kernel, width, channel = self.kernel, panel.width, panel.channel + index * panel.width
        acc = kernel.sums(rows * width)
        steps, half = divmod(self.bytes, STEP)

        def add(number: Expr, offsets: list[Expr], half: bool = False, first: bool = False) -> None:
            self._add(acc, row, rows, width, weights + number * width, offsets, half, first)

        def add_all(table: Buffer, entry: Expr) -> None:
            """In the table's order, or as they come where no steps are paired, which takes fewer instructions."""
            T, pairs = kernel.T, table[entry]  # noqa: N806
            with T.If(pairs == 0):
                with T.Then():
                    in_turn()
                with T.Else():
                    self._add_pairs((table, entry), add)

        def in_turn() -> None:
            add(0, [0], steps == 0, True)
            if steps > 1:
                with kernel.loop(steps - 1) as step:
                    add(step + 1, [(step + 1) * STEP])

        entry = (panel.channel // self.columns + index) * (steps + 2)
        loop = StepsLoop(rows, width, self.step * self.bytes, steps, self.table is not None)
        if self.in_order and steps and loop.fits:
            order = [] if self.table is None else [(self.table, entry)]
            kernel.call(loop.symbol, loop.llvm, (acc, 0), (self.a.buffer, row * self.bytes), (self.w, weights * STEP), *order)
        elif self.table is None:
            in_turn()
        else:
            add_all(self.table, entry)
        if steps and half:
            add(steps, [steps * STEP], True)
        pixels = []
        for place in range(rows):
            sums = [self._four(acc, (place * width + j) * LANES) + self.epilogue.begin(channel + j) for j in range(0, width, LANES)]
            pixels.append((sums, self.c.at(target + place, channel)))
        self.epilogue.store(pixels, channel, panel.columns)

    def _add_pairs(self, order: tuple[Buffer, Expr], add: Callable[..., None]) -> None:
        """The first step, pairs, and what remains, of the order that a table has from an entry on."""
        kernel, (table, entry) = self.kernel, order
        pairs, singles, places = table[entry], table[entry + 1], entry + 2
        add(0, [table[places]], first=True)
        with kernel.T.serial(0, pairs) as pair:
            add(1 + 2 * pair, [table[places + 1 + 2 * pair], table[places + 2 + 2 * pair]])
        with kernel.T.serial(0, singles) as single:
            number = kernel.T.bind(1 + 2 * pairs + single)
            add(number, [table[places + number]])

    def _add(self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, offsets: list[Expr], half: bool, first: bool) -> None:
        """One step, or two whose products fit in 16 bits together, of data at these offsets of a pixel; or the half of one."""
        kernel, count = self.kernel, STEP // 2 if half else STEP
        data = [[kernel.bytes_at(self.a.buffer, (row + i * self.step) * self.bytes + at, count) for at in offsets] for i in range(rows)]
        for j in range(width):
            w = [kernel.bytes_at(self.w, (weights + number * width + j) * STEP, count) for number in range(len(offsets))]
            for i in range(rows):
                products: Expr = None
                for a, b in zip(data[i], w, strict=True):
                    for begin in range(0, count, 8):
                        product = kernel.long_product(a, b, begin, half)
                        products = product if products is None else products + product
                pairs = kernel.intrinsic("int32x4", "aarch64.neon.saddlp.v4i32.v8i16", products)
                place = (i * width + j) * LANES
                kernel.store(acc, pairs if first else kernel.load(acc, place, LANES) + pairs, place, LANES)

    def _four(self, acc: Buffer, place: int) -> Expr:
        """The sums of four channels' vectors."""
        kernel = self.kernel
        one, two, three, four = (kernel.load(acc, place + LANES * number, LANES) for number in range(LANES))
        return kernel.pairs(kernel.pairs(one, two), kernel.pairs(three, four))


class LongProduct(IntegerProduct):
    """Takes one integer 1×1 convolution of any stride without padding, or classifier, whose input channels divide by 8."""

    name = "long_product"
    group, element = 8, STEP
    rows, columns, usual = (1, 2, 3, 4, 5, 6), (4, 8, 12, 16), (4, 4)

    def suits(self, task: Task) -> bool:
        """Cores without SDOT."""
        return "dot" not in task.machine.has

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """A vector of sums has one channel. Pairs of steps read two vectors of each pixel; with five, which are best without pairs, some
        are read from the stack.
        """
        return rows * columns, rows * (1 + (is_ordered(depth, columns) and rows < 5)) + 3

    def tables(self, layer: Conv2d | Dense, knobs: Knobs) -> dict[str, tuple[int, ...]]:
        """The steps' order."""
        _, depth, channels = extents(layer)
        ordered, entries = is_ordered(depth, knobs["columns"]), -(-channels // knobs["columns"])
        return {"steps": (entries * (depth // STEP + 2),)} if ordered else {}

    def tile(self, task: Task, layer: Conv2d | Dense, knobs: Knobs) -> tuple[IntegerKernel, Callable[[IntegerEnds], MatmulTile]]:
        """Loops of 16 input channels, or of 32."""
        kernel, (pixels, depth, channels) = IntegerKernel(task), extents(layer)
        count, elements = pixels.count * pixels.lines, -(-depth // STEP)

        def tile(ends: IntegerEnds) -> MatmulTile:
            a, c = (
                Activation(ends.buffers["data"], count, elements, elements),
                Activation(ends.buffers["output"], count, channels, channels),
            )
            order = ends.buffers.get("steps"), knobs["columns"], task.machine.in_order
            return LongTile(kernel, a, ends.buffers["weight"], c, 1, ends, pixels.step, 0, (), depth, *order)

        return kernel, tile

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`, a step's channels together, in the steps' order; constants; and that order."""
        weight, *constants = super()._pack(task, knobs, parameters)
        assert isinstance(task.layer, Conv2d | Dense)
        _, depth, channels = extents(task.layer)
        if not is_ordered(depth, knobs["columns"]):
            return [weight, *constants]
        table: list[int] = []
        done, elements = 0, -(-depth // STEP)
        for panel in panels(channels, knobs["columns"], LANES):
            for _ in range(panel.count):
                part = weight[done : done + elements * panel.width * STEP].reshape(elements, -1)
                order, pairs = order_steps(part[: depth // STEP].reshape(depth // STEP, panel.width, STEP))
                table += [pairs, len(order) - 1 - 2 * pairs, *(step * STEP for step in order)]
                part[: len(order)] = part[order]
                done += part.size
        return [weight, *constants, np.array(table, np.int32)]


def order_steps(weight: Array) -> tuple[list[int], int]:
    """An order of the steps of a panel's weights (step, channel, 16), and the number of pairs in it.

    One step, then pairs of which every lane of 16 bits, which has four products, holds whatever data there is; then the others. Steps that
    fit with few others choose first. Where few have partners, all are in their own order: single steps are faster so.
    """
    magnitudes = np.abs(weight.astype(np.int32))
    lanes = (magnitudes[..., :8] + magnitudes[..., 8:]).reshape(len(weight), -1)
    fits = np.array([(lanes + own <= MOST).all(1) for own in lanes])
    np.fill_diagonal(fits, False)
    left = set(range(len(weight)))
    first = int(fits.sum(1).argmin())
    left.remove(first)
    pairs: list[int] = []
    singles: list[int] = []
    while left:
        degrees = {step: sum(bool(fits[step, other]) for other in left) for step in left}
        step = min(left, key=lambda number: degrees[number])
        left.remove(step)
        others = [other for other in left if fits[step, other]]
        if others:
            partner = min(others, key=lambda number: degrees[number])
            left.remove(partner)
            pairs += [step, partner]
        else:
            singles.append(step)
    if len(pairs) < len(weight) * LEAST:
        return list(range(len(weight))), 0
    return [first, *pairs, *singles], len(pairs) // 2
