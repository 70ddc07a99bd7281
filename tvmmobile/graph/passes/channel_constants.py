"""Rewrites per-channel and scalar constants for layout inference: with four dimensions or none, as the second operand.

Networks scale branches by constants of shape (C, 1, 1) or (1), on either side. The image would be permuted before and after.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import value_pass


@value_pass
def channel_constants(value: Any, _: Mapping[Any, Any]) -> Any:
    """Rewrite every element-wise operator of an image, NCHW, and a constant of shape (1), (C, 1, 1) or (1, C, 1, 1)."""
    if not has(value, Trait.ARITHMETIC) or len(shape_of(value)) != 4:
        return None
    constants = [isinstance(operand, tvm.ir.GenericConst) for operand in value.args]
    if sum(constants) != 1:
        return None
    place = constants.index(True)
    shape = shape_of(value.args[place])
    first = place == 0 and has(value, Trait.COMMUTATIVE)
    if shape == [1]:
        wanted: tuple[int, ...] = ()
    elif shape[-2:] == [1, 1] and (len(shape) == 3 or (first and len(shape) == 4 and shape[0] == 1)):
        wanted = 1, -1, 1, 1
    else:
        return None
    operands = list(value.args)
    operands[place] = constant(operands[place].value.numpy().reshape(wanted))
    return relax.Call(value.op, operands[::-1] if first else operands, value.attrs)
