"""Removes steps that change nothing: Python's `sum` begins with 0, factors default to 1, and a branch may have no channels."""

from __future__ import annotations

from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import holds, operator_of, shape_of
from tvmmobile.graph.operators import constant_operand
from tvmmobile.graph.passes.rewriting import replace_values

#: The second operand that leaves the first unchanged; for the first two operators, it may also be the first operand.
_NEUTRAL = {"relax.add": 0.0, "relax.multiply": 1.0, "relax.subtract": 0.0, "relax.divide": 1.0}


def neutral_steps(module: Any) -> Any:
    """Rewrite `x + 0`, `x - 0`, `x * 1` and `x / 1` as `x` in `main`, and leave tensors without elements out of concatenations."""
    return replace_values(module, lambda value, _: _joined(value) if operator_of(value) == "relax.concat" else _operand(value))


def _operand(value: Any) -> Any:
    """Return the operand that such a step returns; `None` for other values."""
    name = operator_of(value)
    if name not in _NEUTRAL:
        return None
    data, other = constant_operand(value) or (None, None)
    if not isinstance(data, relax.Var) or not holds(other, _NEUTRAL[name]):
        return None
    same = shape_of(data) == shape_of(value) and str(data.ty.dtype) == str(value.ty.dtype)
    return data if same else None


def _joined(value: Any) -> Any:
    """Return a concatenation without the tensors that have no elements; `None` if all have some, or none."""
    if not isinstance(value.args[0], relax.Tuple) or value.attrs.axis is None:
        return None
    parts = list(value.args[0].fields)
    left = [part for part in parts if 0 not in shape_of(part)]
    if not left or len(left) == len(parts):
        return None
    return left[0] if len(left) == 1 else relax.op.concat(left, int(value.attrs.axis))
