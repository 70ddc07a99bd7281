"""Lets integer convolutions read the pieces of a concatenation, whose integers of one scale would only be copied."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.passes.input_pieces import channel_slice, with_pieces
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass
from tvmmobile.graph.precision import INT8


@layer_pass
def integer_pieces(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let the layers that read a concatenation or a slice of channels read its pieces, if all of them can."""
    value = graph.values[variable]
    if operator_of(value) != "relax.concat" and channel_slice(value) is None:
        return {}
    found = {reader: _reading(graph, reader, variable) for reader in graph.readers[variable]}
    return {} if None in found.values() else {reader: _call(graph, reader, *one) for reader, one in found.items() if one}


def _reading(graph: LayerGraph, variable: Any, data: Any) -> tuple[ComposedLayer, list[Any]] | None:
    """Return the layer reading its input's pieces, and all its inputs; `None` if there is no such layer."""
    found = graph.layer(variable)
    if found is None or found.dtype != INT8.name or not isinstance(found.layer, Conv2d) or found.layer.pieces:
        return None
    first, *others = graph.inputs(variable)
    joined = with_pieces(found.layer, data, graph.values) if first.same_as(data) and data not in others else None
    if joined is None or not graph.accepts(joined[0]):
        return None
    return replace(found, layer=joined[0]), [*joined[1], *others]


def _call(graph: LayerGraph, variable: Any, composed: ComposedLayer, inputs: list[Any]) -> Any:
    return layer_call(graph.layers, composed, inputs, graph.values[variable].ty, graph.name(variable))
