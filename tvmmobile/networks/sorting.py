"""Sorting and running sums of an imported network as comparisons and products, for which there are kernels; TVM would call its runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import shape_of
from tvmmobile.graph.passes.rewriting import rewrite_main
from tvmmobile.graph.precision import FLOAT32

#: Elements of a row that may be sorted: every one is compared with every other.
MOST_SORTED = 4096


def without_sorting(module: Any) -> Any:
    """Rewrite `topk`, `sort` and `argsort` of float32, and `cumsum`, in `main`."""
    from tvm.relax.dpl import is_op, wildcard

    rules: dict[str, Callable[[Any, Any], Any]] = {"topk": _topk, "sort": _sort, "argsort": _argsort, "cumsum": _cumsum}
    for name, rule in rules.items():
        data = wildcard()

        def rewrite(call: Any, matched: Any, rule: Any = rule, data: Any = data) -> Any:
            found = matched[data]
            fits = rule is _cumsum or str(found.ty.dtype) == FLOAT32.name
            return rule(call.attrs, found) if fits and _row(call.attrs, found) <= MOST_SORTED else call

        module = rewrite_main(module, is_op(f"relax.{name}")(data), rewrite)
    return module


def _axis(attrs: Any, data: Any) -> int:
    """The dimension along which elements are put in order; that of all elements has to be the only one."""
    return 0 if attrs.axis is None else int(attrs.axis) % len(data.ty.shape)


def _row(attrs: Any, data: Any) -> int:
    """Elements to put in order; more than may be if they are those of several dimensions."""
    return MOST_SORTED + 1 if attrs.axis is None and len(data.ty.shape) > 1 else int(data.ty.shape[_axis(attrs, data)])


def _topk(attrs: Any, data: Any) -> Any:
    from tvm import relax

    size = _row(attrs, data)
    count = size if int(attrs.k) < 1 else min(int(attrs.k), size)
    values, places = _first(data, _axis(attrs, data), bool(attrs.largest), count, str(attrs.dtype))
    return {"both": relax.Tuple([values, places]), "values": values, "indices": places}[str(attrs.ret_type)]


def _sort(attrs: Any, data: Any) -> Any:
    return _first(data, _axis(attrs, data), bool(attrs.descending), _row(attrs, data))[0]


def _argsort(attrs: Any, data: Any) -> Any:
    return _first(data, _axis(attrs, data), bool(attrs.descending), _row(attrs, data), str(attrs.dtype))[1]


def _first(data: Any, axis: int, descending: bool, count: int, kind: str = "int64") -> tuple[Any, Any]:
    """The first `count` elements in order, and their places; of equal ones the first comes first.

    An element's rank is the number of elements before it.
    """
    from tvm import relax

    op, shape = relax.op, shape_of(data)
    size = shape[axis]
    order = [place for place in range(len(shape)) if place != axis] + [axis]
    back = [int(place) for place in np.argsort(order)]
    rows = op.permute_dims(data, order)
    one, other = op.expand_dims(rows, -1), op.expand_dims(rows, -2)
    earlier = relax.const(np.triu(np.ones((size, size), np.float32), 1).T.copy())  # whether the other comes first among equals
    zero, before = relax.const(0.0, FLOAT32.name), op.greater(other, one) if descending else op.less(other, one)
    ranks = op.sum(op.where(before, relax.const(1.0, FLOAT32.name), op.where(op.equal(other, one), earlier, zero)), axis=[-1])
    wanted = relax.const(np.arange(count, dtype=np.float32)[:, None])
    chosen = op.equal(op.expand_dims(ranks, -2), wanted)
    values = op.sum(op.where(chosen, op.expand_dims(rows, -2), zero), axis=[-1])
    places = op.sum(op.where(chosen, relax.const(np.arange(size, dtype=np.float32)), zero), axis=[-1])
    return op.permute_dims(values, back), op.astype(op.permute_dims(places, back), kind)


def _cumsum(attrs: Any, data: Any) -> Any:
    """A product with a triangle of ones; sums of integers are exact up to 2²⁴."""
    from tvm import relax

    op, axis, rank = relax.op, _axis(attrs, data), len(data.ty.shape)
    order = [place for place in range(rank) if place != axis] + [axis]
    triangle = np.triu(np.ones([int(data.ty.shape[axis])] * 2, np.float32), int(bool(attrs.exclusive)))
    kind = str(data.ty.dtype)
    wanted = str(attrs.dtype or kind)
    rows = op.permute_dims(data if kind == FLOAT32.name else op.astype(data, FLOAT32.name), order)
    sums = op.permute_dims(op.matmul(rows, relax.const(triangle)), [int(place) for place in np.argsort(order)])
    return sums if wanted in (FLOAT32.name, "void", "") else op.astype(op.round(sums), wanted)
