"""Moves steps after integer sums that no integer kernel supports into a separate float32 layer.

Tools leave out the rounding behind a convolution whose result an activation, a sum or the network's output reads as a real number. The sums
stay in integers where a kernel returns them as real numbers; activation and summand go to a depthwise 1×1 convolution with factors of one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from tvmmobile.graph.composed import ComposedLayer
from tvmmobile.graph.expressions import viewed
from tvmmobile.graph.integers import INTEGER_CURVES
from tvmmobile.graph.layers import NO_CLAMP, Conv2d, Layer, LayerParameters, Rounding
from tvmmobile.graph.passes.layer_passes import LayerGraph, layer_pass


def steps_apart(
    accepts_sums: Callable[[ComposedLayer], bool], accepts: Callable[[Layer], bool], layers: dict[str, ComposedLayer]
) -> Callable[[Any], Any]:
    """Return the pass that moves such steps out of a module's layers, once layers and roundings are composed.

    Args:
        accepts_sums: returns whether an integer kernel takes a layer that returns float32, whose weights are integers.
        accepts: returns whether some template takes a layer in float32.
        layers: changed along with `main`.
    """

    return layer_pass(partial(_split_step, accepts_sums=accepts_sums))(accepts, layers)


def _split_step(graph: LayerGraph, variable: Any, accepts_sums: Callable[[ComposedLayer], bool]) -> Mapping[Any, Any]:
    """Let a layer's steps follow its integer sums in a layer of their own."""
    found = graph.layer(variable)
    if found is None or not isinstance(found.layer, Conv2d) or not _should_be_apart(graph, variable, found.layer):
        return {}
    layer = replace(found.layer, clamp=NO_CLAMP, residual=False, then=())
    sums, steps = ComposedLayer(layer, LayerParameters(found.parameters.weight, found.parameters.bias)), _steps(found)
    if not accepts_sums(sums) or not graph.accepts(steps.layer):
        return {}
    data, *others = graph.inputs(variable)
    return {variable: graph.call(steps, [graph.call(sums, [data], graph.name(variable)), *others])}


def _should_be_apart(graph: LayerGraph, variable: Any, layer: Conv2d) -> bool:
    """Return whether a layer reads integers and has steps that it cannot do in integers."""
    read = graph.inputs(variable)
    has_steps = (layer.steps or layer.residual) and not layer.scaled and not layer.sources and layer.out_layout == "NHWC"
    if not has_steps or not _is_rounded(graph, read[0]):
        return False
    known = isinstance(layer.clamp, tuple) or layer.clamp in INTEGER_CURVES
    rounded = all(_is_rounded(graph, one) for one in read)
    return bool(layer.then) or not known or not rounded or not _is_read_by_one_rounding(graph, variable)


def _is_rounded(graph: LayerGraph, variable: Any) -> bool:
    while (source := viewed(graph.values.get(variable))) is not None:
        variable = source
    return _is_rounding(graph, variable)


def _is_rounding(graph: LayerGraph, variable: Any) -> bool:
    found = graph.layer(variable)
    return found is not None and isinstance(found.layer, Rounding)


def _is_read_by_one_rounding(graph: LayerGraph, variable: Any) -> bool:
    while graph.read_once(variable) and (variable := graph.readers[variable][0]) is not None:
        if _is_rounding(graph, variable):
            return True
        if viewed(graph.values[variable]) is None:
            return False
    return False


def _steps(found: ComposedLayer) -> ComposedLayer:
    """Return a convolution's steps as a layer with factors of one."""
    layer, channels = found.layer, found.layer.output_shape[-1]
    assert isinstance(layer, Conv2d)
    alone = Conv2d(
        layer.out_height, layer.out_width, channels, channels, groups=channels, clamp=layer.clamp, residual=layer.residual, then=layer.then
    )
    ones, zeros = np.ones(alone.weight_shape, np.float32), np.zeros(channels, np.float32)
    return ComposedLayer(alone, replace(found.parameters, weight=ones, bias=zeros))
