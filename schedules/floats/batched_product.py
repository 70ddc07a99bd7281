"""Batched matrix products of activations, in register tiles of a few rows × vectors of columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvmmobile.graph.layers import Array, LayerParameters, Product
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.row_products import Row, RowShare, column_panels, holds_rows, row_products, row_shares, transpose_rows
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import STORAGE, THREADS, Template, layer_of


class BatchedProduct(Template):
    """Accepts batched products of activations. Threads share the products, or the rows of each product if there are few.

    Long sums in half precision are split into chains (`Precision.chain`), which are added in float32.

    Knobs:
        rows: rows per register tile.
        vectors: vectors of columns per register tile.
    """

    name = "batched_product"
    version = 1
    handles = THREADS | STORAGE
    enough_trials = 6

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Product) or task.precision.total != FLOAT32.name:
            return None
        options = {"rows": up_to((2, 4, 6), layer.rows), "vectors": up_to((1, 2, 3, 4), -(-layer.columns // task.lanes))}
        fits = partial(holds_rows, task.machine, rows=options["rows"])
        return Space(self.name, self.version, options, fits, {"rows": 4, "vectors": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return extents, which matrices are transposed, and the waste of the last tiles."""
        layer = layer_of(task, Product)
        extents = (layer.count, layer.rows, layer.terms, layer.columns)
        wasted = [waste(layer.rows, knobs["rows"]), waste(layer.columns, knobs["vectors"] * task.lanes)]
        return [*map(math.log2, extents), *map(float, layer.turned), *wasted]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, Product), Kernel(task)
        first, second = layer.turned
        shapes = {"data": layer.input_shape, **layer.side_shapes, "output": layer.output_shape}
        with kernel.named_body(**shapes) as buffers, kernel.team(task.threads) as thread:
            left = kernel.scratch(layer.rows * round_up(layer.terms, kernel.lanes)) if first else None
            right = kernel.scratch(layer.terms * round_up(layer.columns, kernel.lanes)) if second else None
            chain = task.precision.chain or layer.terms
            tile = knobs["rows"] * knobs["vectors"] * kernel.lanes
            totals = kernel.scratch(tile, totals=True) if layer.terms > chain else None
            with row_shares(kernel, thread, task.threads, layer.count) as rows:
                _MatrixProduct(kernel, layer, knobs, buffers, left, right, totals, chain, rows).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return no constants: products have none."""
        return []


@dataclass(frozen=True)
class _MatrixProduct:
    """Emits one product of the batch.

    Attributes:
        knobs: see `BatchedProduct`.
        buffers: buffers by argument name.
        left, right: scratch buffer for the transposed matrix; `None` if the matrix is read from its argument.
        totals: scratch buffer for a tile's sums over chains; `None` if a sum is a single chain.
        chain: terms per chain.
        share: index of the product, and the rows to compute.
    """

    kernel: Kernel
    layer: Product
    knobs: Knobs
    buffers: dict[str, Buffer]
    left: Buffer | None
    right: Buffer | None
    totals: Buffer | None
    chain: int
    share: RowShare

    def emit(self) -> None:
        """Emit the share's rows."""
        kernel, layer = self.kernel, self.layer
        if self.left is not None:
            start = self.share.number * (layer.terms * layer.rows)
            transpose_rows(kernel, self.buffers["data"], lambda row: start + row * layer.rows, (layer.terms, layer.rows), self.left)
        if self.right is not None:
            first = self.share.number * (layer.columns * layer.terms)
            transpose_rows(kernel, self.buffers["other"], lambda row: first + row * layer.terms, (layer.columns, layer.terms), self.right)
        self.share.emit(kernel, layer.rows, self.knobs["rows"], self._rows)

    def _rows(self, first: Expr, rows: int) -> None:
        """Emit `rows` rows from row `first` on."""
        kernel, layer, lanes = self.kernel, self.layer, self.kernel.lanes
        for columns, parts in column_panels(kernel, layer.columns, self.knobs["vectors"]):
            vectors = len(parts)
            with columns as column:
                right = partial(self._right, columns=[(column + j * lanes, part) for j, part in enumerate(parts)])
                for place, value in enumerate(self._sums(self._left(first), right, rows, vectors)):
                    row, j = divmod(place, vectors)
                    target = (self.share.number * layer.rows + first + row) * layer.columns + column + j * lanes
                    kernel.store_part(self.buffers["output"], value, target, parts[j])

    def _sums(self, left: tuple[Buffer, Row], right: Callable[[Expr, int], Expr], rows: int, vectors: int) -> list[Expr]:
        """Emit a register tile; return the vectors of its complete sums, row by row."""
        kernel, lanes, terms, totals = self.kernel, self.kernel.lanes, self.layer.terms, self.totals
        places = range(0, rows * vectors * lanes, lanes)
        if totals is None:
            sums = row_products(kernel, left, right, (rows, vectors, terms))
            return [kernel.load(sums, place) for place in places]
        buffer, row_at = left

        def add(first: Expr, count: int) -> None:
            chain = buffer, lambda row: row_at(row) + first
            sums = row_products(kernel, chain, lambda k, j: right(first + k, j), (rows, vectors, count))
            for place in places:
                kernel.store(totals, kernel.load(totals, place) + kernel.widened(kernel.load(sums, place), lanes), place)

        kernel.fill(totals, kernel.total(0.0), rows * vectors)
        with kernel.loop(terms // self.chain) as number:
            add(number * self.chain, self.chain)
        if terms % self.chain:
            add(terms // self.chain * self.chain, terms % self.chain)
        return [kernel.narrowed(kernel.load(totals, place), lanes) for place in places]

    def _left(self, first: Expr) -> tuple[Buffer, Any]:
        """Return the left matrix's buffer, and a function that maps a row, counted from `first`, to its index there."""
        layer = self.layer
        if self.left is None:
            return self.buffers["data"], lambda row: (self.share.number * layer.rows + first + row) * layer.terms
        pitch = round_up(layer.terms, self.kernel.lanes)
        return self.left, lambda row: (first + row) * pitch

    def _right(self, term: Expr, vector: int, columns: list[tuple[Expr, int]]) -> Expr:
        """Return a vector of the right matrix, zero-padded; `columns` has the first column and the number of columns of each vector."""
        kernel, layer, (column, count) = self.kernel, self.layer, columns[vector]
        if self.right is None:
            return kernel.load_part(self.buffers["other"], (self.share.number * layer.terms + term) * layer.columns + column, count)
        return kernel.load(self.right, term * round_up(layer.columns, kernel.lanes) + column)
