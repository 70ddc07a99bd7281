"""Operators that only move elements: in which order, found by applying them to the elements' indices, and of which constant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.rewriting import VIEW

#: From channels first to channels last, and back.
TO_LAST, TO_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)


def turned(value: Any, axes: Sequence[int]) -> Any:
    """The variable that a permutation with these axes reads; `None` for other values."""
    if operator_of(value) != "relax.permute_dims" or value.attrs.axes is None:
        return None
    return value.args[0] if tuple(map(int, value.attrs.axes)) == tuple(axes) else None


def moved_by(view: Any, numbers: Array) -> Array | None:
    """The result of a view of an array; `None` for other operators."""
    name = operator_of(view)
    if name == "relax.broadcast_to":
        return np.broadcast_to(numbers, shape_of(view))
    if has(view, Trait.RESHAPE):
        return numbers.reshape(shape_of(view))
    if name == "relax.permute_dims":
        return numbers.transpose(None if view.attrs.axes is None else [int(axis) for axis in view.attrs.axes])
    return numbers[_sliced(view, numbers.ndim)] if name == "relax.strided_slice" else None


def constant_of(value: Any, values: Mapping[Any, Any]) -> Array | None:
    """The numbers of a constant or of a view of one; `None` for what is computed.

    Args:
        values: of variables.
    """
    import tvm

    value = values.get(value, value)
    if operator_of(value) == VIEW and isinstance(value.args[0], tvm.ir.GenericConst):
        return np.asarray(value.args[0].value.numpy().reshape(shape_of(value)))
    return np.asarray(value.value.numpy()) if isinstance(value, tvm.ir.GenericConst) else None


def _sliced(view: Any, rank: int) -> tuple[slice, ...]:
    """What a `strided_slice` takes of each axis."""
    axes, begins, ends, *others = ([int(number.value) for number in part.fields] for part in view.args[1:])
    steps = others[0] if others else [1] * len(axes)
    found = [slice(None)] * rank
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        found[axis] = slice(begin, end, step)
    return tuple(found)
