"""Rewrites comparisons of booleans as comparisons of small integers: LLVM refuses TVM's code for `==` and `!=` of booleans."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.passes.rewriting import value_pass

_COMPARISONS = {"relax.equal", "relax.not_equal"}


@value_pass
def compare_booleans(value: Any, _: Mapping[Any, Any]) -> Any:
    """Rewrite every `==` and `!=` of booleans in `main`, as ONNX's exporter writes an exclusive or."""
    if operator_of(value) not in _COMPARISONS or str(value.args[0].ty.dtype) != "bool":
        return None
    return relax.Call(value.op, [relax.op.astype(operand, "int8") for operand in value.args], value.attrs)
