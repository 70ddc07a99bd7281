"""Moves the sigmoid of a concatenation into the layers that it joins, as their last step: class scores of detectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.expressions import operator_of
from tvmmobile.graph.layers import Conv2d
from tvmmobile.graph.operators import Trait, has
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass

_SIGMOID = "sigmoid"


@layer_pass
def split_steps(graph: LayerGraph, variable: Any) -> Mapping[Any, Any]:
    """Let layers compute the sigmoid if each part is a layer's output, perhaps moved, that nothing else reads."""
    value = graph.values[variable]
    joined = value.args[0] if operator_of(value) == f"relax.{_SIGMOID}" else None
    whole: Any = graph.values.get(joined)
    if operator_of(whole) != "relax.concat" or not graph.read_once(joined):
        return {}
    names = [_layer_of(graph, part) for part in getattr(whole.args[0], "fields", (None,))]
    if not all(names):
        return {}
    graph.layers.update({name: _with_sigmoid(graph.layers[name]) for name in names})
    return {variable: joined}


def _layer_of(graph: LayerGraph, part: Any) -> str:
    """Return the layer whose output a part is; "" where there is none that can compute the step."""
    while graph.read_once(part) and has(graph.values.get(part), Trait.MOVE):
        part = graph.values[part].args[0]
    found = graph.layer(part)
    if found is None or not graph.read_once(part) or not isinstance(found.layer, Conv2d) or found.layer.steps:
        return ""
    return graph.name(part) if graph.accepts(_with_sigmoid(found).layer) else ""


def _with_sigmoid(found: ComposedLayer) -> ComposedLayer:
    assert isinstance(found.layer, Conv2d)
    return replace(found, layer=replace(found.layer, clamp=_SIGMOID))
