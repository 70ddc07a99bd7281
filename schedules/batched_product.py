"""Matrix products of activations, one after another: a few rows and vectors of columns at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from tvmmobile.graph.layers import Array, LayerParameters, Product
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit import Buffer, Expr, Kernel, share
from tvmmobile.schedules.row_products import column_panels, row_products, turn_rows
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import THREADS, Template, layer_of


class BatchedProduct(Template):
    """Takes the products of activations in float32. Threads share the products.

    Knobs:
        rows: at a time.
        vectors: of columns whose sums are held in registers at a time.
    """

    name = "batched_product"
    version = 1
    handles = THREADS
    enough_trials = 6

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Product) or task.precision != FLOAT32:
            return None
        options = {"rows": up_to((2, 4, 6), layer.rows), "vectors": up_to((1, 2, 3, 4), -(-layer.columns // task.lanes))}

        def fits(knobs: Knobs) -> bool:
            rows, vectors = knobs["rows"], knobs["vectors"]
            return rows == min(max(options["rows"]), 4) or (rows + 1) * (vectors + 1) <= task.machine.registers

        return Space(self.name, self.version, options, fits, {"rows": 4, "vectors": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Extents, which matrices are transposed, and what the last tiles waste."""
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
            with kernel.span(*share(thread, task.threads, layer.count)) as number:
                _One(kernel, layer, knobs, buffers, left, right, number).emit()
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """It has no constants."""
        return []


@dataclass(frozen=True)
class _One:
    """Emits one product.

    Attributes:
        knobs: see `BatchedProduct`.
        buffers: by argument.
        left, right: memory for a transposed matrix; `None` for one that is read as it is.
        number: of the product.
    """

    kernel: Kernel
    layer: Product
    knobs: Knobs
    buffers: dict[str, Buffer]
    left: Buffer | None
    right: Buffer | None
    number: Expr

    def emit(self) -> None:
        """All rows."""
        kernel, layer, rows = self.kernel, self.layer, self.knobs["rows"]
        if self.left is not None:
            start = self.number * (layer.terms * layer.rows)
            turn_rows(kernel, self.buffers["data"], lambda row: start + row * layer.rows, (layer.terms, layer.rows), self.left)
        if self.right is not None:
            first = self.number * (layer.columns * layer.terms)
            turn_rows(kernel, self.buffers["other"], lambda row: first + row * layer.terms, (layer.columns, layer.terms), self.right)
        whole, rest = divmod(layer.rows, rows)
        with kernel.loop(whole) as block:
            self._rows(block * rows, rows)
        if rest:
            self._rows(whole * rows, rest)

    def _rows(self, first: Expr, rows: int) -> None:
        """A few rows from one on."""
        kernel, layer, lanes = self.kernel, self.layer, self.kernel.lanes
        for columns, vectors in column_panels(kernel, layer.columns, self.knobs["vectors"]):
            with columns as column:
                parts = [min(lanes, layer.columns - column - j * lanes) if isinstance(column, int) else lanes for j in range(vectors)]
                sums = row_products(
                    kernel,
                    self._left(first),
                    lambda k, j, column=column, parts=parts: self._right(k, column + j * lanes, parts[j]),  # type: ignore[misc]
                    (rows, vectors, layer.terms),
                )
                for row in range(rows):
                    for j in range(vectors):
                        target = (self.number * layer.rows + first + row) * layer.columns + column + j * lanes
                        kernel.store_part(self.buffers["output"], kernel.load(sums, (row * vectors + j) * lanes), target, parts[j])

    def _left(self, first: Expr) -> tuple[Buffer, Any]:
        """Where rows of the first matrix are, from one on."""
        layer = self.layer
        if self.left is None:
            return self.buffers["data"], lambda row: (self.number * layer.rows + first + row) * layer.terms
        pitch = round_up(layer.terms, self.kernel.lanes)
        return self.left, lambda row: (first + row) * pitch

    def _right(self, term: Expr, column: Expr, count: int) -> Expr:
        """A vector of the second matrix; elements beyond its columns are zeros."""
        kernel, layer = self.kernel, self.layer
        if self.right is None:
            return kernel.load_part(self.buffers["other"], (self.number * layer.terms + term) * layer.columns + column, count)
        return kernel.load(self.right, term * round_up(layer.columns, kernel.lanes) + column)
