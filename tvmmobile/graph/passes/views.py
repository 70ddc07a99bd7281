"""How operators that only move elements order them: the operators are applied to the elements' indices."""

from __future__ import annotations

from typing import Any

import numpy as np

from tvmmobile.graph.expressions import operator_of, shape_of
from tvmmobile.graph.layers import Array
from tvmmobile.graph.passes.channel_trace import slice_of
from tvmmobile.graph.passes.rewriting import VIEW

#: Views that keep the order of elements, where they keep their number.
ORDERED = {VIEW, "relax.squeeze", "relax.expand_dims", "relax.flatten", "relax.broadcast_to"}


def moved_by(view: Any, numbers: Array) -> Array | None:
    """The result of a view of an array; `None` for other operators."""
    name = operator_of(view)
    if name == "relax.broadcast_to":
        return np.broadcast_to(numbers, shape_of(view))
    if name in ORDERED:
        return numbers.reshape(shape_of(view))
    if name == "relax.permute_dims":
        return numbers.transpose(None if view.attrs.axes is None else [int(axis) for axis in view.attrs.axes])
    sliced = slice_of(view) if name == "relax.strided_slice" else None
    return None if sliced is None else numbers.take(np.arange(*sliced[1:]), sliced[0])
