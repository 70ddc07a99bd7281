"""Rewrites views and parts of tensors in forms that TVM 0.27 compiles: squeezes become reshapes, parts of splits and single places become
slices, other indices become non-negative, and views of the same shape stand where layout inference has to stop. What changes nothing goes.

Its layout inference runs out of memory over a squeeze of negative axes, a kernel here has one result, and the `take` that PyTorch's
`x[:, -1]` is imported as reads what lies before the tensor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax
from tvm.relax.dpl import is_const, is_op, is_tuple_get_item, wildcard

from tvmmobile.graph.expressions import VIEW, operator_of, shape_of
from tvmmobile.graph.passes.rewriting import replace_values, rewrite_main

_PERMUTE = "relax.permute_dims"


def plain_views(module: Any) -> Any:
    """Rewrite `squeeze`, views that show all as it is, `scatter_nd`, the parts of `split`, and `take` of one place or at negative ones."""
    data, places = wildcard(), is_const()
    split = is_op("relax.split")(data)
    module = rewrite_main(module, is_op("relax.squeeze")(data), lambda call, matched: relax.op.reshape(matched[data], call.ty.shape))
    module = replace_values(module, lambda value, _: _guarded(value) if operator_of(value) == "relax.scatter_nd" else _shown(value))
    module = rewrite_main(module, is_tuple_get_item(split), lambda part, matched: _sliced(part.index, matched[split], matched[data]))
    return rewrite_main(module, is_op("relax.take")(data, places), lambda call, matched: _positive(call, matched[places].value.numpy()))


def _guarded(scatter: Any) -> Any:
    """Return numbers written into a tensor, behind views that layout inference would turn without their places."""
    target, places, numbers = scatter.args
    views = [relax.op.reshape(part, shape_of(part)) for part in (target, numbers)]
    return relax.Call(scatter.op, [views[0], places, views[1]], scatter.attrs)


def _shown(value: Any) -> Any:
    """Return the variable that a view, a split into one part or a permutation shows unchanged; `None` for other values."""
    if operator_of(value) == VIEW:
        unchanged = shape_of(value.args[0]) == shape_of(value)
    elif operator_of(value) == "relax.split":
        unchanged = not isinstance(value.ty, relax.TupleType)
    else:
        axes = value.attrs.axes if operator_of(value) == _PERMUTE else None
        unchanged = axes is not None and [*axes] == [*range(len(axes))]
    return value.args[0] if unchanged and isinstance(value.args[0], relax.Var) else None


def _sliced(index: int, split: Any, data: Any) -> Any:
    axis = int(split.attrs.axis) % len(data.ty.shape)
    widths = [int(field.shape[axis]) for field in split.ty.fields]
    begin = sum(widths[:index])
    return relax.op.strided_slice(data, [axis], [begin], [begin + widths[index]])


def _positive(call: Any, places: np.ndarray[Any, Any]) -> Any:
    if call.attrs.axis is None:
        return None
    axis = int(call.attrs.axis)
    extent = int(call.args[0].ty.shape[axis])
    positive = np.where(places < 0, places + extent, places).astype(places.dtype)
    if positive.size == 1 and 0 <= positive.item() < extent:
        place = positive.item()
        return relax.op.reshape(relax.op.strided_slice(call.args[0], [axis], [place], [place + 1]), call.ty.shape)
    if (places >= 0).all():
        return None
    positive = relax.const(positive)
    return relax.Call(call.op, [call.args[0], positive], call.attrs)


def unit_permute_to_reshape(module: Any) -> Any:
    """Make a `permute_dims` that moves only axes of length 1, as between the global pool and the classifier, a reshape, which costs
    nothing at run time; reshapes of reshapes are one, and so are permutations of permutations.
    """
    return replace_values(module, _shorter, in_turn=True)


def _shorter(value: Any, values: Mapping[Any, Any]) -> Any:
    """Return a permutation or reshape with the one in front as its own, and without axes of length 1; `None` for other values."""
    if operator_of(value) == VIEW:
        inner: Any = values.get(value.args[0])
        return relax.op.reshape(inner.args[0], value.args[1]) if operator_of(inner) == VIEW else None
    if operator_of(value) != _PERMUTE or value.attrs.axes is None:
        return None
    data, axes = value.args[0], [int(axis) for axis in value.attrs.axes]
    inner = values.get(data)
    joins = operator_of(inner) == _PERMUTE and inner.attrs.axes is not None
    if joins:
        data, axes = inner.args[0], [int(inner.attrs.axes[axis]) for axis in axes]
        if axes == sorted(axes):
            return data
    shape = shape_of(data)
    moved = [axis for axis in axes if shape[axis] != 1]
    if moved == sorted(moved):
        return relax.op.reshape(data, [shape[axis] for axis in axes])
    return relax.op.permute_dims(data, axes) if joins else None
