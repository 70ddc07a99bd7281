"""Merges factors and shifts of channels that follow a layer into it, as its last step: learnable affine blocks such as PP-LCNet's, and
batch norms after activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.curves import SCALED
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Dense
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass


@layer_pass
def scaled_layers(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let a layer compute the depthwise 1×1 convolution that alone reads it, where some template takes that."""
    found = graph.layer(variable)
    if found is None or not _is_affine(found.layer):
        return {}
    (source,) = graph.inputs(variable)
    before = graph.layer(source)
    if before is None or not graph.read_once(source) or before.layer.output_shape != found.layer.output_shape:
        return {}
    scaled = _scaled(before, found)
    if scaled is None or not graph.accepts(scaled.layer):
        return {}
    return {variable: graph.call(scaled, graph.inputs(source))}


def _is_affine(layer: Any) -> bool:
    """Return whether a layer only scales and shifts each channel of its input."""
    if not (isinstance(layer, Conv2d) and layer.is_depthwise and layer.kernel == layer.stride == (1, 1)):
        return False
    others = any(layer.padding) or layer.scaled or layer.pieces or layer.side_shapes or layer.reads or layer.writes
    return not others and layer.in_layout == layer.out_layout


def _scaled(before: ComposedLayer, affine: ComposedLayer) -> ComposedLayer | None:
    """Return the layer with factors and shifts after its steps or, without steps, in its weights and bias; `None` for others."""
    layer, last, constants, given = before.layer, affine.layer, before.parameters, affine.parameters
    if not isinstance(layer, Conv2d | Dense) or layer.writes:
        return None
    assert isinstance(last, Conv2d)
    factor, shift = given.weight.reshape(-1), given.bias.reshape(-1)
    if not layer.steps and not layer.side_shapes:
        weight, bias = constants.weight * factor, constants.bias * factor + shift
        folded = replace(constants, weight=weight, bias=bias, operands=given.operands)
        return replace(before, layer=replace(layer, clamp=last.clamp, then=last.then), parameters=folded)
    then = (*layer.then, SCALED, *(() if last.clamp == NO_CLAMP else (last.clamp,)), *last.then)
    operands = (*constants.operands, factor, shift, *given.operands)
    return replace(before, layer=replace(layer, then=then), parameters=replace(constants, operands=operands))
