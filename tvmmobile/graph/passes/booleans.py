"""Rewrites comparisons of booleans as comparisons of small integers: LLVM refuses TVM's code for `==` and `!=` of booleans."""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import replace_values

_COMPARISONS = {"relax.equal", "relax.not_equal"}


def compare_booleans(module: Any) -> Any:
    """Rewrite every `==` and `!=` of booleans in `main`, as ONNX's exporter writes an exclusive or."""
    return replace_values(module, lambda value, _: _compared(value))


def _compared(value: Any) -> Any:
    """Return the comparison of the operands as integers; `None` for other values."""
    if operator_of(value) not in _COMPARISONS or str(value.args[0].ty.dtype) != "bool":
        return None
    return relax.Call(value.op, [relax.op.astype(operand, "int8") for operand in value.args], value.attrs)
