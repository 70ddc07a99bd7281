"""Integer products where a core has no `SDOT`: `SMULL`, `SMLAL2` and `SADALP`, with four products in 16 bits where weights allow it.

Two products of a lane always fit. Four do if their weights are at most 255 together, and take five instructions in place of six. So the
steps of K are put in an order of their own for each panel of weights: first pairs of steps of which all lanes are proved to fit, then what
remains. A table says how many there are of each, and where their data is: the code is the same for all weights. Weights spread as a normal
distribution's or a trained network's find partners for nearly every step; those spread evenly find none, unless they have 7 bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.layers import Array, Conv2d, Dense, LayerParameters
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Activation, Buffer, Expr
from tvmmobile.schedules.integer import LANES, IntegerEnds, IntegerKernel
from tvmmobile.schedules.integer_product import IntegerProduct, extents, pack_elements
from tvmmobile.schedules.integer_steps import MANY, StepsLoop
from tvmmobile.schedules.matmul import Extent, MatmulTile, Panel
from tvmmobile.schedules.space import Knobs

#: Bytes of K in a step, and the largest sum of weights of a lane of 16 bits.
STEP, MOST = 16, 255
#: Share of steps with partners below which none are paired.
LEAST = 0.4
#: Panels of weights that are looked at, at most, to see whether pairs fit.
SAMPLED = 16
#: Channels of a panel whose steps have an order of their own: of more, pairs seldom fit.
ORDERED = 4


@dataclass(frozen=True)
class LongTile(MatmulTile):
    """Tiles of sums in which a vector has one channel's, each of a quarter of K, which SADALP adds up from neighbours of 16 bits. K is
    counted in sixteens, of which the last may be half full.

    Attributes:
        bytes: of a pixel of A.
        table: of the steps' order, see `order_steps`; `None` where they have none.
    """

    epilogue: IntegerEnds  # type: ignore[assignment]
    kernel: IntegerKernel
    bytes: int = 0
    table: Buffer = None

    def emit(self, row: Expr, target: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> None:
        """See `MatmulTile.emit`; the part is all of K."""
        assert part.first and part.last
        kernel, width, channel = self.kernel, panel.width, panel.channel + index * panel.width
        acc = kernel.sums(rows * width)
        steps, half = divmod(self.bytes, STEP)
        loop = StepsLoop(rows, width, self.step * self.bytes, steps, self.table is not None, kernel.in_order)
        if steps and loop.fits:
            order = [(self.table, (panel.channel // ORDERED + index) * (steps + 2))] if self.table is not None else []
            kernel.call(loop.symbol, loop.llvm, (acc, 0), (self.a.buffer, row * self.bytes), (self.w, weights * STEP), *order)
        else:
            assert self.table is None
            self._add(acc, row, rows, width, weights, 0, steps == 0, True)
            if steps > 1:
                with kernel.loop(steps - 1) as step:
                    self._add(acc, row, rows, width, weights, step + 1)
        if steps and half:
            self._add(acc, row, rows, width, weights, steps, True)
        pixels = []
        for place in range(rows):
            sums = [self._four(acc, (place * width + j) * LANES) + self.epilogue.begin(channel + j) for j in range(0, width, LANES)]
            pixels.append((sums, self.c.at(target + place, channel)))
        self.epilogue.store(pixels, channel, panel.columns)

    def _add(
        self, acc: Buffer, row: Expr, rows: int, width: int, weights: Expr, number: Expr, half: bool = False, first: bool = False
    ) -> None:
        """A step by its number, or the half of one."""
        kernel, count = self.kernel, STEP // 2 if half else STEP
        data = [kernel.bytes_at(self.a.buffer, (row + i * self.step) * self.bytes + number * STEP, count) for i in range(rows)]
        for j in range(width):
            w = kernel.bytes_at(self.w, (weights + number * width + j) * STEP, count)
            for i in range(rows):
                products = kernel.long_product(data[i], w, 0, half)
                if not half:
                    products = products + kernel.long_product(data[i], w, 8, half)
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
        """A vector of sums has one channel; of A and W as many are read as the loop keeps, or LLVM."""
        return rows * columns, rows + (columns if columns == ORDERED else 0) + 3

    def _ordered(self, task: Task, layer: Conv2d | Dense, knobs: Knobs) -> bool:
        """Whether a panel's steps have an order of their own."""
        pixels, depth, _ = extents(layer)
        return knobs["columns"] == ORDERED and has_order(task, knobs["rows"], pixels.step * depth, depth // STEP)

    def tables(self, task: Task, layer: Conv2d | Dense, knobs: Knobs) -> dict[str, tuple[int, ...]]:
        """The steps' order."""
        _, depth, channels = extents(layer)
        return {"steps": (-(-channels // ORDERED) * (depth // STEP + 2),)} if self._ordered(task, layer, knobs) else {}

    def tile(self, task: Task, layer: Conv2d | Dense, knobs: Knobs) -> tuple[IntegerKernel, Callable[[IntegerEnds], MatmulTile]]:
        """Loops of 16 input channels, or of 32."""
        kernel, (pixels, depth, channels) = IntegerKernel(task), extents(layer)
        count, elements = pixels.count * pixels.lines, -(-depth // STEP)

        def tile(ends: IntegerEnds) -> MatmulTile:
            a, c = (
                Activation(ends.buffers["data"], count, elements, elements),
                Activation(ends.buffers["output"], count, channels, channels),
            )
            return LongTile(kernel, a, ends.buffers["weight"], c, 1, ends, pixels.step, 0, (), depth, ends.buffers.get("steps"))

        return kernel, tile

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Weights in panels of `columns`, a step's channels together, in the steps' order; constants; and that order."""
        weight, *constants = super()._pack(task, knobs, parameters)
        assert isinstance(task.layer, Conv2d | Dense)
        _, depth, _ = extents(task.layer)
        if not self._ordered(task, task.layer, knobs):
            return [weight, *constants]
        table: list[int] = []
        for part in steps_of(weight, depth):
            order, pairs = order_steps(part[: depth // STEP].reshape(depth // STEP, ORDERED, STEP))
            table += [pairs, len(order) - 2 * pairs, *(step * STEP for step in order)]
            part[: len(order)] = part[order]
        return [weight, *constants, np.array(table, np.int32)]


def has_order(task: Task, rows: int, row_bytes: int, steps: int) -> bool:
    """Whether tiles of so many pixels, this many bytes apart, have a loop over steps in an order of their own."""
    return steps > 1 and StepsLoop(rows, ORDERED, row_bytes, steps, True, task.machine.in_order).fits


def steps_of(packed: Array, depth: int) -> Array:
    """Packed weights in panels of `ORDERED` channels, as (panel, step, bytes); the last step may be half full. A view."""
    return packed.reshape(-1, -(-depth // STEP), ORDERED * STEP)


def gains_by_seven_bits(task: Task, weight: Array) -> bool:
    """Whether few steps of a product's weights fit in pairs as they are, and the others would if weights had 7 bits."""
    if LongProduct().space(task) is None:
        return False
    assert isinstance(task.layer, Conv2d | Dense)
    pixels, depth, channels = extents(task.layer)
    steps = depth // STEP
    if not has_order(task, 1, pixels.step * depth, steps):
        return False
    found = steps_of(pack_elements(weight.reshape(depth, channels), STEP, ORDERED), depth)
    some = found[:: -(-len(found) // SAMPLED), :steps].reshape(-1, steps, ORDERED, STEP)
    return sum(order_steps(panel)[1] for panel in some) * 2 < len(some) * steps * LEAST


def order_steps(weight: Array) -> tuple[list[int], int]:
    """An order of the steps of a panel's weights (step, channel, 16), and the number of pairs in it.

    Pairs of which every lane of 16 bits, which has four products, holds whatever data there is; then the others. Steps that fit with few
    others choose first. Where few have partners, all are in their own order: single steps are faster so.
    """
    magnitudes = np.abs(weight.astype(np.int32))
    lanes = (magnitudes[..., :8] + magnitudes[..., 8:]).reshape(len(weight), -1)
    fits = np.array([(lanes + own <= MOST).all(1) for own in lanes])
    np.fill_diagonal(fits, False)
    left = np.ones(len(weight), bool)
    pairs: list[int] = []
    singles: list[int] = []

    def fewest(some: Array) -> int:
        """Of some steps, the one that fits with the fewest of those that are left; it is taken."""
        degrees = np.where(some, (fits & left).sum(1), len(weight))
        step = int(degrees.argmin())
        left[step] = False
        return step

    while left.any():
        step = fewest(left)
        if (others := fits[step] & left).any():
            pairs += [step, fewest(others)]
        else:
            singles.append(step)
    if len(pairs) < len(weight) * LEAST or (len(weight) >= MANY and len(pairs) < 4):
        return list(range(len(weight))), 0
    return [*pairs, *singles], len(pairs) // 2
