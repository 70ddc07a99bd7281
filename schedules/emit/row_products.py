"""Matrix products of a few rows × a few vectors of contiguous columns, shared by attention and batched products."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from tvmmobile.graph.machine import Machine
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel, share, vector_groups
from tvmmobile.schedules.space import Knobs, round_up

#: Products per thread from which on each product is computed by one thread: then less than a fifth of the threads' time is idle.
_MANY = 4
#: Maps the number of a row to the index of its first element.
Row = Callable[[Expr], Expr]


@dataclass(frozen=True)
class RowShare:
    """The rows of one product that a thread computes.

    Attributes:
        number: index of the product.
        part, parts: index of the thread's part of the product's rows (`None`: all rows), and the number of parts.
    """

    number: Expr
    part: Expr | None
    parts: int

    def emit(self, kernel: Kernel, rows: int, size: int, emit: Callable[[Expr, int], None]) -> None:
        """Emit the part's share of `rows` rows, `size` at a time, by calling `emit(first row, number of rows)`."""
        whole, rest = divmod(rows, size)
        with kernel.span(*share(self.part, self.parts, whole)) as block:
            emit(block * size, size)
        if rest:
            with kernel.where(*([] if self.part is None else [self.part == self.parts - 1])):
                emit(whole * size, rest)


@contextmanager
def row_shares(kernel: Kernel, thread: Expr, threads: int, count: int) -> Iterator[RowShare]:
    """Emit a loop over a thread's share of `count` products; few products are split into parts of their rows, so that no thread idles."""
    parts = threads // math.gcd(count, threads) if count < _MANY * threads else 1
    with kernel.span(*share(thread, threads, count * parts)) as unit:
        yield RowShare(unit, None, 1) if parts == 1 else RowShare(unit // parts, unit % parts, parts)


def transpose_rows(kernel: Kernel, source: Buffer, row: Row, extents: tuple[int, int], target: Buffer) -> None:
    """Store rows transposed, [element][row], with the rows zero-padded to whole vectors.

    Args:
        extents: number of rows, and of elements per row.
    """
    (rows, elements), lanes = extents, kernel.lanes
    pitch = round_up(rows, lanes)
    with kernel.loop(rows) as number:
        whole = elements // lanes
        if whole:
            with kernel.loop(whole) as step:
                vector = kernel.T.bind(kernel.load(source, row(number) + step * lanes))
                for lane in range(lanes):
                    kernel.store(target, kernel.T.Shuffle([vector], [lane]), (step * lanes + lane) * pitch + number, 1)
        for place in range(whole * lanes, elements):
            kernel.store(target, kernel.load(source, row(number) + place, 1), place * pitch + number, 1)
    for number in range(rows, pitch):
        with kernel.loop(elements) as place:
            kernel.store(target, kernel.number(0.0), place * pitch + number, 1)


def column_panels(kernel: Kernel, extent: int, most: int) -> Iterator[tuple[AbstractContextManager[Expr], list[int]]]:
    """Yield (loop over panels, lanes of each vector in a panel) for panels of at most `most` vectors; the loop gives each panel's first
    column. Columns that do not fill a vector form a panel of their own.
    """
    for group in vector_groups(extent, kernel.lanes, most):
        parts = [group.lanes] * group.vectors if group.lanes > 1 else [group.vectors]
        yield kernel.pieces(group.first, group.count, group.size), parts


def holds_rows(machine: Machine, knobs: Knobs, rows: tuple[int, ...]) -> bool:
    """Return whether a tile's sums and operands fit the registers; tiles of four rows (or of `max(rows)`, if fewer) always pass."""
    return knobs["rows"] == min(max(rows), 4) or (knobs["rows"] + 1) * (knobs["vectors"] + 1) <= machine.registers


def row_products(kernel: Kernel, left: tuple[Buffer, Row], right: Callable[[Expr, int], Expr], extents: tuple[int, int, int]) -> Buffer:
    """Emit a register tile; return its sums as [row][vector].

    Args:
        left: buffer of the left matrix, and the function that gives the index of each row.
        right: maps a K index and a vector's index to that vector of the right matrix.
        extents: number of rows, of vectors, and of terms (K).
    """
    lanes, (rows, vectors, terms) = kernel.lanes, extents
    buffer, row_at = left
    sums = kernel.accumulators(rows * vectors * lanes)
    kernel.fill(sums, kernel.number(0.0), rows * vectors)

    def add(k: Expr, factors: list[Expr]) -> None:
        for j in range(vectors):
            vector = kernel.T.bind(right(k, j))
            for row in range(rows):
                place = (row * vectors + j) * lanes
                kernel.store(sums, kernel.multiply_add(kernel.load(sums, place), vector, factors[row]), place)

    if terms >= lanes:
        with kernel.loop(terms // lanes) as step:
            loaded = [kernel.T.bind(kernel.load(buffer, row_at(row) + step * lanes)) for row in range(rows)]
            for lane in range(lanes):
                add(step * lanes + lane, [kernel.lane(vector, lane) for vector in loaded])
    for k in range(terms // lanes * lanes, terms):
        add(k, [kernel.splat(kernel.load(buffer, row_at(row) + k, 1)) for row in range(rows)])
    return sums
