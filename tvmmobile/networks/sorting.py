"""Rewrites an imported network's sorting and running sums as kernels; TVM would call its runtime."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tvmmobile.graph.bindings import bindings_of
from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.passes.rewriting import mutate_main
from tvmmobile.networks.selection import first_in_order, running_sums


def without_sorting(module: Any) -> Any:
    """Rewrite `topk`, `sort`, `argsort` and `cumsum` in `main`."""
    if not any(operator_of(binding.value) in _RULES for binding in bindings_of(module["main"])):
        return module
    return mutate_main(module, _Rewriter(module))


@mutator
class _Rewriter(PyExprMutator):  # type: ignore[misc]
    def visit_call_(self, call: Any) -> Any:
        call = self.visit_expr_post_order(call)
        rule = _RULES.get(operator_of(call))
        if rule is None or (call.attrs.axis is None and len(shape_of(call.args[0])) > 1):
            return call
        return rule(self.builder_, call.attrs, call.args[0])


def _axis(attrs: Any, data: Any) -> int:
    """Return the dimension that is sorted; a sort of all elements needs a tensor of one dimension."""
    return 0 if attrs.axis is None else int(attrs.axis) % len(data.ty.shape)


def _topk(builder: Any, attrs: Any, data: Any) -> Any:
    size = shape_of(data)[_axis(attrs, data)]
    count = size if int(attrs.k) < 1 else min(int(attrs.k), size)
    values, places = _first(builder, data, _axis(attrs, data), bool(attrs.largest), count, str(attrs.dtype))
    return {"both": relax.Tuple([values, places]), "values": values, "indices": places}[str(attrs.ret_type)]


def _sorted(builder: Any, attrs: Any, data: Any) -> tuple[Any, Any]:
    axis, kind = _axis(attrs, data), str(getattr(attrs, "dtype", "int64"))
    return _first(builder, data, axis, bool(attrs.descending), shape_of(data)[axis], kind)


def _first(builder: Any, data: Any, axis: int, descending: bool, count: int, kind: str = "int64") -> tuple[Any, Any]:
    """Return the first `count` elements in order and their places; equal ones keep their order."""
    rank = len(shape_of(data))
    last = [place for place in range(rank) if place != axis] + [axis]
    back = [int(place) for place in np.argsort(last)]
    moved = axis != rank - 1
    rows = builder.emit(relax.op.permute_dims(data, last)) if moved else data
    places = first_in_order(builder, rows, count, descending, kind)
    values = builder.emit(relax.op.gather_elements(rows, places, rank - 1))
    return (relax.op.permute_dims(values, back), relax.op.permute_dims(places, back)) if moved else (values, places)


def _cumsum(builder: Any, attrs: Any, data: Any) -> Any:
    """Return running sums along an axis."""
    axis, rank, kind = _axis(attrs, data), len(data.ty.shape), str(attrs.dtype or "void")
    order = [place for place in range(rank) if place != axis] + [axis]
    rows = builder.emit(relax.op.permute_dims(data, order))
    sums = running_sums(builder, rows, bool(attrs.exclusive), str(data.ty.dtype) if kind == "void" else kind)
    return relax.op.permute_dims(sums, [int(place) for place in np.argsort(order)])


#: Functions that make a builder's call from an operator's attributes and data, by operator.
_RULES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "relax.topk": _topk,
    "relax.sort": lambda *given: _sorted(*given)[0],
    "relax.argsort": lambda *given: _sorted(*given)[1],
    "relax.cumsum": _cumsum,
}
