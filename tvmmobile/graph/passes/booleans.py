"""Rewrites comparisons of booleans as comparisons of small integers, as LLVM refuses TVM's code for `==` and `!=` of booleans; and those of
a number with itself as a search for NaN, which TVM takes for equal to itself.
"""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import replace_values

_COMPARISONS = {"relax.equal", "relax.not_equal"}


def compare_booleans(module: Any) -> Any:
    """Rewrite every `==` and `!=` of booleans in `main`, as ONNX's exporter writes an exclusive or, and `x != x`."""
    return replace_values(module, lambda value, _: _compared(value))


def _compared(value: Any) -> Any:
    """Return the comparison of the operands as integers, or of a number with itself; `None` for other values."""
    if operator_of(value) not in _COMPARISONS:
        return None
    (one, other), op = value.args, relax.op
    kind = str(one.ty.dtype)
    if kind == "bool":
        return relax.Call(value.op, [op.astype(operand, "int8") for operand in value.args], value.attrs)
    if not one.same_as(other) or not kind.startswith("float"):
        return None
    return op.isnan(one) if operator_of(value) == "relax.not_equal" else op.logical_not(op.isnan(one))
