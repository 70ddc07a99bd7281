"""Writes scattering operators in Relax for every format's importer."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, numbers_of, shape_of


def from_the_front(indices: Any, extents: Any) -> Any:
    """Return indices with negative ones counted from the end of these extents."""
    op, kind, numbers = relax.op, str(indices.ty.dtype), numbers_of(indices)
    if numbers is not None:
        return constant(np.where(numbers < 0, numbers + numbers_of(extents), numbers).astype(kind))
    return op.where(op.less(indices, relax.const(0, kind)), op.add(indices, extents), indices)


def is_regular(data: Any, indices: Any, axis: int) -> bool:
    """Return whether there are indices for all of the data along the other axes, as TVM's `scatter_elements` needs."""
    pairs = enumerate(zip(shape_of(data), shape_of(indices), strict=True))
    return all(extent == count for place, (extent, count) in pairs if place != axis)


def scattered(data: Any, indices: Any, updates: Any, axis: int, reduction: str = "update") -> Any:
    """Return data with an update for each index along an axis, by coordinates; TVM would count with the indices' extents."""
    op, kind = relax.op, str(indices.ty.dtype)
    coordinates = [constant(numbers.astype(kind)[..., None]) for numbers in np.indices(shape_of(indices))]
    coordinates[axis] = op.expand_dims(from_the_front(indices, relax.const(shape_of(data)[axis], kind)), -1)
    return op.scatter_nd(data, op.concat(coordinates, -1), updates, reduction)
