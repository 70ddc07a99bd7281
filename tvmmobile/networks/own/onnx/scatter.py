"""Scattering operators of ONNX files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.expressions import constant, shape_of
from tvmmobile.networks.scattering import from_the_front, is_regular, scattered


def scatter_nd(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ScatterND`, keeping the order of dimensions that the indices refer to: TVM would permute only the data's."""
    data, indices, updates = inputs
    if attrs.get("reduction", b"none") != b"none":
        return None
    extents = constant(np.array(shape_of(data)[: shape_of(indices)[-1]], str(indices.ty.dtype)))
    data, updates = (relax.op.reshape(tensor, shape_of(tensor)) for tensor in (data, updates))
    return relax.op.scatter_nd(data, from_the_front(indices, extents), updates, "update")


def scatter_elements(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `ScatterElements` with fewer indices than data in other dimensions, which TVM misreads."""
    data, indices, updates = inputs
    axis = int(attrs.get("axis", 0)) % len(shape_of(data))
    if is_regular(data, indices, axis):
        return None
    reduction = attrs.get("reduction", b"none").decode()
    return scattered(data, indices, updates, axis, "update" if reduction == "none" else reduction)
