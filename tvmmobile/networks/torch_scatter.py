"""Converts PyTorch's operators that write into a tensor, at places or where a mask is true. TVM's importer knows neither masks nor numbers
that are written to several places, and pairs places with wrong dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.networks.scattering import from_the_front, is_regular, scattered

#: Relax's reductions by PyTorch's names, and the numbers that change nothing in them.
_REDUCTIONS = {"sum": ("add", 0), "mean": ("add", 0), "prod": ("mul", 1), "amax": ("max", -math.inf), "amin": ("min", math.inf)}


def scatter_converters() -> dict[str, Callable[[Any, Any], Any]]:
    """Return converters as in `torch_operators`, by the operator's name and overload."""
    plain = dict.fromkeys(("scatter.src", "scatter.value"), partial(_scatter, "update"))
    return {**plain, "scatter_add.default": partial(_scatter, "add"), "scatter_reduce.two": _reduced, "index_put.default": _index_put}


def _scatter(reduction: str, node: Any, importer: Any) -> Any:
    data, axis, indices, updates = node.args[:4]
    return _placed(importer, importer.env[data], int(axis), importer.env[indices], importer.env.get(updates, updates), reduction)


def _placed(importer: Any, data: Any, axis: int, indices: Any, updates: Any, reduction: str) -> Any:
    """Emit a scatter of a tensor, of which only the part with indices counts, or of a number."""
    emit, op, counts = importer.block_builder.emit, relax.op, shape_of(indices)
    if not isinstance(updates, relax.Expr):
        updates = constant(np.full(counts, updates, str(data.ty.dtype)))
    elif shape_of(updates) != counts:
        updates = emit(op.strided_slice(updates, list(range(len(counts))), [0] * len(counts), counts))
    axis %= len(counts)
    if is_regular(data, indices, axis):
        return emit(op.scatter_elements(data, indices, updates, axis, reduction))
    return emit(scattered(data, indices, updates, axis, reduction))


def _reduced(node: Any, importer: Any) -> Any:
    """Convert `scatter_reduce`; without the tensor itself in the reductions, it holds what changes nothing there."""
    emit, op = importer.block_builder.emit, relax.op
    axis, name, own = int(node.args[1]), node.args[4], node.kwargs.get("include_self", True)
    data, indices, updates = (importer.env[node.args[place]] for place in (0, 2, 3))
    kind, (reduction, nothing) = np.dtype(str(data.ty.dtype)), _REDUCTIONS[name]
    if kind.kind != "f" and not math.isfinite(nothing):
        nothing = np.iinfo(kind).max if nothing > 0 else np.iinfo(kind).min

    def placed(start: Any, numbers: Any, how: str) -> Any:
        return _placed(importer, start, axis, indices, numbers, how)

    result = placed(data if own else placed(data, nothing, "update"), updates, reduction)
    if name != "mean":
        return result
    ones = constant(np.ones(shape_of(data), kind))
    counts = emit(op.maximum(placed(ones if own else placed(ones, 0, "update"), 1, "add"), relax.const(1, str(kind))))
    return emit((op.divide if kind.kind == "f" else op.floor_divide)(result, counts))


def _index_put(node: Any, importer: Any) -> Any:
    """Convert an assignment to elements."""
    data, values = (importer.env[node.args[place]] for place in (0, 2))
    indices = {axis: importer.env[index] for axis, index in enumerate(node.args[1]) if index is not None}
    accumulate = bool(node.args[3] if len(node.args) > 3 else node.kwargs.get("accumulate", False))
    write = _masked if any(str(index.ty.dtype) == "bool" for index in indices.values()) else _written
    return write(importer.block_builder.emit, data, indices, values, accumulate)


def _masked(emit: Callable[[Any], Any], data: Any, indices: Mapping[int, Any], values: Any, accumulate: bool) -> Any:
    """Emit a choice between the tensor and the same values for all true elements of a mask over some of its dimensions."""
    op, (axis, mask) = relax.op, next(iter(indices.items()))
    over, given = shape_of(mask), shape_of(values)
    behind = len(shape_of(data)) - axis - len(over)
    if len(indices) > 1:
        raise NotImplementedError("a mask together with other indices")
    given = [1] * (axis + 1 + behind - len(given)) + given
    if given[axis] != 1:
        raise NotImplementedError("a value for each true element of a mask")
    values = emit(op.reshape(values, [*given[:axis], *[1] * len(over), *given[axis + 1 :]]))
    if accumulate:
        values = emit(op.add(data, values))
    return emit(op.where(emit(op.reshape(mask, [1] * axis + over + [1] * behind)), values, data))


def _written(emit: Callable[[Any], Any], data: Any, indices: Mapping[int, Any], values: Any, accumulate: bool) -> Any:
    """Emit a scatter of parts along the dimensions without indices, which come last."""
    op, shape, axes = relax.op, shape_of(data), list(indices)
    others = [axis for axis in range(len(shape)) if axis not in indices]
    order, extents = [*axes, *others], [shape[axis] for axis in others]
    counts = list(np.broadcast_shapes(*(tuple(shape_of(index)) for index in indices.values())))
    if 0 in counts:
        return data
    front = axes[0] if axes == list(range(axes[0], axes[-1] + 1)) else 0  # dimensions of the values in front of those of the indices
    values = emit(op.broadcast_to(values, [*extents[:front], *counts, *extents[front:]]))
    places = list(range(front, front + len(counts)))
    values = emit(op.permute_dims(values, [*places, *(place for place in range(len(counts) + len(others)) if place not in places)]))
    if not counts:
        counts, values = [1], emit(op.expand_dims(values, 0))
    columns = []
    for axis, index in indices.items():
        whole = index if str(index.ty.dtype) == "int64" else emit(op.astype(index, "int64"))
        whole = emit(op.broadcast_to(emit(from_the_front(whole, relax.const(shape[axis], "int64"))), counts))
        columns.append(emit(op.expand_dims(whole, -1)))
    where = columns[0] if len(columns) == 1 else emit(op.concat(columns, -1))
    result = emit(op.scatter_nd(emit(op.permute_dims(data, order)), where, values, "add" if accumulate else "update"))
    return emit(op.permute_dims(result, [int(place) for place in np.argsort(order)]))
