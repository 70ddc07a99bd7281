"""Attention, head by head and a few queries at a time: scores for all keys, their softmax, and the weighted sum of the values."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from operator import add
from typing import Any

import numpy as np

from tvmmobile.graph.layers import Array, Attention, HeadView, LayerParameters
from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.tasks import Task
from tvmmobile.schedules.emit.kernel import Buffer, Expr, Kernel
from tvmmobile.schedules.emit.row_products import Row, RowShare, column_panels, holds_rows, row_products, row_shares, transpose_rows
from tvmmobile.schedules.space import Knobs, Space, round_up, up_to, waste
from tvmmobile.schedules.template import THREADS, Template, layer_of


class HeadAttention(Template):
    """Accepts one attention in float32. Threads share heads, or the queries of a head if heads are few.

    Knobs:
        rows: queries per register tile.
        vectors: vectors per register tile: of keys for scores, of a value's elements for outputs.
    """

    name = "attention"
    version = 1
    handles = THREADS
    enough_trials = 6

    def _space(self, task: Task) -> Space | None:
        layer = task.region[0]
        if not isinstance(layer, Attention) or task.precision != FLOAT32:
            return None
        options = {"rows": up_to((2, 4, 6), layer.queries), "vectors": (2, 3, 4)}
        fits = partial(holds_rows, task.machine, rows=options["rows"])
        return Space(self.name, self.version, options, fits, {"rows": 4, "vectors": 4})

    def features(self, task: Task, knobs: Knobs) -> list[float]:
        """Return extents, and the waste of the last tiles."""
        layer = layer_of(task, Attention)
        extents = (layer.groups * layer.heads, layer.queries, layer.keys, layer.depth, layer.width)
        columns = knobs["vectors"] * task.lanes
        return [*map(math.log2, extents), waste(layer.queries, knobs["rows"]), waste(layer.keys, columns), waste(layer.width, columns)]

    def _emit(self, task: Task, knobs: Knobs) -> Any:
        layer, kernel = layer_of(task, Attention), Kernel(task)
        keys = round_up(layer.keys, kernel.lanes)
        bias = {"bias": (math.prod(layer.bias_shape[:-1]) * keys,)} if layer.constants else {}
        shapes = {"data": layer.input_shape, **layer.side_shapes, **bias, "output": layer.output_shape}
        with kernel.named_body(**shapes) as buffers, kernel.team(task.threads) as thread:
            transposed_keys, scores = kernel.scratch(layer.depth * keys), kernel.scratch(knobs["rows"] * keys)
            with row_shares(kernel, thread, task.threads, layer.groups * layer.heads) as queries:
                _Head(kernel, layer, knobs["vectors"], buffers, transposed_keys, scores, queries).emit(knobs["rows"])
        return kernel.finish()

    def _pack(self, task: Task, knobs: Knobs, parameters: tuple[LayerParameters, ...]) -> list[Array]:
        """Return the biases as a flat array [head, query, key], with keys zero-padded to whole vectors; nothing without biases."""
        layer = layer_of(task, Attention)
        if not layer.constants:
            return []
        return [np.pad(parameters[0].bias.reshape(-1, layer.keys), ((0, 0), (0, -layer.keys % task.lanes))).reshape(-1)]


@dataclass(frozen=True)
class _Head:
    """Emits one head.

    Attributes:
        vectors: see `HeadAttention`.
        buffers: buffers by argument name.
        transposed_keys: the head's keys as [element][key].
        scores: scores of a tile's queries as [query][key], with keys padded to whole vectors.
        share: index of the head (group by group), and the queries to compute.
    """

    kernel: Kernel
    layer: Attention
    vectors: int
    buffers: dict[str, Buffer]
    transposed_keys: Buffer
    scores: Buffer
    share: RowShare

    @property
    def head(self) -> Expr:
        """Index of the head whose queries this share computes."""
        return self.share.number

    @property
    def pitch(self) -> int:
        """Scores per query, padded to whole vectors."""
        return round_up(self.layer.keys, self.kernel.lanes)

    def emit(self, rows: int) -> None:
        """Emit the share's queries."""
        extents = (self.layer.keys, self.layer.depth)
        transpose_rows(self.kernel, self.buffers["key"], self._row(self.layer.key_place), extents, self.transposed_keys)
        self.share.emit(self.kernel, self.layer.queries, rows, self._queries)

    def _row(self, place: HeadView) -> Row:
        first, group, head, token = place
        start = first + self.head // self.layer.heads * group + self.head % self.layer.heads * head
        return lambda row: start + row * token

    def _bias_row(self) -> Row | None:
        """Return a function that maps a query to the index of its first bias, or `None` without biases."""
        layer = self.layer
        if not layer.constants:
            return None
        (groups, heads), group, head = layer.bias, self.head // layer.heads, self.head % layer.heads
        matrix = (group if groups > 1 else 0) * heads + (head if heads > 1 else 0)
        return lambda row: (matrix * layer.queries + row) * self.pitch

    def _queries(self, first: Expr, rows: int) -> None:
        """Emit `rows` queries from query `first` on."""
        kernel, layer, lanes = self.kernel, self.layer, self.kernel.lanes
        query, value = self._row(layer.query_place), self._row(layer.value_place)
        scale, bias = kernel.splat(kernel.number(layer.scale)), self._bias_row()
        for columns, parts in column_panels(kernel, layer.keys, self.vectors):
            vectors = len(parts)
            with columns as column:
                sums = row_products(
                    kernel,
                    (self.buffers["data"], lambda row: query(first + row)),
                    lambda k, j, column=column: kernel.load(self.transposed_keys, k * self.pitch + column + j * lanes),  # type: ignore[misc]
                    (rows, vectors, layer.depth),
                )
                for row in range(rows):
                    for j in range(vectors):
                        score = kernel.load(sums, (row * vectors + j) * lanes) * scale
                        if bias is not None:
                            score = score + kernel.load(self.buffers["bias"], bias(first + row) + column + j * lanes)
                        kernel.store(self.scores, score, row * self.pitch + column + j * lanes)
        shares = [self._softmax(row) for row in range(rows)]
        for columns, parts in column_panels(kernel, layer.width, self.vectors):
            vectors = len(parts)
            with columns as column:
                sums = row_products(
                    kernel,
                    (self.scores, lambda row: row * self.pitch),
                    lambda k, j, column=column, parts=parts: kernel.load_part(  # type: ignore[misc]
                        self.buffers["value"], value(k) + column + j * lanes, parts[j]
                    ),
                    (rows, vectors, layer.keys),
                )
                for row in range(rows):
                    for j in range(vectors):
                        mean = kernel.load(sums, (row * vectors + j) * lanes) * kernel.splat(shares[row])
                        target = self._row(layer.out_place)(first + row) + column + j * lanes
                        kernel.store_part(self.buffers["output"], mean, target, parts[j])

    def _softmax(self, row: int) -> Expr:
        """Replace a query's scores by exp(score - largest score); return the reciprocal of their sum."""
        kernel, T, base = self.kernel, self.kernel.T, row * self.pitch  # noqa: N806

        def score(place: Expr, lanes: int) -> Expr:
            return T.bind(kernel.load(self.scores, place, lanes))

        largest = kernel.reduced(base, self.layer.keys, score, T.max)

        def weighted(place: Expr, lanes: int) -> Expr:
            weight = T.bind(kernel.vectors(lanes).exp_negative(score(place, lanes) - kernel.splat(largest, lanes)))
            kernel.store(self.scores, weight, place, lanes)
            return weight

        total = kernel.reduced(base, self.layer.keys, weighted, add)
        return T.bind(kernel.number(1.0) / kernel.vectors(1).spoiled(total, largest))
