"""Selection of boxes in ONNX files. What is selected has a fixed number of rows here, see `onnx/varying.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvmmobile.graph.expressions import numbers_of
from tvmmobile.networks import selection
from tvmmobile.networks.selection import Suppression


def select_boxes(inputs: Sequence[Any], attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `NonMaxSuppression`: rows for as many boxes as could be selected, -1 in those behind."""
    from tvm import relax

    boxes, scores, *given = inputs
    most, overlap, score = (_number(value) for value in [*given, *[None] * (3 - len(given))])
    corners: selection.Corners = "centre" if attrs.get("center_point_box", 0) else "any"
    options = Suppression(0 if most is None else most, 0.0 if overlap is None else overlap, score, corners)
    return selection.non_max_suppression(relax.BlockBuilder.current(), boxes, scores, options)


def places_of_true(inputs: Sequence[Any], _attrs: dict[str, Any], _opset: int) -> Any:
    """Convert `NonZero`: a column for every element, -1 in those behind."""
    from tvm import relax

    return selection.places_of_true(relax.BlockBuilder.current(), inputs[0])


def _number(value: Any) -> Any:
    """A constant's number; `None` where there is none."""
    number = numbers_of(value)
    return value if number is None else number.item()
