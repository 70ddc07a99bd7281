"""Integer products where a core has no `SDOT`: `SMULL`, `SMLAL2` and `SADALP`, with four products in 16 bits where weights allow it.

Two products of a lane always fit. Four do if the magnitudes of their weights add up to at most 255, and take five instructions instead of
six. So the steps of K are reordered for each panel of weights: first pairs of steps for which all lanes are proved to fit, then the
remaining ones, and last half a step if K has one, with or without a partner. A table says how many there are of each, and where their
data is: the code is the same for all weights. Weights of 7 bits always fit; others do if large ones are rare, as in normal distributions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tvmmobile.graph.integers import MOST_TOGETHER
from tvmmobile.graph.layers import Array
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.activations import Activation
from tvmmobile.schedules.emit.kernel import Buffer, Expr
from tvmmobile.schedules.emit.matmul import Extent, MatmulTile, Panel, panels
from tvmmobile.schedules.integers.ends import IntegerEnds
from tvmmobile.schedules.integers.kernel import LANES
from tvmmobile.schedules.integers.product import IntegerMatrix, IntegerProduct, IntegerTile, matrix_of
from tvmmobile.schedules.integers.steps import HALF, STEP, StepsLoop, transposed
from tvmmobile.schedules.space import Knobs

#: Share of steps with partners below which weights gain by 7 bits.
LEAST = 0.4
#: Panels of weights that are looked at, at most, to see whether pairs fit, and their channels.
SAMPLED, PANEL = 16, 16


@dataclass(frozen=True)
class LongTile(IntegerTile):
    """Tiles of sums whose vectors have four channels each, see `steps`. K is counted in sixteens; the last may be half full.

    Attributes:
        bytes: bytes of a pixel of A.
        columns: channels of a panel that is whole.
        table: table of the steps' order, see `order_steps`; `None` where there is one step or half of one.
    """

    bytes: int = 0
    columns: int = 0
    table: Buffer = None

    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Return one loop over all of K."""
        kernel, width = self.kernel, panel.width
        acc = kernel.sums(rows * width // LANES)
        self.epilogue.fill(acc, 1, panel.channel + index * width, width)  # of the other pixels, they begin as the first one's
        loop = steps_loop(rows, width, self.step * self.bytes, self.bytes, kernel.in_order)
        number = panel.channel // self.columns + index
        order = [(self.table, number * table_size(self.bytes))] if self.table is not None else []
        kernel.call(loop.symbol, loop.llvm, (acc, 0), (self.a.buffer, row * self.bytes), (self.w, weights * STEP), *order)
        return acc


def long_tile(ends: IntegerEnds, a: Activation, c: Activation, depth: int, columns: int, step: int = 1) -> LongTile:
    """Return a tile of a product with so many bytes of K in panels of `columns`; the step is in pixels of A."""
    table = ends.buffers.get("steps")
    return LongTile(ends.kernel, a, ends.buffers["weight"], c, 1, ends, step, bytes=depth, columns=columns, table=table)


def steps_loop(rows: int, width: int, row_bytes: int, depth: int, in_order: bool) -> StepsLoop:
    """Return the loop over K, of so many bytes, of a tile of pixels that are `row_bytes` apart."""
    return StepsLoop(rows, width, row_bytes, depth // STEP, depth % STEP > 0, in_order)


def table_size(depth: int) -> int:
    """Return numbers in a panel's table; 0 where there is none."""
    steps, half = depth // STEP, depth % STEP > 0
    return 2 + steps + half if steps + half > 1 else 0


class LongMatrix(IntegerMatrix):
    """The base class of templates whose kernels multiply steps of 16 bytes of K in an order of their own."""

    dot, element = False, STEP

    def tables(self, depth: int, channels: int, columns: int) -> dict[str, tuple[int, ...]]:
        """Return the steps' order."""
        return tables_of(depth, channels, columns)

    def pack_weights(self, weight: Array, depth: int, columns: int) -> list[Array]:
        """Return weights in panels of `columns`, a step's channels together, in the steps' order; and that order."""
        return pack_steps(weight, depth, columns)

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether few steps of the weights fit in pairs as they are; the others would if weights had 7 bits."""
        return self.space(task) is not None and has_few_pairs(matrix_of(weight), self.depth_of(task.layer))

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the share of products that are added by fours."""
        return {"four_products": share_by_fours(matrix_of(weight), self.depth_of(task.layer), knobs["columns"])}


class LongProduct(LongMatrix, IntegerProduct):
    """Takes one integer 1×1 convolution of any stride without padding, or classifier, whose input channels divide by 8."""

    name = "long_product"
    group = 8
    rows, columns, usual = (1, 2, 3, 4, 5, 6), (4, 8, 12, 16), (4, 16)

    def rows_of(self, depth: int) -> tuple[int, ...]:
        """Return the rows of tiles that loads reach."""
        return tuple(rows for rows in self.rows if steps_loop(rows, LANES, depth, depth, False).fits)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of a tile; one of sums has four channels."""
        sums = rows * columns // LANES
        return sums, steps_loop(rows, columns, depth, depth, False).vectors - sums

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return one loop over all of K."""
        return long_tile(ends, a, c, depth, knobs["columns"], step)


def tables_of(depth: int, channels: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Return the argument with the tables of all panels, where loops have one."""
    size = table_size(depth)
    return {"steps": (-(-channels // columns) * size,)} if size else {}


def pack_steps(weight: Array, depth: int, columns: int) -> list[Array]:
    """Return weights (K, N), zeros up to `depth`, as loops of tiles of so many channels read them; and tables of their order, if any."""
    found, table = [], list[int]()
    for _, steps in _panels_of_steps(weight, depth, columns):
        if len(steps) > 1:
            order, numbers = order_steps(steps)
            steps, table = [steps[step] for step in order], table + numbers
        found += [transposed(step) for step in steps]
    return [np.concatenate(found), *([np.array(table, np.int32)] if table else [])]


def share_by_fours(weight: Array, depth: int, columns: int) -> float:
    """Return the share (0 to 1) of all products of weights (K, N) that loops of such tiles add by fours; see `pack_steps`."""
    added = 0
    for channels, steps in _panels_of_steps(weight, depth, columns):
        if len(steps) > 1:
            added += channels * sum(steps[step].shape[1] for pair in _partners(steps) for step in pair)
    return added / (depth * int(weight.shape[1]))


def _panels_of_steps(weight: Array, depth: int, columns: int) -> Iterator[tuple[int, list[Array]]]:
    """Yield the steps of each panel of weights (K, N), with zeros up to `depth` and to whole panels; and how many channels there are."""
    rows = np.pad(weight, ((0, depth - len(weight)), (0, 0))).T
    for panel in panels(len(rows), columns, LANES):
        for index in range(panel.count):
            first = panel.channel + index * panel.width
            some = rows[first : first + panel.columns]
            yield len(some), np.split(np.pad(some, ((0, panel.width - panel.columns), (0, 0))), range(STEP, depth, STEP), axis=1)


def has_few_pairs(weight: Array, depth: int) -> bool:
    """Return whether few steps of weights (K, N), with zeros up to `depth`, fit in pairs as they are. With 7 bits, all would."""
    if not table_size(depth):
        return False
    channels = weight.shape[1]
    rows = np.pad(weight, ((0, depth - len(weight)), (0, 0))).T[: channels // PANEL * PANEL or channels]
    panels_of = np.split(rows, range(PANEL, len(rows), PANEL))
    some = [np.split(panel, range(STEP, depth, STEP), axis=1) for panel in panels_of[:: -(-len(panels_of) // SAMPLED)]]
    return sum(len(_partners(steps)) for steps in some) * 2 < sum(map(len, some)) * LEAST


def order_steps(weight: Sequence[Array]) -> tuple[list[int], list[int]]:
    """Return an order of the steps of a panel's weights, each (channel, 16), or (channel, 8) of the last one, and its table.

    Pairs of which every lane of 16 bits, which has up to four products, holds whatever data there is; then single steps; last half a step,
    with the one that is its partner before it. The table has the numbers of pairs and of single steps, the places of the data of all of
    these, and of half a step whether it has a partner and where that is.
    """
    pairs = _partners(weight)
    half = len(weight) - 1 if weight[-1].shape[1] == HALF else None
    joined = [step for pair in pairs if half in pair for step in pair if step != half]
    whole = [step for pair in pairs if half not in pair for step in pair]
    singles = [step for step in range(len(weight)) if step not in (*whole, *joined, half)]
    last = [] if half is None else [half]
    table = [len(whole) // 2, len(singles), *(step * STEP for step in (*whole, *singles)), *([len(joined)] if last else [])]
    return [*whole, *singles, *joined, *last], [*table, *(step * STEP for step in joined)]


def _partners(weight: Sequence[Array]) -> list[tuple[int, int]]:
    """Return the pairs of steps that fit. Those that fit with few others choose first."""
    magnitudes = [np.abs(step.astype(np.int32)) for step in weight]
    lanes = np.stack(
        [(magnitude[:, :HALF] + magnitude[:, HALF:] if magnitude.shape[1] > HALF else magnitude).ravel() for magnitude in magnitudes]
    )
    fits = np.array([(lanes + own <= MOST_TOGETHER).all(1) for own in lanes])
    np.fill_diagonal(fits, False)
    left = np.ones(len(weight), bool)
    pairs: list[tuple[int, int]] = []

    def fewest(some: Array) -> int:
        """Take the one of some steps that fits with the fewest of those that are left."""
        degrees = np.where(some, (fits & left).sum(1), len(weight) + 1)
        step = int(degrees.argmin())
        left[step] = False
        return step

    while left.any():
        step = fewest(left)
        if (others := fits[step] & left).any():
            pairs.append((step, fewest(others)))
    return pairs
