"""PyTorch operators that select boxes and places into tensors of fixed sizes; `pt2/missing_rows.py` uses them for torchvision's."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import torch
from tvm import relax

from tvmmobile.graph.expressions import shape_of
from tvmmobile.networks import selection

LIBRARY = "tvmmobile"
#: Their targets in a serialised program.
SUPPRESSION, PLACES = (f"torch.ops.{LIBRARY}.{name}.default" for name in ("suppression", "places"))


@cache
def register_selection() -> Any:
    """Register the operators with PyTorch; return their library, which must stay alive.

    `suppression` is torchvision's `nms` of boxes with a score above `least`. Both return places, with 0 behind, and how many there are.
    """
    library = torch.library.Library(LIBRARY, "DEF")
    library.define("suppression(Tensor boxes, Tensor scores, float overlap, float? least, SymInt most) -> (Tensor, Tensor)")
    library.define("places(Tensor mask) -> (Tensor, Tensor)")
    library.impl("suppression", _suppressed, "CPU")
    library.impl("places", lambda mask: _filled(mask.nonzero().flatten(), mask.numel()), "CPU")

    def placeholders(near: torch.Tensor, most: Any) -> tuple[torch.Tensor, torch.Tensor]:
        return near.new_empty(most, dtype=torch.int64), near.new_empty(1, dtype=torch.int64)

    torch.library.register_fake(
        f"{LIBRARY}::suppression", lambda boxes, scores, overlap, least, most: placeholders(boxes, most), lib=library
    )
    torch.library.register_fake(f"{LIBRARY}::places", lambda mask: placeholders(mask, mask.numel()), lib=library)
    return library


def _suppressed(
    boxes: torch.Tensor, scores: torch.Tensor, overlap: float, least: float | None, most: int
) -> tuple[torch.Tensor, torch.Tensor]:
    order = scores.argsort(descending=True, stable=True)
    if least is not None:
        order = order[scores[order] > least]
    low, high = boxes[:, :2], boxes[:, 2:]
    areas = (high - low).prod(1)
    kept: list[torch.Tensor] = []
    while len(order) and len(kept) < most:
        best, order = order[0], order[1:]
        kept.append(best)
        common = (torch.minimum(high[best], high[order]) - torch.maximum(low[best], low[order])).clamp(min=0).prod(1)
        order = order[~((common / (areas[best] + areas[order] - common)).double() > overlap)]
    return _filled(torch.stack(kept) if kept else order, most)


def _filled(places: torch.Tensor, most: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.nn.functional.pad(places, (0, most - len(places))), torch.tensor([len(places)])


def selection_converters() -> dict[str, Any]:
    """Return converters to Relax, by the operator's name."""
    return {"suppression.default": _convert_suppression, "places.default": _convert_places}


def _convert_suppression(node: Any, importer: Any) -> Any:
    builder, op = importer.block_builder, relax.op
    boxes, scores = (importer.env[operand] for operand in node.args[:2])
    overlap, least, most = node.args[2:]
    limit = np.float32(overlap)
    if float(limit) > overlap:  # torchvision compares with the number in float64
        limit = np.nextafter(limit, np.float32(-np.inf))
    count = shape_of(scores)[0]
    options = selection.Suppression(most, float(limit), least, "ordered")
    batch = builder.emit(op.reshape(boxes, (1, count, 4))), builder.emit(op.reshape(scores, (1, 1, count)))
    rows = selection.non_max_suppression(builder, *batch, options)
    return _places_and_count(builder, builder.emit(op.strided_slice(rows, [1], [2], [3])), most)


def _convert_places(node: Any, importer: Any) -> Any:
    mask = importer.env[node.args[0]]
    return _places_and_count(importer.block_builder, selection.places_of_true(importer.block_builder, mask), shape_of(mask)[0])


def _places_and_count(builder: Any, found: Any, most: int) -> Any:
    """Return the results from places padded with -1."""
    emit, op, zero = builder.emit, relax.op, relax.const(0, "int64")
    places = emit(op.reshape(found, (most,)))
    present = emit(op.astype(emit(op.greater_equal(places, zero)), "int64"))
    return relax.Tuple([emit(op.maximum(places, zero)), emit(op.sum(present, axis=[0], keepdims=True))])
