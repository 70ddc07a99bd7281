"""Int8 products on cores without `SDOT`: `SMULL`, `SMLAL2` and `SADALP`, with four products per 16-bit sum where the weights allow it.

The sum of two products always fits in 16 bits. That of four does if the magnitudes of their weights add up to at most 255, and takes five
instructions instead of six. So the steps of K are reordered for each panel of weights: first pairs of steps for which all lanes are proved
to fit, then the remaining ones, and last the half step if K has one, with or without a partner. A table has the numbers of pairs and single
steps and the offsets of their data, so the code is the same for all weights. 7-bit weights always fit; others do if large ones are rare, as
in normal distributions.
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

#: Share of paired steps below which 7-bit weights would gain speed.
LEAST = 0.4
#: Most panels of weights that are inspected for pairs, and their channels.
SAMPLED, PANEL = 16, 16


@dataclass(frozen=True)
class LongTile(IntegerTile):
    """Register tiles whose vectors of sums have four channels each, see `steps`. K is counted in steps of 16 bytes; the last may be half.

    Attributes:
        bytes: bytes per pixel of A.
        columns: channels per whole panel.
        table: argument with the order of the steps, see `order_steps`; `None` if there is at most one step.
    """

    bytes: int = 0
    columns: int = 0
    table: Buffer = None

    def sums(self, row: Expr, rows: int, panel: Panel, index: Expr, part: Extent, weights: Expr) -> Buffer:
        """Emit the loop over all of K; return the sums."""
        kernel, width = self.kernel, panel.width
        acc = kernel.sums(rows * width // LANES)
        self.epilogue.fill(acc, 1, panel.channel + index * width, width)  # the loop copies the first pixel's initial values to the others
        loop = steps_loop(rows, width, self.step * self.bytes, self.bytes, kernel.in_order)
        number = panel.channel // self.columns + index
        order = [(self.table, number * table_size(self.bytes))] if self.table is not None else []
        kernel.call(loop.symbol, loop.llvm, (acc, 0), (self.a.buffer, row * self.bytes), (self.w, weights * STEP), *order)
        return acc


def long_tile(ends: IntegerEnds, a: Activation, c: Activation, depth: int, columns: int, step: int = 1) -> LongTile:
    """Return the register tile of a product with `depth` bytes of K and panels of `columns` channels; `step` is in pixels of A."""
    table = ends.buffers.get("steps")
    return LongTile(ends.kernel, a, ends.buffers["weight"], c, 1, ends, step, bytes=depth, columns=columns, table=table)


def steps_loop(rows: int, width: int, row_bytes: int, depth: int, in_order: bool) -> StepsLoop:
    """Return a tile's loop over `depth` bytes of K, for pixels that are `row_bytes` apart."""
    return StepsLoop(rows, width, row_bytes, depth // STEP, depth % STEP > 0, in_order)


def table_size(depth: int) -> int:
    """Return the number of integers in a panel's table; 0 if it needs none."""
    steps, half = depth // STEP, depth % STEP > 0
    return 2 + steps + half if steps + half > 1 else 0


class LongMatrix(IntegerMatrix):
    """The base class of templates whose kernels reorder the 16-byte steps of K for each panel."""

    dot, element = False, STEP

    def tables(self, depth: int, channels: int, columns: int) -> dict[str, tuple[int, ...]]:
        """Return the shape of the argument with the tables of the steps' order."""
        return tables_of(depth, channels, columns)

    def pack_weights(self, weight: Array, depth: int, columns: int) -> list[Array]:
        """Return weights packed in panels of `columns`, in the steps' order, then the tables of that order."""
        return pack_steps(weight, depth, columns)

    def gains_by_smaller_weights(self, task: Task, weight: Array) -> bool:
        """Return whether the template accepts `task` and few steps of the weights can be paired; with 7-bit weights, all could."""
        return self.space(task) is not None and has_few_pairs(matrix_of(weight), self.depth_of(task.layer))

    def product_shortcuts(self, task: Task, knobs: Knobs, weight: Array) -> dict[str, float]:
        """Return the share of products that are added four at a time."""
        return {"four_products": share_by_fours(matrix_of(weight), self.depth_of(task.layer), knobs["columns"])}


class LongProduct(LongMatrix, IntegerProduct):
    """Accepts one int8 1×1 convolution of any stride without padding, or one fully connected layer; input channels are a multiple of 8."""

    name = "long_product"
    group = 8
    rows, columns, usual = (1, 2, 3, 4, 5, 6), (4, 8, 12, 16), (4, 16)

    def rows_of(self, depth: int) -> tuple[int, ...]:
        """Return the heights of tiles whose loads can encode their offsets."""
        return tuple(rows for rows in self.rows if steps_loop(rows, LANES, depth, depth, False).fits)

    def registers(self, rows: int, columns: int, depth: int) -> tuple[int, int]:
        """Return the fewest vectors of sums, which have four channels each, and of other operands."""
        sums = rows * columns // LANES
        return sums, steps_loop(rows, columns, depth, depth, False).vectors - sums

    def tile(self, ends: IntegerEnds, a: Activation, c: Activation, knobs: Knobs, depth: int, step: int) -> MatmulTile:
        """Return the register tile, with one loop over all of K."""
        return long_tile(ends, a, c, depth, knobs["columns"], step)


def tables_of(depth: int, channels: int, columns: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of the argument with the tables of all panels, by name; empty if loops need none."""
    size = table_size(depth)
    return {"steps": (-(-channels // columns) * size,)} if size else {}


def pack_steps(weight: Array, depth: int, columns: int) -> list[Array]:
    """Pack weights (K, N), zero-padded to `depth`, for the loops of tiles of `columns` channels; return them, and the tables, if any."""
    packed, table = [], list[int]()
    for _, steps in _panels_of_steps(weight, depth, columns):
        if len(steps) > 1:
            order, numbers = order_steps(steps)
            steps, table = [steps[step] for step in order], table + numbers
        packed += [transposed(step) for step in steps]
    return [np.concatenate(packed), *([np.array(table, np.int32)] if table else [])]


def share_by_fours(weight: Array, depth: int, columns: int) -> float:
    """Return the share (0 to 1) of the products of weights (K, N) that loops add four at a time; arguments as for `pack_steps`."""
    added = 0
    for channels, steps in _panels_of_steps(weight, depth, columns):
        if len(steps) > 1:
            added += channels * sum(steps[step].shape[1] for pair in _partners(steps) for step in pair)
    return added / (depth * int(weight.shape[1]))


def _panels_of_steps(weight: Array, depth: int, columns: int) -> Iterator[tuple[int, list[Array]]]:
    """Yield (number of channels, steps) of each panel of weights (K, N), zero-padded to `depth` and whole vectors of channels.

    Each step is an array (channel, K).
    """
    rows = np.pad(weight, ((0, depth - len(weight)), (0, 0))).T
    for panel in panels(len(rows), columns, LANES):
        for index in range(panel.count):
            first = panel.channel + index * panel.width
            channels = rows[first : first + panel.columns]
            yield len(channels), np.split(np.pad(channels, ((0, panel.width - panel.columns), (0, 0))), range(STEP, depth, STEP), axis=1)


def has_few_pairs(weight: Array, depth: int) -> bool:
    """Return whether few steps of weights (K, N), zero-padded to `depth`, can be paired. With 7-bit weights, all could."""
    if not table_size(depth):
        return False
    channels = weight.shape[1]
    rows = np.pad(weight, ((0, depth - len(weight)), (0, 0))).T[: channels // PANEL * PANEL or channels]
    panels_of = np.split(rows, range(PANEL, len(rows), PANEL))
    sampled = [np.split(panel, range(STEP, depth, STEP), axis=1) for panel in panels_of[:: -(-len(panels_of) // SAMPLED)]]
    return sum(len(_partners(steps)) for steps in sampled) * 2 < sum(map(len, sampled)) * LEAST


def order_steps(weight: Sequence[Array]) -> tuple[list[int], list[int]]:
    """Return an order of the steps of a panel's weights, and its table.

    First come the pairs of steps whose 16-bit sums of four products fit for all data; then single steps; last the half step, after its
    partner if it has one. The table has the numbers of pairs and of single steps, the offsets of their data, and for a half step whether it
    has a partner and that one's offset.

    Args:
        weight: steps (channel, 16); the last may be (channel, 8).
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
    """Pair steps whose sums fit in 16 bits, greedily: steps that fit with the fewest others choose first."""
    magnitudes = [np.abs(step.astype(np.int32)) for step in weight]
    lanes = np.stack(
        [(magnitude[:, :HALF] + magnitude[:, HALF:] if magnitude.shape[1] > HALF else magnitude).ravel() for magnitude in magnitudes]
    )
    fits = np.array([(lanes + step_lanes <= MOST_TOGETHER).all(1) for step_lanes in lanes])
    np.fill_diagonal(fits, False)
    unpaired = np.ones(len(weight), bool)
    pairs: list[tuple[int, int]] = []

    def take(candidates: Array) -> int:
        """Take the candidate that fits with the fewest unpaired steps; `candidates` is a mask."""
        degrees = np.where(candidates, (fits & unpaired).sum(1), len(weight) + 1)
        step = int(degrees.argmin())
        unpaired[step] = False
        return step

    while unpaired.any():
        step = take(unpaired)
        if (partners := fits[step] & unpaired).any():
            pairs.append((step, take(partners)))
    return pairs
