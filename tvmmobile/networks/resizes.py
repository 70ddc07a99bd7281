"""Writes resizes in Relax for every format's importer, according to the input pixels of each output pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from tvmmobile.graph.precision import FLOAT32
from tvmmobile.graph.resizing import PLACES, ROUNDINGS, pixels_along
from tvmmobile.graph.taps import Taps, attributes_of, copied

#: Most input pixels of an output pixel that are taken one by one; more become a product with a matrix.
_MOST_TAPS = 4
#: Float32 errors of a position, relative to the input's extent.
_SAME_PLACE = 5e-7


@dataclass(frozen=True)
class Rule:
    """A resize in Relax's terms, by sizes alone.

    Attributes:
        places: `coordinate_transformation_mode`.
        rounding: `rounding_method`; "" of one that is linear.
        more: other attributes to give.
    """

    places: str
    rounding: str = ""
    more: Mapping[str, Any] | None = None

    def gives(self, taps: Taps, inputs: int) -> bool:
        """Return whether a resize by this rule takes these input pixels along an axis."""
        if self.places not in PLACES or (self.rounding and self.rounding not in ROUNDINGS):
            return False
        if self.places == "align_corners" and taps.outputs == 1:
            return False  # TVM divides by zero
        first, _, share = pixels_along(inputs, taps.outputs, self.rounding or "linear", self.places)
        if self.rounding:
            return taps.copies and np.array_equal(taps.pixels[:, 0], first)
        if not taps.is_linear:
            return False
        places, wanted = (pixels.astype(np.float64) + shares for pixels, shares in ((first, share), taps.first_and_share()))
        return bool((np.abs(places - wanted) <= _SAME_PLACE * inputs).all())


def resized(data: Any, shape: Sequence[int], axes: Mapping[int, Taps], kind: str, rule: Rule) -> Any:
    """Return an expression for a tensor resized along axes.

    Args:
        shape: the tensor's.
        kind: its element type.
        rule: Relax's, which is used where it makes the same of an image's last two dimensions.
    """
    rank = len(shape)
    changed = {axis: taps for axis, taps in axes.items() if not taps.keeps(shape[axis])}
    small = all(taps.count <= _MOST_TAPS for taps in changed.values())
    if not changed:
        return data
    if small and rank == 4 and changed.keys() <= {1, 2}:
        return _of_image(data, changed.get(1) or _kept(shape[1]), changed.get(2) or _kept(shape[2]), "NHWC")
    if small and changed.keys() <= {rank - 2, rank - 1}:
        rows, columns = (axes.get(axis) or _kept(shape[axis]) if axis >= 0 else _kept(1) for axis in (rank - 2, rank - 1))
        if rank == 4 and kind == FLOAT32.name and rule.gives(rows, shape[2]) and rule.gives(columns, shape[3]):
            return _by_rule(data, (rows.outputs, columns.outputs), rule)
        return _in_form(data, shape, (rows, columns))
    for axis, taps in changed.items():
        data, shape = _along(data, shape, axis, taps), [*shape[:axis], taps.outputs, *shape[axis + 1 :]]
    return data


def _kept(extent: int) -> Taps:
    return copied(np.arange(extent))


def _of_image(data: Any, rows: Taps, columns: Taps, layout: str) -> Any:
    return relax.op.image.resize2d(data, (rows.outputs, columns.outputs), layout=layout, **attributes_of(rows, columns))


def _by_rule(data: Any, size: tuple[int, int], rule: Rule) -> Any:
    method = {"method": "nearest_neighbor", "rounding_method": rule.rounding} if rule.rounding else {"method": "linear"}
    return relax.op.image.resize2d(data, size, layout="NCHW", coordinate_transformation_mode=rule.places, **{**method, **(rule.more or {})})


def _in_form(data: Any, shape: Sequence[int], taps: tuple[Taps, Taps]) -> Any:
    """Resize the last two dimensions, of a tensor of any rank."""
    rows, columns = taps
    if len(shape) == 4:
        return _of_image(data, rows, columns, "NCHW")
    height, width = [1, *shape][-2:]
    front = shape[0] if len(shape) > 2 else 1
    image = relax.op.reshape(data, (front, math.prod(shape[:-2]) // front, height, width))
    out = [*shape[:-2], rows.outputs, columns.outputs][-len(shape) :]
    return relax.op.reshape(_of_image(image, rows, columns, "NCHW"), out)


def _along(data: Any, shape: Sequence[int], axis: int, taps: Taps) -> Any:
    """Resize one dimension, as the rows of an image of all the others."""
    before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
    out = [*shape[:axis], taps.outputs, *shape[axis + 1 :]]
    if taps.count <= _MOST_TAPS:
        image = relax.op.reshape(data, (1, before, shape[axis], after))
        return relax.op.reshape(_of_image(image, taps, _kept(after), "NCHW"), out)
    matrix = taps.matrix(shape[axis])
    if axis == len(shape) - 1:
        return relax.op.matmul(data, relax.const(np.ascontiguousarray(matrix.T)))
    if axis == len(shape) - 2:
        return relax.op.matmul(relax.const(matrix), data)
    flat = relax.op.matmul(relax.const(matrix), relax.op.reshape(data, (before, shape[axis], after)))
    return relax.op.reshape(flat, out)
