"""Removes steps that change nothing: Python's `sum` begins with 0, factors default to 1, a branch may have no channels, and gates are often
repeated for every pixel before the product with an image, which does so itself (`x * gate.expand_as(x)`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import holds, operator_of, shape_of
from tvmmobile.graph.operators import Trait, constant_operand, has
from tvmmobile.graph.passes.rewriting import replace_values

#: The second operand that leaves the first unchanged; for the first two operators, it may also be the first operand.
_NEUTRAL = {"relax.add": 0.0, "relax.multiply": 1.0, "relax.subtract": 0.0, "relax.divide": 1.0}


def neutral_steps(module: Any) -> Any:
    """Rewrite `x + 0`, `x - 0`, `x * 1` and `x / 1` as `x` in `main`, leave tensors without elements out of concatenations, and let
    arithmetic read tensors before they are repeated.
    """
    module = replace_values(module, lambda value, _: _joined(value) if operator_of(value) == "relax.concat" else _operand(value))
    return replace_values(module, _without_repetitions)


def _without_repetitions(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return an arithmetic step whose operands are not repeated, where it repeats them itself; `None` for other values."""
    if not has(value, Trait.ARITHMETIC):
        return None
    operands, changed = list(value.args), False
    for place in range(2):
        source = _repeated(values.get(operands[place]))
        if source is not None and _extents(source, operands[1 - place]) == shape_of(value):
            operands[place], changed = source, True
    return relax.Call(value.op, operands, value.attrs) if changed else None


def _repeated(value: Any) -> Any:
    """Return the tensor of which a value repeats dimensions of extent 1; `None` for other values."""
    if operator_of(value) not in ("relax.broadcast_to", "relax.tile") or len(shape_of(value.args[0])) != len(shape_of(value)):
        return None
    pairs = zip(shape_of(value.args[0]), shape_of(value), strict=True)
    return value.args[0] if all(extent in (1, whole) for extent, whole in pairs) else None


def _extents(one: Any, other: Any) -> list[int]:
    """Return the extents of the result of two tensors that are broadcast together."""
    return [*np.broadcast_shapes(tuple(shape_of(one)), tuple(shape_of(other)))]


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
