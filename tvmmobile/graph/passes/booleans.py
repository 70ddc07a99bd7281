"""Rewrites comparisons of booleans as comparisons of small integers, as LLVM refuses TVM's code for `==` and `!=` of booleans; and
comparisons of a number with itself as a test for NaN, because TVM assumes that every number equals itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import value_pass

_COMPARISONS = {"relax.equal", "relax.not_equal"}


@value_pass
def compare_booleans(value: Any, _: Mapping[Any, Any]) -> Any:
    """Rewrite every `==` and `!=` of booleans in `main`, as ONNX's exporter writes an exclusive or, and `x != x`."""
    if operator_of(value) not in _COMPARISONS:
        return None
    (one, other), op = value.args, relax.op
    kind = str(one.ty.dtype)
    if kind == "bool":
        return relax.Call(value.op, [op.astype(operand, "int8") for operand in value.args], value.attrs)
    if not one.same_as(other) or not kind.startswith("float"):
        return None
    return op.isnan(one) if operator_of(value) == "relax.not_equal" else op.logical_not(op.isnan(one))
