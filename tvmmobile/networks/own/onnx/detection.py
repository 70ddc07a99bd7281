"""Converts ONNX's regions of images and selections of boxes, which have fixed numbers of rows here (`onnx/missing_rows.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import relax

from tvmmobile.graph.expressions import numbers_of
from tvmmobile.networks import selection
from tvmmobile.networks.selection import Suppression

#: The version from which the coordinates of regions count from the middle of pixels.
_HALF_PIXEL = 16


def select_boxes(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `NonMaxSuppression`: a row for each box that could be selected, -1 in unused ones."""
    boxes, scores, *given = inputs
    most, overlap, score = (_number(value) for value in [*given, *[None] * (3 - len(given))])
    corners: selection.Corners = "centre" if attrs.get("center_point_box", 0) else "any"
    options = Suppression(0 if most is None else most, 0.0 if overlap is None else overlap, score, corners)
    return selection.non_max_suppression(relax.BlockBuilder.current(), boxes, scores, options)


def places_of_true(inputs: Sequence[Any], _attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `NonZero`: a column for every element, -1 in unused ones."""
    return selection.places_of_true(relax.BlockBuilder.current(), inputs[0])


def _number(value: Any) -> Any:
    """Return a constant's number; `None` where there is none."""
    number = numbers_of(value)
    return value if number is None else number.item()


def roi_align(inputs: list[Any], attrs: dict[str, Any], opset: int) -> None:
    """Convert `RoiAlign` with TVM's converter on moved regions: it moves regions by half a pixel before it scales them.

    Raises:
        ValueError: it takes the maximum, which frameworks compute in different ways.
    """
    if attrs.get("mode", b"avg") != b"avg":
        raise ValueError("RoiAlign with mode max is not supported")
    scale, default = float(attrs.get("spatial_scale", 1.0)), b"half_pixel" if opset >= _HALF_PIXEL else b"output_half_pixel"
    if scale != 1 and attrs.get("coordinate_transformation_mode", default) == b"half_pixel":
        moved = relax.op.subtract(inputs[1], relax.const(0.5 / scale - 0.5, str(inputs[1].ty.dtype)))
        inputs[1] = relax.BlockBuilder.current().emit(moved)
