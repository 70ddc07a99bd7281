"""Permutations between channels first and channels last, and views of constants."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.parameters import Array
from tvmmobile.graph.passes.rewriting import VIEW

#: Permutations from channels first to channels last, and back.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def turned(value: Any, axes: Sequence[int]) -> Any:
    """Return the variable that a permutation with these axes reads; `None` for other values."""
    if operator_of(value) != "relax.permute_dims" or value.attrs.axes is None:
        return None
    return value.args[0] if tuple(map(int, value.attrs.axes)) == tuple(axes) else None


def constant_of(value: Any, values: Mapping[Any, Any]) -> Array | None:
    """Return the numbers of a constant or of a view of one; `None` for what is computed.

    Args:
        values: value of each variable.
    """
    import tvm

    value = values.get(value, value)
    if operator_of(value) == VIEW and isinstance(value.args[0], tvm.ir.GenericConst):
        return np.asarray(value.args[0].value.numpy().reshape(shape_of(value)))
    return np.asarray(value.value.numpy()) if isinstance(value, tvm.ir.GenericConst) else None
