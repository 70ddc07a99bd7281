"""Scattering operators of ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, numbers_of, shape_of


def scatter_nd(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ScatterND`, keeping the order of dimensions that the indices refer to: TVM would permute only the data's."""
    data, indices, updates = inputs
    if attrs.get("reduction", b"none") != b"none":
        return None
    extents = constant(np.array(shape_of(data)[: shape_of(indices)[-1]], str(indices.ty.dtype)))
    data, updates = (relax.op.reshape(tensor, shape_of(tensor)) for tensor in (data, updates))
    return relax.op.scatter_nd(data, from_the_front(indices, extents), updates, "update")


def from_the_front(indices: Any, extents: Any) -> Any:
    """Return indices with negative ones counted from the end of these extents."""
    op, kind, numbers = relax.op, str(indices.ty.dtype), numbers_of(indices)
    if numbers is not None:
        return constant(np.where(numbers < 0, numbers + numbers_of(extents), numbers).astype(kind))
    return op.where(op.less(indices, relax.const(0, kind)), op.add(indices, extents), indices)


def scatter_elements(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ScatterElements` with fewer indices than data in other dimensions; TVM would count with the indices' extents."""
    data, indices, updates = inputs
    axis, extents, given = int(attrs.get("axis", 0)), shape_of(data), shape_of(indices)
    axis %= len(extents)
    if all(extent == count for place, (extent, count) in enumerate(zip(extents, given, strict=True)) if place != axis):
        return None
    op, kind = relax.op, str(indices.ty.dtype)
    coordinates = [constant(numbers.astype(kind)[..., None]) for numbers in np.indices(given)]
    coordinates[axis] = op.expand_dims(from_the_front(indices, relax.const(extents[axis], kind)), -1)
    reduction = attrs.get("reduction", b"none").decode()
    return op.scatter_nd(data, op.concat(coordinates, -1), updates, "update" if reduction == "none" else reduction)
