"""The pieces of a layer's input: slices of tensors that it can read directly."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from tvm import relax

from tvmmobile.graph.composed import ComposedLayer, layer_call
from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.layers import Conv2d, WindowPool
from tvmmobile.graph.machine import BASELINE
from tvmmobile.graph.passes.channel_trace import NHWC, slice_of
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass
from tvmmobile.graph.precision import INT8

_Layer = TypeVar("_Layer", bound=Conv2d | WindowPool)


def reading_pieces(layer: _Layer, data: Any, values: Mapping[Any, Any]) -> tuple[_Layer, list[Any]] | None:
    """Return the layer reading its input's pieces, with their tensors; `None` if there are none or it should not.

    Strassen's algorithm takes one tensor and saves more than the copy costs: 7×7, 464 → 1024 takes 4.69 ms with five pieces and 3.56 ms
    with one tensor. Passes do not know the core, because a library for several cores has one graph.

    Args:
        data: the variable that is its input.
        values: value of each variable.
    """
    if isinstance(layer, Conv2d) and layer.is_pointwise and min(layer.in_channels, layer.out_channels) >= BASELINE.strassen_channels:
        return None
    return with_pieces(layer, data, values)


def with_pieces(layer: _Layer, data: Any, values: Mapping[Any, Any]) -> tuple[_Layer, list[Any]] | None:
    """Return the layer that reads its input's pieces, given `reading_pieces`' arguments, and their tensors; `None` without any."""
    if layer.in_layout != "NHWC":
        return None
    whole: Any = values.get(data)
    name = operator_of(whole)
    if name == "relax.concat" and int(whole.attrs.axis) == NHWC:
        parts = list(getattr(whole.args[0], "fields", ()))
    else:
        parts = [data] if channel_slice(whole) else []
    if not parts or not all(isinstance(part, relax.Var) for part in parts):
        return None
    tensors: list[Any] = []
    pieces = []
    for part in parts:
        tensor, first, count = channel_slice(values.get(part)) or (part, 0, int(part.ty.shape[NHWC]))
        if tensor not in tensors:
            tensors.append(tensor)
        pieces.append((tensors.index(tensor), first, count))
    sources = tuple(int(tensor.ty.shape[NHWC]) for tensor in tensors)
    return replace(layer, sources=sources, pieces=tuple(pieces)), tensors


def channel_slice(value: Any) -> tuple[Any, int, int] | None:
    """Return tensor, first channel and number of channels of a slice of an image NHWC; `None` for other values."""
    if operator_of(value) != "relax.strided_slice":
        return None
    found = slice_of(value)
    return (value.args[0], found[1], found[2] - found[1]) if found and found[0] == NHWC else None


@layer_pass
def integer_pieces(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let integer convolutions that read a concatenation or a slice of channels read its pieces, if all of them can.

    Integers of one scale would only be copied.
    """
    value = graph.values[variable]
    if operator_of(value) != "relax.concat" and channel_slice(value) is None:
        return {}
    found = {reader: _reading(graph, reader, variable) for reader in graph.readers[variable]}
    if None in found.values():
        return {}
    given = {reader: one for reader, one in found.items() if one}
    return {reader: layer_call(graph.layers, *one, graph.values[reader].ty, graph.name(reader)) for reader, one in given.items()}


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
