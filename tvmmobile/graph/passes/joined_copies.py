"""Merges copies that `standalone_steps` inserted before concatenations and sums into the layers beside them.

A convolution reads the pieces of a concatenation itself, where no algorithm that needs one tensor would have been faster; and a sum behind
an activation becomes the last step of the layer that computes one of its terms. Slices of channels that convolutions read or add are not
copied either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.curves import CHANNEL, PLUS, TENSOR
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Layer
from tvmmobile.graph.passes.channel_trace import NHWC
from tvmmobile.graph.passes.input_pieces import channel_slice
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass


def joined_copies(accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]) -> Callable[[Any], Any]:
    """Return the pass, where a template takes the layers; it changes `layers`."""
    beside_copies, of_slices = _beside_copies(accepts, layers), _of_slices(accepts, layers)
    return lambda module: of_slices(beside_copies(module))


@layer_pass
def _beside_copies(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let a layer read pieces or add a term by itself; calls without readers remain."""
    found = _reading(graph, variable) or _summing(graph, variable)
    return {variable: _call(graph, found)} if found and graph.accepts(found[1]) else {}


@layer_pass
def _of_slices(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let layers read and add a slice directly from its tensor, if all its readers can."""
    if channel_slice(graph.values[variable]) is None:
        return {}
    found = {reader: _reading_slice(graph, reader, variable) for reader in graph.readers[variable]}
    calls = {reader: one for reader, one in found.items() if one and graph.accepts(one[1])}
    return {reader: _call(graph, one) for reader, one in calls.items()} if len(calls) == len(found) else {}


#: The name of a layer, its replacement, and the tensors that the replacement reads.
_Joined = tuple[str, Conv2d, tuple[Any, ...]]


def _reading(graph: LayerGraph, variable: Any) -> _Joined | None:
    """Return a convolution that reads the pieces of a copy that only it reads."""
    layer = _convolution(graph, variable)
    if layer is None or layer.scaled or layer.pieces or layer.in_layout != "NHWC":
        return None
    data, *others = graph.inputs(variable)
    copy = _copy(graph, data)
    if copy is None or not copy.pieces or copy.residual or not graph.read_once(data):
        return None
    return graph.name(variable), replace(layer, sources=copy.sources, pieces=copy.pieces), (*graph.inputs(data), *others)


def _summing(graph: LayerGraph, variable: Any) -> _Joined | None:
    """Return one term's layer with the other term added after its activation; without an activation, it already is its residual."""
    copy = _copy(graph, variable)
    if copy is None or not copy.residual or copy.pieces:
        return None
    one, other = graph.inputs(variable)
    for term, added in ((one, other), (other, one)):
        layer = _convolution(graph, term)
        if layer and graph.read_once(term) and layer.clamp != NO_CLAMP and layer.out_layout == "NHWC":
            return graph.name(term), replace(layer, then=(*layer.then, PLUS)), (*graph.inputs(term), added)
    return None


def _reading_slice(graph: LayerGraph, variable: Any, sliced: Any) -> _Joined | None:
    """Return a convolution that reads or adds a slice directly from the sliced tensor."""
    layer, found = _convolution(graph, variable), channel_slice(graph.values[sliced])
    if layer is None or found is None:
        return None
    tensor, first, count = found
    inputs, channels = [*graph.inputs(variable)], int(tensor.ty.shape[NHWC])
    if inputs[0].same_as(sliced) and not (layer.scaled or layer.pieces) and layer.in_layout == "NHWC":
        layer, inputs[0] = replace(layer, sources=(channels,), pieces=((0, first, count),)), tensor
    added = [layer.residual, *(kind for kind in layer.operands if kind != CHANNEL)]
    if inputs[-1].same_as(sliced) and added in ([True], [False, TENSOR]):
        layer, inputs[-1] = replace(layer, added=(channels, first)), tensor
    return None if any(input_.same_as(sliced) for input_ in inputs) else (graph.name(variable), layer, tuple(inputs))


def _call(graph: LayerGraph, joined: _Joined) -> Any:
    name, layer, inputs = joined
    return graph.call(replace(graph.layers[name], layer=layer), inputs, name)


def _convolution(graph: LayerGraph, variable: Any) -> Conv2d | None:
    found = graph.layer(variable)
    return found.layer if found and isinstance(found.layer, Conv2d) else None


def _copy(graph: LayerGraph, variable: Any) -> Conv2d | None:
    found = graph.layer(variable)
    copy = found.copy if found else None
    return copy if copy and copy.in_layout == "NHWC" else None
